//! What the Makefile tells the programs that it runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{root, run};

/// Runs a command in a folder whose repository, if it has one, is its own.
fn run_in(folder: &Path, command: &mut Command) -> String {
    run(command.current_dir(folder).env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap()))
}

/// The SOURCE_DATE_EPOCH of what make runs for the sources in a folder, when its own is `given`.
fn date(folder: &Path, given: Option<&str>) -> Option<String> {
    let include = format!("include {}\nshow: ; @env\n", root("Makefile").display());
    fs::write(folder.join("show.mk"), include).unwrap();
    let mut make = Command::new("make");
    // These tests are run by make as well.
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "SOURCE_DATE_EPOCH"] {
        make.env_remove(variable);
    }
    make.args(["--file", "show.mk", "show"]).envs(given.map(|date| ("SOURCE_DATE_EPOCH", date)));
    let said = run_in(folder, &mut make);
    let dates = said.lines().filter_map(|line| line.strip_prefix("SOURCE_DATE_EPOCH="));
    dates.map(str::to_owned).next()
}

#[test]
fn sources_without_a_repository_have_no_date_rather_than_an_empty_one() {
    let folder = TempDir::new().unwrap();
    assert_eq!(date(folder.path(), None), None);
    assert_eq!(date(folder.path(), Some("")), None);
    assert_eq!(date(folder.path(), Some("86400")).as_deref(), Some("86400"));
}

#[test]
fn date_of_a_build_is_that_of_the_commit() {
    let folder = TempDir::new().unwrap();
    run_in(folder.path(), Command::new("git").args(["init", "--quiet"]));
    let commit = ["commit", "--quiet", "--allow-empty", "--message", "first"];
    let names = ["-c", "user.name=name", "-c", "user.email=name@example.org"];
    let mut git = Command::new("git");
    git.args(names).args(commit).env("GIT_COMMITTER_DATE", "@172800 +0000");
    run_in(folder.path(), &mut git);
    assert_eq!(date(folder.path(), None).as_deref(), Some("172800"));
}

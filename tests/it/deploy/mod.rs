//! The files of deploy/, each through its own real tool.

mod alerts;
mod architecture;
mod crowd;
mod dashboard;
mod docker;
mod documents;
mod kubernetes;
mod makefile;
mod metrics;
mod netbird;
pub(crate) mod nginx;
mod package;
mod peerbus;
mod reload;
mod settings;
mod systemd;
mod upgrade;
mod workflows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the repository.
pub(crate) fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of deploy/.
pub(crate) fn deploy(path: &str) -> PathBuf {
    root("deploy").join(path)
}

/// A file of deploy/ with parts replaced, as its own head tells an operator to do. Each part
/// must be there.
pub(crate) fn put_in(path: &str, parts: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(deploy(path)).unwrap();
    for (part, other) in parts {
        assert!(text.contains(part), "{path} has no {part:?}");
        text = text.replace(part, other);
    }
    text
}

/// Where the programs and Python packages are that scripts/tools.txt names.
pub(crate) fn tools() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_beacon-relay")).ancestors().nth(2).unwrap();
    target.join("tools")
}

/// A program that scripts/tools.txt names.
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = tools().join("bin").join(name);
    assert!(path.is_file(), "{} is missing; `make setup` installs it", path.display());
    path
}

/// Runs a tool that must succeed; what it says.
pub(crate) fn run(command: &mut Command) -> String {
    let (succeeded, said) = try_to_run(command);
    assert!(succeeded, "{command:?}: {said}");
    said
}

/// Runs a tool: whether it succeeds, and what it says.
pub(crate) fn try_to_run(command: &mut Command) -> (bool, String) {
    let output = command
        .env("SYSTEMD_COLORS", "0")
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `make setup` installs it"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

//! What the documents for operators name is there: files, headings, flags, settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use beacon_relay::doors::middleman::MiddlemanDrop;
use beacon_relay::doors::netbird::NetbirdDrop;
use beacon_relay::doors::peerbus::PeerbusDrop;
use beacon_relay::doors::pilot::PilotDrop;
use beacon_relay::metrics::{Drop, Reasons};

use super::{root, run};

/// The documents that people read.
fn documents() -> Vec<PathBuf> {
    let of_docs = fs::read_dir(root("docs")).unwrap().map(|entry| entry.unwrap().path());
    let markdown = of_docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let top = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(root);
    top.into_iter().chain(markdown).collect()
}

/// The text without what stands in blocks of code.
fn prose(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("```").step_by(2).collect()
}

/// What the headings of a document are called in links.
fn anchors(path: &Path) -> Vec<String> {
    let headings = prose(path);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = prose(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path =
                if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            let at = document.display();
            assert!(path.exists(), "{at}: {target}");
            assert!(
                anchor.is_empty() || anchors(&path).iter().any(|a| a == anchor),
                "{at}: {target}"
            );
            links += 1;
        }
    }
    assert!(links > 50, "{links} links: has the search gone blind?");
}

#[test]
fn book_has_every_document_once() {
    let summary = fs::read_to_string(root("docs/SUMMARY.md")).unwrap();
    let mut listed: Vec<_> =
        summary.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    listed.sort_unstable();
    let files = fs::read_dir(root("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    files.retain(|name| name.ends_with(".md") && name != "SUMMARY.md");
    files.sort_unstable();
    assert_eq!(listed, files);
}

/// Folders of the repository that no package of the relay has: they are packages of their own.
const OTHER_PACKAGES: [&str; 2] = ["crates/", "fuzz/"];

#[test]
fn links_of_the_readme_lead_somewhere_in_the_package_as_well() {
    let text = prose(&root("README.md"));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let outside: Vec<_> = targets
        .filter(|target| OTHER_PACKAGES.iter().any(|folder| target.starts_with(folder)))
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
}

/// The first segments of paths of the repository that documents name.
const FOLDERS: [&str; 8] =
    ["src", "crates", "tests", "examples", "benches", "scripts", "deploy", "docs"];

/// The file or folder that a path of a module leads to: `relay/frames.rs` is
/// src/relay/frames.rs, and `wire/frames.rs` crates/wire/src/frames.rs.
pub(super) fn source_of(path: &str) -> Option<PathBuf> {
    let path = path.trim_end_matches('/');
    let mut places = vec![format!("src/{path}")];
    if let Some((name, rest)) = path.split_once('/') {
        places.push(format!("crates/{name}/src/{rest}"));
    } else {
        places.push(format!("crates/{path}/src"));
    }
    places.into_iter().map(|place| root(&place)).find(|place| place.exists())
}

/// Whether this can only be meant as a path of a module.
fn is_of_module(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_/.".contains(c);
    let (room, _) = text.split_once('/').unwrap_or_default();
    let is_room = !room.is_empty() && source_of(room).is_some_and(|room| room.is_dir());
    is_room && text.chars().all(is_plain)
}

#[test]
fn paths_in_the_documents_exist() {
    let mut paths = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let at = document.display();
        let is_end = |c: char| !(c.is_ascii_alphanumeric() || "_-./".contains(c));
        for word in text.split(is_end) {
            let word = word.trim_start_matches("../").trim_end_matches('.');
            if word.split_once('/').is_some_and(|(folder, _)| FOLDERS.contains(&folder)) {
                assert!(root(word).exists(), "{at}: {word}");
                paths += 1;
            }
        }
        let in_code = prose(&document);
        for path in in_code.split('`').skip(1).step_by(2).filter(|text| is_of_module(text)) {
            assert!(source_of(path).is_some(), "{at}: {path}");
            paths += 1;
        }
    }
    assert!(paths > 150, "{paths} paths: has the search gone blind?");
}

/// Flags in code within a text: `--flag` and what follows up to its end.
fn flags(text: &str) -> Vec<&str> {
    let begins = text.match_indices("`--").map(|(at, _)| &text[at + 1..]);
    let end = |c: char| !(c.is_ascii_lowercase() || c == '-');
    begins.map(|flag| flag.split(end).next().unwrap()).collect()
}

#[test]
fn every_flag_of_the_migration_exists() {
    let help = run(Command::new(env!("CARGO_BIN_EXE_beacon-relay")).args(["serve", "--help"]));
    let text = fs::read_to_string(root("docs/PILOT.md")).unwrap();
    let flags = flags(&text);
    assert!(flags.len() > 15, "{flags:?}");
    for flag in flags {
        assert!(
            help.contains(&format!("  {flag} ")) || help.contains(&format!("  {flag}[")),
            "{flag}"
        );
    }
}

#[test]
fn settings_that_the_migration_calls_unchanged_are_there() {
    let help = run(Command::new(env!("CARGO_BIN_EXE_beacon-relay")).args(["serve", "--help"]));
    let text = fs::read_to_string(root("docs/UPGRADE.md")).unwrap();
    let (_, unchanged) = text.split_once("\n### Unchanged\n").unwrap();
    let keys = unchanged.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let keys: Vec<_> = keys.split_whitespace().collect();
    assert!(keys.len() > 50, "{keys:?}");
    for key in keys {
        let flag = format!("  --{}", key.replace('_', "-"));
        let is_there = [" ", "["].iter().any(|end| help.contains(&format!("{flag}{end}")));
        assert!(is_there, "{key}");
    }
}

#[test]
fn configuration_of_the_migration_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "hunter2\n").unwrap();
    let text = fs::read_to_string(root("docs/PILOT.md")).unwrap();
    let toml = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let toml = toml.replace("/etc/beacon-relay/registry.token", token.to_str().unwrap());
    let file = folder.path().join("relay.toml");
    fs::write(&file, toml).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    check.env_clear().args(["check-config", "--state-dir"]).arg(folder.path());
    run(check.arg("--config").arg(&file));
}

/// The table of a document that explains reasons of drops.
fn table(reasons: &Reasons) -> String {
    let rows = reasons
        .rows()
        .map(|reason| format!("| `{}` | {} | {} |\n", reason.label, reason.cause, reason.remedy));
    format!("| reason | cause | remedy |\n|---|---|---|\n{}\n", rows.collect::<String>())
}

#[test]
fn reasons_of_drops_are_explained_as_their_tables_have_them() {
    let text = fs::read_to_string(root("docs/TROUBLESHOOTING.md")).unwrap();
    let (_, section) = text.split_once("\n## Why did this packet not arrive?\n").unwrap();
    let of_doors = [PilotDrop::REASONS, NetbirdDrop::REASONS, PeerbusDrop::REASONS];
    let of_doors = of_doors.into_iter().chain([MiddlemanDrop::REASONS]);
    for reasons in of_doors.chain([Drop::REASONS]).map(table) {
        assert!(section.contains(&reasons), "docs/TROUBLESHOOTING.md is to have:\n{reasons}");
    }
}

#[test]
fn documents_have_the_table_of_exit_codes_once_and_as_it_is() {
    let tables: Vec<String> = documents()
        .iter()
        .map(|document| fs::read_to_string(document).unwrap())
        .filter_map(|text| {
            text.split_once("| exit code | |\n|---|---|\n").map(|(_, rest)| rest.to_owned())
        })
        .collect();
    let [rest] = &*tables else { panic!("{} documents have the table", tables.len()) };
    let rows: Vec<_> = rest.lines().take_while(|line| line.starts_with('|')).collect();
    let expected: Vec<_> = beacon_relay::cli::CODES
        .iter()
        .map(|(code, meaning)| format!("| {code} | {meaning} |"))
        .collect();
    assert_eq!(rows, expected);
}

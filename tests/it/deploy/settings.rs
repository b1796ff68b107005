//! docs/SETTINGS.md says of every setting what `serve --help` says; `UPDATE=1` writes it anew.
//!
//! Written by hand are the last two columns: when a reload takes a new value over, and notes.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use super::{root, run};

const DOCUMENT: &str = "docs/SETTINGS.md";

/// What a row says that only a restart takes over.
const RESTART: &str = "restart";

/// A setting, as the help has it.
struct Setting {
    heading: String,
    flag: String,
    value_name: String,
    default: String,
    meaning: String,
}

/// All settings in the order of the help, whose lines are `--flag <VALUE>  Meaning [default: X]`.
fn settings() -> Vec<Setting> {
    let help = run(Command::new(env!("CARGO_BIN_EXE_beacon-relay")).args(["serve", "--help"]));
    let mut heading = "";
    let mut settings = Vec::new();
    for line in help.lines() {
        if let Some(name) = line.strip_suffix(':')
            && !line.starts_with(' ')
        {
            heading = name;
        }
        let Some((flag, meaning)) =
            line.trim_start().strip_prefix("--").and_then(|rest| rest.split_once("  "))
        else {
            continue;
        };
        // `flag <VALUE>`, or `flag[=<VALUE>]` where it may be left out.
        let (flag, value_name) = flag.split_once('<').unwrap_or((flag, ""));
        let value_name = value_name.rsplit_once('>').map_or("", |(value_name, _)| value_name);
        let (meaning, default) = match meaning.split_once(" [default: ") {
            Some((meaning, rest)) => (meaning, rest.strip_suffix(']').expect("it ends the line")),
            None => (meaning, ""),
        };
        settings.push(Setting {
            heading: heading.to_owned(),
            flag: flag.trim_end_matches([' ', '[', '=']).to_owned(),
            value_name: value_name.to_owned(),
            default: default.to_owned(),
            meaning: meaning.trim().to_owned(),
        });
    }
    settings
}

/// What is written by hand, by flag: when a reload takes a value over, and notes.
fn by_hand(document: &str) -> BTreeMap<String, (String, String)> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `--"));
    let cells = rows.filter_map(|row| row.strip_suffix(" |")).map(|row| row.split(" | "));
    let of_row = |mut cells: std::str::Split<'_, &str>| {
        let flag = cells.next()?.split(['`', ' ']).next()?.to_owned();
        let takes_effect = cells.nth(2)?.to_owned();
        let notes: Vec<_> = cells.collect();
        Some((flag, (takes_effect, notes.join(" | ").trim().to_owned())))
    };
    cells.filter_map(of_row).collect()
}

/// The document, with the tables that the settings ask for behind the head that it has.
fn expected(document: &str, settings: &[Setting]) -> String {
    let head = document.split("\n## ").next().unwrap();
    let by_hand = by_hand(document);
    let mut text = format!("{}\n", head.trim_end());
    let mut heading = "";
    for setting in settings {
        if setting.heading != heading {
            heading = &setting.heading;
            write!(text, "\n## {heading}\n\n").unwrap();
            text +=
                "| setting | default | meaning | takes effect | notes |\n|---|---|---|---|---|\n";
        }
        let Setting { flag, value_name, default, meaning, .. } = setting;
        let unknown = (RESTART.to_owned(), String::new());
        let (takes_effect, notes) = by_hand.get(flag).unwrap_or(&unknown);
        let value = if value_name.is_empty() { String::new() } else { format!(" `{value_name}`") };
        let meaning = meaning.replace('|', "\\|");
        writeln!(text, "| `--{flag}`{value} | {default} | {meaning} | {takes_effect} | {notes} |")
            .unwrap();
    }
    text
}

#[test]
fn every_setting_is_in_the_reference_as_the_help_has_it() {
    let document = fs::read_to_string(root(DOCUMENT)).unwrap();
    let settings = settings();
    assert!(settings.len() > 80, "{} settings: has the search gone blind?", settings.len());
    let expected = expected(&document, &settings);
    if env::var_os("UPDATE").is_some() {
        fs::write(root(DOCUMENT), expected).unwrap();
        return;
    }
    for (has, wants) in document.lines().zip(expected.lines()) {
        assert_eq!(has, wants, "UPDATE=1 writes {DOCUMENT}");
    }
    assert_eq!(document.lines().count(), expected.lines().count(), "UPDATE=1 writes {DOCUMENT}");
}

#[test]
fn reference_says_of_every_setting_whether_a_reload_takes_it_over() {
    let document = fs::read_to_string(root(DOCUMENT)).unwrap();
    let live: BTreeSet<_> = beacon_relay::config::live_settings().collect();
    // `--config` names the file itself.
    let rows = by_hand(&document).into_iter().filter(|(flag, _)| flag != "config");
    for (flag, (takes_effect, _)) in rows {
        let is_live = live.contains(flag.replace('-', "_").as_str());
        assert_eq!(takes_effect != RESTART, is_live, "--{flag}: {takes_effect}");
    }
    for table in live.iter().filter(|key| key.starts_with("keyop_p")) {
        let row = format!("| `[[{}]]` |", table.replace('_', "."));
        assert!(document.contains(&row), "{row}");
    }
}

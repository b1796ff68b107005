//! `audit verify` and `audit export`, as an operator runs them on the store of a relay that is not
//! running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use beacon_relay::cluster::load_or_create;
use beacon_relay::proto::bus::{Event, EventKind, Millis};
use beacon_relay::store::audit::{Chain, Checkpoints, cut_before};
use beacon_relay::store::{Commit, Embedded, Handover, Store as _, bus_folder};
use tempfile::TempDir;

use crate::wording::assert_names_a_way_out;

/// A state folder whose log has so many entries, one a second.
struct State(TempDir);

impl State {
    fn new(entries: u64) -> Self {
        let state = Self(TempDir::new().unwrap());
        state.append(entries);
        state
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn store(&self) -> Embedded {
        Embedded::open(&bus_folder(self.path()), Handover::Kernel).unwrap()
    }

    fn append(&self, entries: u64) {
        let store = self.store();
        let mut chain = Chain::after(store.last_audit().unwrap().as_ref());
        let first = store.last_audit().unwrap().map_or(0, |last| last.seq + 1);
        let audit: Vec<_> = (first..first + entries)
            .map(|number| {
                let event = Event {
                    kind: EventKind::Send,
                    key: format!("m{number}").into(),
                    from: "böb <1>".into(),
                    to: "alice".into(),
                };
                chain.append(&event, Millis(1_000 * number))
            })
            .collect();
        for entries in audit.chunks(5_000) {
            store.commit(&Commit { changes: Vec::new(), audit: entries.to_vec() }).unwrap();
        }
    }

    fn sign(&self) -> PathBuf {
        let file = self.file("checkpoints.jsonl");
        let key = load_or_create(self.path()).unwrap();
        let mut checkpoints = Checkpoints::new(key, Some(file.clone()));
        checkpoints.write(&self.store(), Millis(1_764_000_000_000)).unwrap().unwrap();
        file
    }

    fn cut(&self, old: u64) {
        let key = load_or_create(self.path()).unwrap();
        cut_before(&self.store(), Millis(old), Millis(1), &key).unwrap();
    }

    fn verify(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        command.args(["audit", "verify", "--state-dir"]).arg(self.path()).args(more);
        command.output().unwrap()
    }

    /// The log as it is exported, in a file.
    fn export(&self) -> (PathBuf, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        command.args(["audit", "export", "--state-dir"]).arg(self.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let file = self.file("export.jsonl");
        fs::write(&file, &text).unwrap();
        (file, text)
    }
}

fn verify_file(file: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["audit", "verify", "--from"]).arg(file).args(more).output().unwrap()
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32) -> String {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert_names_a_way_out(&line);
    line
}

#[test]
fn whole_log_is_ok_and_its_tail_not_provable_without_a_checkpoint() {
    let state = State::new(2_500);
    let text = ok(&state.verify(&[]));
    let expected = "audit chain OK: 2500 entries; tail not provable without a checkpoint\n";
    assert_eq!(text, expected);
    let (file, text) = state.export();
    assert_eq!(text.lines().count(), 2_500);
    assert_eq!(ok(&verify_file(&file, &[])), expected);
    let empty = State::new(0);
    assert!(ok(&empty.verify(&[])).starts_with("audit chain OK: 0 entries; "));
}

#[test]
fn tail_is_proven_up_to_the_last_checkpoint_and_a_cut_one_found() {
    let state = State::new(10);
    let checkpoints = state.sign();
    state.append(5);
    let signed = ["--checkpoint", checkpoints.to_str().unwrap()];
    let text = ok(&state.verify(&signed));
    let expected = "audit chain OK: 15 entries; tail proven up to entry 9, signed at 2025-11-24T";
    assert!(text.starts_with(expected), "{text}");

    let (file, text) = state.export();
    let kept: Vec<_> = text.lines().take(8).collect();
    fs::write(&file, kept.join("\n")).unwrap();
    assert!(verify_file(&file, &[]).status.success());
    let line = refused(&verify_file(&file, &signed), 1);
    assert!(line.contains("BROKEN: it ends with entry 7, and a checkpoint has entry 9"), "{line}");
}

#[test]
fn edit_a_swap_and_a_missing_line_are_told_with_their_entry() {
    let state = State::new(10);
    let (file, text) = state.export();
    let lines: Vec<_> = text.lines().collect();
    let write = |lines: &[&str]| fs::write(&file, lines.join("\n")).unwrap();

    let edited = lines[4].replace("alice", "mallory");
    write(&[&lines[..4], &[&edited], &lines[5..]].concat());
    let line = refused(&verify_file(&file, &[]), 1);
    assert!(line.contains("audit chain BROKEN: entry 4: its hash is"), "{line}");

    write(&[&lines[..4], &[lines[5], lines[4]], &lines[6..]].concat());
    let line = refused(&verify_file(&file, &[]), 1);
    assert!(line.contains("entry 5 stands where entry 4 belongs"), "{line}");

    write(&[&lines[..4], &lines[7..]].concat());
    let line = refused(&verify_file(&file, &[]), 1);
    assert!(line.contains("entry 7 stands where entry 4 belongs"), "{line}");

    write(&[&lines[..4], &["{\"seq\":4}"], &lines[5..]].concat());
    let line = refused(&verify_file(&file, &[]), 1);
    assert!(line.contains("line 5 is no entry"), "{line}");
}

#[test]
fn log_that_retention_cut_verifies_behind_its_head_and_not_without() {
    let state = State::new(70_000);
    let checkpoints = state.sign();
    state.cut(69_000_000);
    let text = ok(&state.verify(&["--checkpoint", checkpoints.to_str().unwrap()]));
    assert!(text.starts_with("audit chain OK: 4464 entries; tail proven"), "{text}");

    let (file, text) = state.export();
    assert!(text.starts_with("{\"kind\":\"head\",\"seq\":65535,"), "{text:.200}");
    ok(&verify_file(&file, &[]));
    let (head, rest) = text.split_once('\n').unwrap();
    fs::write(&file, rest).unwrap();
    let line = refused(&verify_file(&file, &[]), 1);
    assert!(line.contains("entry 65536 stands where entry 0 belongs"), "{line}");
    let forged = head.replace("65535", "65534");
    fs::write(&file, format!("{forged}\n{rest}")).unwrap();
    let line = refused(&verify_file(&file, &[]), 1);
    assert!(line.contains("line 1: the signature is not that of relay"), "{line}");
}

#[test]
fn checkpoints_of_another_relay_and_forged_ones_are_no_proof() {
    let state = State::new(10);
    let other = State::new(10);
    load_or_create(state.path()).unwrap();
    let theirs = other.sign();
    let line = refused(&state.verify(&["--checkpoint", theirs.to_str().unwrap()]), 1);
    assert!(line.contains("a checkpoint is signed by relay"), "{line}");

    let ours = state.sign();
    let forged = fs::read_to_string(&ours).unwrap().replace("\"seq\":9", "\"seq\":8");
    fs::write(&ours, &forged).unwrap();
    let line = refused(&state.verify(&["--checkpoint", ours.to_str().unwrap()]), 1);
    assert!(line.contains("checkpoints.jsonl: line 1: the signature is not"), "{line}");

    fs::write(&ours, "{\"kind\":\"check").unwrap();
    let text = ok(&state.verify(&["--checkpoint", ours.to_str().unwrap()]));
    assert!(text.contains("has no checkpoint; lines that are no checkpoint: 1"), "{text}");
}

#[test]
fn what_cannot_be_read_exits_2_and_bad_usage_64() {
    let empty = TempDir::new().unwrap();
    let path = empty.path().join("none");
    let missing = path.to_str().unwrap();
    let line = refused(&verify_file(&path, &[]), 2);
    assert!(line.contains("cannot read") && line.contains("No such file"), "{line}");
    let state = State::new(1);
    let line = refused(&state.verify(&["--checkpoint", missing]), 2);
    assert!(line.contains("No such file"), "{line}");
    let none = State(empty);
    let line = refused(&none.verify(&[]), 2);
    assert!(line.contains("there is no store of messages at"), "{line}");
    assert!(!none.file("bus").exists());
    refused(&state.verify(&["--form", "x"]), 64);

    // Another process has the store, and answers at no control socket.
    let _store = state.store();
    let line = refused(&state.verify(&[]), 2);
    assert!(line.contains("no relay answers at"), "{line}");
}

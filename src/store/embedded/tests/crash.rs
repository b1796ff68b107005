//! A process that ends in the middle, and what a crash leaves of the journal.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::process::{Command, Stdio};

use super::*;

/// Tells a process of this test that it is the one to be killed, and where its store is.
const FOLDER: &str = "BEACON_RELAY_TEST_STORE";

/// One commit: a message, its level, what was accepted and an entry of the audit log.
fn one(seq: u64) -> Commit {
    let sent = message("alice", seq, 500);
    let accepted = Change::Accepted { number: seq, at: Millis(seq), origins: vec![sent.origin] };
    let changes = vec![append(1, seq, &sent), level(1, 1, seq + 1), accepted];
    Commit { changes, audit: vec![entry(seq)] }
}

/// How many commits of [`one`] there are: each as a whole, and none behind one that is missing.
fn whole_commits(store: &Embedded) -> u64 {
    let read = store.read(MailboxId(1), Seq(1), ALL).unwrap().stored;
    let count = read.len() as u64;
    assert_eq!(positions(&read), (1..=count).collect::<Vec<_>>());
    assert_eq!(store.recover().unwrap().accepted.len() as u64, count);
    assert_eq!(store.audit(0, usize::MAX).unwrap().len() as u64, count);
    for stored in read {
        let found = store.find(MailboxId(1), Digest::of_key(&stored.message.key)).unwrap();
        assert_eq!(found.map(|found| found.seq), Some(stored.seq));
    }
    count
}

/// Commits until the process is killed, and says so of each.
fn commit_until_killed(folder: &Path) -> ! {
    let store = open(folder);
    let mut out = std::io::stdout();
    for seq in whole_commits(&store) + 1.. {
        store.commit(&one(seq)).unwrap();
        writeln!(out, "committed {seq}").unwrap();
        out.flush().unwrap();
    }
    unreachable!("numbers do not end");
}

#[test]
fn killed_process_loses_no_commit() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        commit_until_killed(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::embedded::tests::crash::killed_process_loses_no_commit"])
            .arg("--nocapture")
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.map_while(Result::ok).filter_map(|line| {
            let (_, number) = line.split_once("committed ")?;
            number.parse::<u64>().ok()
        });
        let enough = last + 700 * round;
        let mut killed = false;
        for number in numbers {
            last = number;
            if number >= enough && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "it ended by itself behind {last}");
        let there = whole_commits(&open(folder.path()));
        assert!(there >= last, "{there} are left of {last}");
        last = there;
    }
}

/// Copies what a crash would leave at this moment.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-rT").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// The end of what a journal holds: behind it there are zeros.
fn end_of(journal: &Path) -> u64 {
    let mut bytes = Vec::new();
    File::open(journal).unwrap().read_to_end(&mut bytes).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    last as u64 + 1
}

#[test]
fn torn_end_of_the_journal_takes_one_commit_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for seq in 1..=5 {
        store.commit(&one(seq)).unwrap();
    }
    let before = end_of(&folder.path().join("0.jnl"));
    store.commit(&one(6)).unwrap();
    let after = end_of(&folder.path().join("0.jnl"));
    for at in (before..after).step_by(97).chain([after - 1]) {
        let copied = tempfile::tempdir().unwrap();
        copy(folder.path(), copied.path());
        let journal = OpenOptions::new().write(true).open(copied.path().join("0.jnl")).unwrap();
        journal.set_len(at).unwrap();
        if at % 2 == 0 {
            journal.set_len(64 << 20).unwrap();
        }
        let store = open(copied.path());
        assert_eq!(whole_commits(&store), 5, "cut at {at} of {before}..{after}");
        store.commit(&one(6)).unwrap();
        drop(store);
        assert_eq!(whole_commits(&open(copied.path())), 6);
    }
}

#[test]
fn end_that_power_loss_left_in_pieces_is_cut_off_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for seq in 1..=5 {
        store.commit(&one(seq)).unwrap();
    }
    drop(store);
    let path = folder.path().join("0.jnl");
    let before = end_of(&path);
    let store = open(folder.path());
    store.commit(&one(6)).unwrap();
    store.commit(&one(7)).unwrap();
    drop(store);
    // A page that the disk never got, in the body of the sixth message.
    let mut journal = OpenOptions::new().write(true).open(&path).unwrap();
    journal.seek(SeekFrom::Start(before + 200)).unwrap();
    journal.write_all(&[0; 64]).unwrap();
    let end = end_of(&path);

    let store = open(folder.path());
    assert_eq!(whole_commits(&store), 5);
    let kept = fs::metadata(folder.path().join("0.torn")).unwrap().len();
    assert_eq!(kept, end - before);
    store.commit(&one(6)).unwrap();
    drop(store);
    assert_eq!(whole_commits(&open(folder.path())), 6);
}

#[test]
fn copy_of_a_store_in_use_is_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for seq in 1..=3_000 {
        store.commit(&one(seq)).unwrap();
    }
    let copied = tempfile::tempdir().unwrap();
    store.shared.to_read().unwrap().settle().unwrap();
    store.commit(&one(3_001)).unwrap();
    drop(store);
    copy(folder.path(), copied.path());
    assert_eq!(whole_commits(&open(copied.path())), 3_001);
}

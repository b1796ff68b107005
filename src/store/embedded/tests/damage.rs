//! A file of the store that the disk has changed.

use std::os::unix::fs::FileExt as _;

use super::*;

fn one(seq: u64) -> Commit {
    let sent = message("alice", seq, 900);
    Commit { changes: vec![append(1, seq, &sent), level(1, 1, seq + 1)], audit: vec![entry(seq)] }
}

/// The tables of a key space, with their lengths. An open database may merge them at any time.
fn tables(store: &Path, space: u64) -> Vec<(u64, PathBuf)> {
    let folder = store.join("keyspaces").join(space.to_string()).join("tables");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.metadata().unwrap().len(), file.path())).collect()
}

#[test]
fn table_that_cannot_be_merged_costs_a_moment_at_each_attempt_and_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for seq in 1..8_000 {
        store.commit(&one(seq)).unwrap();
    }
    // Delivery keys are in no order: each merge takes all that there are.
    let keys = store.shared.to_read().unwrap().keys.id();
    drop(store);
    let (length, largest) = tables(folder.path(), keys).into_iter().max().unwrap();
    let file = File::options().write(true).open(largest).unwrap();
    file.write_all_at(&[0x55; 64], length / 2).unwrap();

    let store = open(folder.path());
    let mut failures = 0;
    for seq in 8_000..11_000 {
        while let Err(error) = store.commit(&one(seq)) {
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
            failures += 1;
            // Four minutes: each attempt to merge begins when the database is open, once a second, and
            // leaves time for fewer commits where others compute.
            assert!(failures < 12_000, "{seq}: {error}");
            thread::sleep(Duration::from_millis(20));
        }
    }
    let read = store.read(MailboxId(1), Seq(1), ALL).unwrap();
    assert_eq!(positions(&read.stored), (1..11_000).collect::<Vec<_>>());
}

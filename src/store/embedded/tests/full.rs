//! A full disk: a file system of its own, in a mount namespace of its own.

use std::process::Command;

use super::*;

/// Tells a process of this test that the file system is there, and where.
const FOLDER: &str = "BEACON_RELAY_TEST_FULL";

/// The file system, in bytes: some journals and tables of [`SMALL`].
const BYTES: u64 = 32 << 20;

#[test]
fn full_disk_refuses_commits_and_loses_none() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        fill(Path::new(&folder));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={BYTES} none \"$1\" && shift && exec \"$@\"");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::embedded::tests::full::full_disk_refuses_commits_and_loses_none"])
        .arg("--nocapture")
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("all are there"), "{text}");
}

fn one(seq: u64) -> Commit {
    let sent = message("alice", seq, 900);
    let changes = vec![append(1, seq, &sent), level(1, 1, seq + 1)];
    Commit { changes, audit: vec![entry(seq)] }
}

/// Commits until the disk is full: the position of the one that failed.
fn until_full(store: &Embedded, mut seq: u64) -> u64 {
    loop {
        match store.commit(&one(seq)) {
            Ok(()) => seq += 1,
            Err(StoreError::Unavailable(_)) => return seq,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Repeats a commit until it is taken.
fn repeat(store: &Embedded, seq: u64) {
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(error) = store.commit(&one(seq)) {
        assert!(Instant::now() < end, "{error}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn assert_all(store: &Embedded, before: u64) {
    let read = store.read(MailboxId(1), Seq(1), ALL).unwrap().stored;
    assert_eq!(positions(&read), (1..before).collect::<Vec<_>>());
    assert_eq!(store.audit(0, usize::MAX).unwrap().len() as u64, before - 1);
}

fn fill(folder: &Path) {
    let ballast = folder.join("ballast");
    let bus = folder.join("bus");
    let store = open(&bus);
    let mut next = 1;
    for round in 0..3 {
        let bytes = free(folder).unwrap().saturating_sub(6 << 20) + round * (1 << 20);
        fs::write(&ballast, vec![1; usize::try_from(bytes).unwrap()]).unwrap();
        next = until_full(&store, next);
        println!("round {round}: full behind {}", next - 1);
        // What was committed is read all the same.
        assert_all(&store, next);
        for _ in 0..3 {
            assert!(matches!(store.commit(&one(next)), Err(StoreError::Unavailable(_))));
        }
        fs::remove_file(&ballast).unwrap();
        repeat(&store, next);
        next += 1;
        assert_all(&store, next);
    }
    drop(store);
    let store = open(&bus);
    assert_all(&store, next);
    println!("all are there");
}

//! What the log has counts as what the other rows have, whenever it becomes rows.

use super::*;
use crate::proto::bus::{Cause, Message};
use crate::store::suite::remove;

/// A message that counts as more than a commit that goes into the log.
fn large(number: u64) -> Arc<Message> {
    message("alice", number, 70_000)
}

/// How many rows the log has that are of use.
fn logged(store: &Embedded) -> u32 {
    store.shared.known.lock().pending.rows
}

fn rows(store: &Embedded) -> usize {
    store.shared.to_read().unwrap().messages.len().unwrap()
}

#[test]
fn message_that_is_acknowledged_soon_is_never_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for seq in 1..=100 {
        let sent = message("alice", seq, 100);
        commit(&store, vec![append(1, seq, &sent), level(1, seq, seq + 1)]);
        commit(&store, vec![remove(1, seq, &sent), level(1, seq + 1, seq + 1)]);
    }
    assert_eq!((logged(&store), rows(&store)), (200, 0));
    fold(&store);
    let database = store.shared.to_read().unwrap();
    assert_eq!(database.messages.approximate_len() + database.keys.approximate_len(), 0);
    assert_eq!(logged(&store), 0);
}

#[test]
fn log_that_is_full_becomes_rows_and_goes_on_from_its_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for seq in 1..=5_000 {
        commit(&store, vec![append(1, seq, &message("alice", seq, 10)), level(1, 1, seq + 1)]);
    }
    assert!(rows(&store) >= 4_000, "{}", rows(&store));
    let of_log = || store.shared.to_read().unwrap().log.len().unwrap();
    assert_eq!(of_log(), 1_024, "they are written again and again");
    let all = (1..=5_000).collect::<Vec<_>>();
    assert_eq!(positions(&store.read(MailboxId(1), Seq(1), ALL).unwrap().stored), all);
    drop(store);
    let store = open(folder.path());
    assert_eq!(positions(&store.read(MailboxId(1), Seq(1), ALL).unwrap().stored), all);
    assert_eq!(rows(&store) + logged(&store) as usize, 5_000);
}

#[test]
fn large_commit_is_not_in_the_log_and_what_was_is_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let small = message("alice", 1, 10);
    commit(&store, vec![append(1, 1, &small)]);
    commit(&store, vec![append(1, 2, &large(2)), remove(1, 1, &small)]);
    assert_eq!((logged(&store), rows(&store)), (0, 1));
    commit(&store, vec![append(1, 3, &message("alice", 3, 10))]);
    let check = |store: &Embedded| {
        let read = store.read(MailboxId(1), Seq(1), ALL).unwrap().stored;
        assert_eq!(positions(&read), [2, 3]);
        assert_eq!(read[0].message, large(2));
        assert_eq!(store.find(MailboxId(1), Digest::of_key("1")).unwrap(), None);
        assert_eq!(store.find(MailboxId(1), Digest::of_key("2")).unwrap().unwrap().seq, Seq(2));
    };
    check(&store);
    drop(store);
    check(&open(folder.path()));
}

#[test]
fn what_is_removed_is_gone_whether_a_row_has_it_or_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let of = |seq| message("alice", seq, 10);
    for seq in 1..=6 {
        commit(&store, vec![append(1, seq, &of(seq))]);
        if seq == 3 {
            fold(&store);
        }
    }
    commit(&store, vec![remove(1, 2, &of(2)), remove(1, 5, &of(5))]);
    let attempt = Change::Attempt { mailbox: MailboxId(1), seq: Seq(3), attempts: 4 };
    commit(&store, vec![attempt]);
    let letters = [(1, 3_u64), (1, 4)].map(|(mailbox, seq)| Change::Bury {
        mailbox: MailboxId(mailbox),
        seq: Seq(seq),
        key: Digest::of_key(&seq.to_string()),
        cause: Cause::Attempts,
        at: Millis(9),
    });
    commit(&store, letters.to_vec());
    let check = |store: &Embedded| {
        assert_eq!(positions(&store.read(MailboxId(1), Seq(1), ALL).unwrap().stored), [1, 6]);
        for (number, found) in [(1, Some(1)), (2, None), (3, None), (4, None), (5, None)] {
            let key = Digest::of_key(&number.to_string());
            let seq = store.find(MailboxId(1), key).unwrap().map(|found| found.seq.0);
            assert_eq!(seq, found, "{number}");
        }
        let letters = store.dead_letters(MailboxId(1), ALL).unwrap();
        let told = letters.iter().map(|of| (of.stored.seq.0, of.stored.attempts));
        assert_eq!(told.collect::<Vec<_>>(), [(3, 4), (4, 0)]);
    };
    check(&store);
    drop(store);
    let store = open(folder.path());
    check(&store);
    fold(&store);
    check(&store);
    drop(store);
    check(&open(folder.path()));
}

#[test]
fn dead_letter_that_waits_again_is_none_whether_a_row_has_it_or_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mailbox = MailboxId(1);
    let letter = |seq: u64| {
        let key = Digest::of_key(&seq.to_string());
        let bury = Change::Bury {
            mailbox,
            seq: Seq(seq),
            key,
            cause: Cause::Attempts,
            at: Millis(10 + seq),
        };
        commit(&store, vec![append(1, seq, &message("alice", seq, 10)), bury]);
    };
    letter(1);
    letter(2);
    fold(&store);
    letter(3);
    letter(4);
    let requeue = |seq| Change::Requeue { mailbox, seq: Seq(seq), at: Millis(10 + seq) };
    commit(&store, vec![requeue(1), requeue(3)]);
    let check = |store: &Embedded| {
        let letters = store.dead_letters(mailbox, ALL).unwrap();
        let told: Vec<_> = letters.iter().map(|of| of.stored.seq.0).collect();
        assert_eq!(told, [2, 4]);
        let first = store.dead_letters(mailbox, Most { messages: 1, ..ALL }).unwrap();
        assert_eq!(first, letters[..1]);
    };
    check(&store);
    drop(store);
    let store = open(folder.path());
    check(&store);
    fold(&store);
    check(&store);
}

#[test]
fn what_is_forgotten_stays_so_when_the_log_becomes_rows() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut number = 0;
    for round in 0..5 {
        for _ in 0..100 {
            let origins = vec![Digest([3; 16]); 2];
            let accepted = Change::Accepted { number, at: Millis(number), origins };
            commit(&store, vec![accepted, Change::ForgetAccepted { before: number / 2 }]);
            number += 1;
        }
        let numbers = |store: &Embedded| {
            let accepted = store.recover().unwrap().accepted;
            accepted.iter().map(|(number, ..)| *number).collect::<Vec<_>>()
        };
        let expected: Vec<_> = ((number - 1) / 2..number).collect();
        assert_eq!(numbers(&store), expected, "round {round}");
        fold(&store);
        assert_eq!(numbers(&store), expected, "round {round}");
    }
    assert!(store.shared.to_read().unwrap().accepted.len().unwrap() <= 4, "rows go as well");
}

#[test]
fn name_that_was_forgotten_leaves_its_number_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let forget = Change::Forget { realm: 3, name: "bob".into(), mailbox: MailboxId(41) };
    commit(&store, vec![Change::Name(named(41, "bob")), level(41, 1, 1)]);
    commit(&store, vec![forget]);
    fold(&store);
    drop(store);
    let store = open(folder.path());
    let recovered = store.recover().unwrap();
    assert_eq!((recovered.names.len(), recovered.next_mailbox), (0, 42));
    assert!(store.shared.to_read().unwrap().levels.is_empty().unwrap());
}

#[test]
fn row_of_the_log_that_counts_no_more_is_not_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    commit(&store, vec![append(1, 1, &message("alice", 1, 10))]);
    fold(&store);
    // Version 1, commit 1, and what makes no sense.
    let put = |store: &Embedded, value: &[u8]| {
        let database = store.shared.to_read().unwrap();
        database.log.insert(0_u32.to_be_bytes(), value).unwrap();
        database.inner.persist(PersistMode::Buffer).unwrap();
    };
    put(&store, &[1, 1, 9, 9]);
    drop(store);
    let store = open(folder.path());
    let read = store.read(MailboxId(1), Seq(1), ALL).unwrap();
    assert_eq!(positions(&read.stored), [1]);

    put(&store, &[1, 2, 9, 9]);
    drop(store);
    let error = Embedded::open(folder.path(), Handover::Kernel).err().unwrap();
    let begin = "the store is damaged: log 00000000: ";
    assert!(error.to_string().starts_with(begin), "{error}");
}

#[test]
fn commits_go_on_while_several_threads_sync() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let is_over = AtomicBool::new(false);
    let syncs = thread::scope(|scope| {
        let sync = || {
            let mut syncs = 0;
            while !is_over.load(Ordering::Acquire) {
                store.sync().unwrap();
                syncs += 1;
            }
            syncs
        };
        let threads = [(); 3].map(|()| scope.spawn(sync));
        for seq in 1..=3_000 {
            commit(&store, vec![append(1, seq, &message("alice", seq, 900)), level(1, 1, seq + 1)]);
        }
        is_over.store(true, Ordering::Release);
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(syncs.iter().all(|syncs: &u32| *syncs > 0), "{syncs:?}");
    drop(store);
    let read = open(folder.path()).read(MailboxId(1), Seq(1), ALL).unwrap();
    assert_eq!(positions(&read.stored), (1..=3_000).collect::<Vec<_>>());
}

/// Has the store take the next commit for one that it may have, as after a failed write.
fn doubt(store: &Embedded) {
    store.shared.known.lock().is_doubtful = true;
}

#[test]
fn commit_that_is_repeated_behind_its_rows_leaves_none_when_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let sent = message("alice", 5, 10);
    let accepted = |number| Change::Accepted { number, at: Millis(1), origins: Vec::new() };
    let first = vec![append(1, 5, &sent), level(1, 5, 6), accepted(1)];
    let first = Commit { changes: first, audit: vec![entry(0), entry(1)] };
    let next = vec![append(1, 6, &message("alice", 6, 10)), level(1, 5, 7), accepted(2)];
    let next = Commit { changes: next, audit: vec![entry(2)] };
    store.commit(&first).unwrap();
    fold(&store);
    store.commit(&next).unwrap();
    // All that nobody was told about, in one piece.
    doubt(&store);
    let joined = Commit {
        changes: [&first.changes[..], &next.changes[..]].concat(),
        audit: [&first.audit[..], &next.audit[..]].concat(),
    };
    store.commit(&joined).unwrap();
    commit(&store, vec![remove(1, 5, &sent), level(1, 6, 7)]);
    let check = |store: &Embedded| {
        let read = store.read(MailboxId(1), Seq(1), ALL).unwrap();
        assert_eq!(positions(&read.stored), [6]);
        assert_eq!(store.find(MailboxId(1), Digest::of_key("5")).unwrap(), None);
        let entries = store.audit(0, 9).unwrap();
        assert_eq!(entries, (0..3).map(entry).collect::<Vec<_>>());
        let accepted = store.recover().unwrap().accepted;
        assert_eq!(accepted.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [1, 2]);
    };
    check(&store);
    fold(&store);
    check(&store);
    drop(store);
    check(&open(folder.path()));
}

#[test]
fn message_that_came_and_went_in_a_commit_that_is_repeated_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let sent = message("alice", 5, 10);
    commit(&store, vec![append(1, 5, &sent), level(1, 5, 6)]);
    fold(&store);
    doubt(&store);
    commit(&store, vec![append(1, 5, &sent), remove(1, 5, &sent), level(1, 6, 6)]);
    assert!(store.read(MailboxId(1), Seq(1), ALL).unwrap().stored.is_empty());
    assert_eq!((rows(&store), logged(&store)), (0, 0));
}

#[test]
fn sync_behind_a_reopening_says_once_that_something_may_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    commit(&store, vec![append(1, 1, &message("alice", 1, 10)), level(1, 1, 2)]);
    store.shared.is_broken.store(true, Ordering::Release);
    assert!(matches!(store.sync(), Err(StoreError::Unavailable(_))));
    store.sync().unwrap();
    let read = store.read(MailboxId(1), Seq(1), ALL).unwrap();
    assert_eq!(positions(&read.stored), [1]);
    assert!(store.shared.known.lock().is_doubtful);
}

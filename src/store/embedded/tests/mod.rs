//! The embedded store: the suite, what its files are, and how it ends.

mod cost;
mod crash;
mod damage;
mod full;
mod log;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use fjall::PersistMode;
use tempfile::TempDir;

use super::codec::{letter_key, message_key};
use super::*;
use crate::proto::bus::{Change, Damaged};
use crate::store::suite::{
    ALL, append, cases, commit, entry, level, message, named, positions, remove,
};

/// Sizes that a test comes to.
const SMALL: Sizes = Sizes { settle_at: 1 << 20, slack: 1 << 20 };

fn open(folder: &Path) -> Embedded {
    Embedded::open_sized(folder, Handover::Kernel, SMALL).unwrap()
}

/// Has all be rows that is in the log.
fn fold(store: &Embedded) {
    let database = store.shared.to_write().unwrap();
    database.fold(&mut store.shared.known.lock()).unwrap();
}

/// A store with these rows beside what it wrote itself.
fn with_rows(rows: &[(&str, &[u8], &[u8])]) -> (TempDir, Embedded) {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let database = Database::open(folder.path()).unwrap();
    let mut batch = database.inner.batch().durability(Some(PersistMode::Buffer));
    for (name, key, value) in rows {
        let space = database.inner.keyspace(name, Default::default).unwrap();
        batch.insert(&space, *key, *value);
    }
    batch.commit().unwrap();
    drop(database);
    let store = open(folder.path());
    (folder, store)
}

#[test]
fn suite_of_stores_is_passed() {
    for (name, case) in cases() {
        let folder = tempfile::tempdir().unwrap();
        println!("{name}");
        case(&|| open(folder.path()));
    }
}

#[test]
fn suite_of_stores_is_passed_where_the_process_has_it() {
    let all = cases();
    // The last, which takes longest, shows nothing more of it.
    let (_many, few) = all.split_last().unwrap();
    for (name, case) in few {
        let folder = tempfile::tempdir().unwrap();
        println!("{name}");
        case(&|| Embedded::open_sized(folder.path(), Handover::Process, SMALL).unwrap());
    }
}

#[test]
fn folder_is_its_owners_alone() {
    let state = tempfile::tempdir().unwrap();
    let folder = bus_folder(state.path());
    drop(open(&folder));
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn second_process_is_told_that_another_relay_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let second = Embedded::open(folder.path(), Handover::Kernel);
    let error = second.err().unwrap();
    assert!(matches!(error, StoreError::Locked), "{error}");
    assert_eq!(error.to_string(), "another relay uses the store");
    drop(store);
    drop(open(folder.path()));
}

#[test]
fn store_whose_making_was_cut_short_is_made_again() {
    for leftovers in [&["0.jnl"][..], &["0.jnl", "version"], &["0.jnl", "lock"], &["lock"]] {
        let folder = tempfile::tempdir().unwrap();
        for name in leftovers {
            fs::write(folder.path().join(name), if *name == "0.jnl" { &[0; 64][..] } else { b"" })
                .unwrap();
        }
        let store = open(folder.path());
        commit(&store, vec![Change::Name(named(1, "bob"))]);
    }
}

#[test]
fn journal_without_its_database_is_never_removed() {
    let folder = tempfile::tempdir().unwrap();
    commit(&open(folder.path()), vec![Change::Name(named(1, "bob"))]);
    fs::remove_file(folder.path().join("version")).unwrap();
    let before = fs::metadata(folder.path().join("0.jnl")).unwrap().len();
    assert!(Embedded::open(folder.path(), Handover::Kernel).is_err());
    assert_eq!(fs::metadata(folder.path().join("0.jnl")).unwrap().len(), before);
}

#[test]
fn store_of_another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let database = Database::open(folder.path()).unwrap();
    database.meta.insert("format", [1, 9]).unwrap();
    database.inner.persist(PersistMode::Buffer).unwrap();
    drop(database);
    let error = Embedded::open(folder.path(), Handover::Kernel).err().unwrap();
    assert_eq!(error.to_string(), "the store is damaged: its format is 9, this relay's 1");
}

#[test]
fn damaged_message_is_told_and_those_around_it_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let sent: Vec<_> = (1..=4).map(|seq| message("alice", seq, 10)).collect();
    let append = |seq: u64| append(1, seq, &sent[usize::try_from(seq).unwrap() - 1]);
    commit(&store, (1..=4).map(append).collect());
    fold(&store);
    let put = |seq| {
        let database = store.shared.to_read().unwrap();
        database.messages.insert(message_key(MailboxId(1), Seq(seq)), b"\x01\x05alice").unwrap();
    };
    put(2);
    put(9);

    let read = store.read(MailboxId(1), Seq(1), ALL).unwrap();
    assert_eq!(positions(&read.stored), [1, 3, 4]);
    let key = Some((Digest::of_key(&sent[1].key), sent[1].cost()));
    let unknown = Damaged { seq: Seq(9), key: None };
    assert_eq!(read.damaged, [Damaged { seq: Seq(2), key }, unknown]);
    let first = store.read(MailboxId(1), Seq(1), Most { messages: 2, ..ALL }).unwrap();
    assert_eq!((positions(&first.stored), first.last()), (vec![1], Some(Seq(2))));
}

#[test]
fn damaged_row_is_named_by_its_key_space_and_key() {
    let (_folder, store) = with_rows(&[
        ("keys", DigestKey::new(MailboxId(1), Digest([2; 16])).as_ref(), b"\x07"),
        ("letters", &letter_key(MailboxId(1), Millis(1), Seq(1)), b""),
        ("audit", &[0; 8], b"\x01\x01"),
    ]);
    let told = |error: StoreError, begin: &str| {
        let text = error.to_string();
        assert!(matches!(error, StoreError::Damaged(_)) && text.contains(begin), "{text}");
    };
    let error = store.find(MailboxId(1), Digest([2; 16])).unwrap_err();
    told(error, "keys 0202020202");
    told(store.dead_letters(MailboxId(1), ALL).unwrap_err(), "letters 0000000000000001");
    told(store.audit(0, 1).unwrap_err(), "audit 0000000000000000: it ends too early");
    told(store.last_audit().unwrap_err(), "audit 0000000000000000");
}

#[test]
fn damaged_name_keeps_a_store_from_being_recovered() {
    let (_folder, store) = with_rows(&[("names", b"\x03bob", b"\x01\x01")]);
    let error = store.recover().unwrap_err().to_string();
    assert_eq!(error, "the store is damaged: names 03626f62: it ends too early");
}

#[test]
fn damaged_level_keeps_a_store_from_being_opened() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let database = Database::open(folder.path()).unwrap();
    database.levels.insert([0; 8], b"\x01").unwrap();
    drop(database);
    let error = Embedded::open(folder.path(), Handover::Kernel).err().unwrap();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
}

#[test]
fn name_that_no_key_can_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let long = Change::Name(named(1, &"x".repeat(70_000)));
    assert!(store.commit(&Commit { changes: vec![long], audit: Vec::new() }).is_err());
    commit(&store, vec![Change::Name(named(1, "bob"))]);
}

#[test]
fn drained_store_gives_its_space_back() {
    const MESSAGES: u64 = 4_000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let noise: Vec<_> = (0..MESSAGES)
        .map(|number| {
            let mut body = vec![0; 4096];
            getrandom::fill(&mut body).unwrap();
            let plain = message("alice", number, 0);
            Arc::new(crate::proto::bus::Message { body: body.into(), ..(*plain).clone() })
        })
        .collect();
    for (seq, message) in (1..).zip(&noise) {
        commit(&store, vec![append(1, seq, message), level(1, 1, seq + 1)]);
    }
    let full = store.space().unwrap().used;
    assert!(full > 16 << 20, "{full}");
    for (seq, message) in (1..).zip(&noise) {
        commit(&store, vec![remove(1, seq, message), level(1, seq + 1, MESSAGES + 1)]);
    }
    let database = store.shared.to_read().unwrap();
    store.compact_if_worth_it(&database);
    drop(database);
    // One that began earlier may have missed the last of them.
    let end = Instant::now() + Duration::from_secs(60);
    let used = || {
        let database = store.shared.to_read().unwrap();
        database.messages.disk_space() + database.keys.disk_space()
    };
    while used() > 2 << 20 {
        assert!(Instant::now() < end, "{} of {full} bytes are still used", used());
        *store.shared.next_compaction.lock() = Instant::now();
        store.compact_if_worth_it(&store.shared.to_read().unwrap());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn long_load_neither_stalls_nor_keeps_its_journals() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for first in (1..=60_000).step_by(100) {
        let changes = (first..first + 100)
            .flat_map(|seq| {
                let sent = message("alice", seq, 1_000);
                [append(1, seq, &sent), remove(1, seq, &sent)]
            })
            .chain([level(1, first + 100, first + 100)])
            .collect();
        let audit = (3 * first..3 * first + 3).map(entry).collect();
        store.commit(&Commit { changes, audit }).unwrap();
    }
    assert!(store.space().unwrap().used < 160 << 20, "{:?}", store.space());
    assert!(store.read(MailboxId(1), Seq(1), ALL).unwrap().is_empty());
}

#[test]
fn dead_letter_that_cannot_be_read_has_nothing_be_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let database = store.shared.to_read().unwrap();
    database.letters.insert("no key of a letter", "").unwrap();
    drop(database);

    let dropped = store.drop_dead_letters(Millis(1));

    assert!(matches!(dropped, Err(StoreError::Damaged(_))), "{dropped:?}");
    assert!(!store.shared.is_broken.load(Ordering::Acquire));
    store.commit(&Commit { changes: Vec::new(), audit: vec![entry(1)] }).unwrap();
}

#[test]
fn store_that_merges_everything_is_opened_again_behind_that_and_read_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let commit = |seq| Commit { changes: Vec::new(), audit: vec![entry(seq)] };
    store.commit(&commit(1)).unwrap();
    let merging = store.shared.to_read().unwrap();
    store.shared.is_compacting.store(true, Ordering::Release);
    store.shared.is_broken.store(true, Ordering::Release);

    let refused = store.commit(&commit(2));
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(store.audit(0, 10).unwrap().len(), 1);

    store.shared.compact();
    drop(merging);
    store.shared.is_compacting.store(false, Ordering::Release);
    store.commit(&commit(2)).unwrap();
    assert_eq!(store.audit(0, 10).unwrap().len(), 2);
}

#[test]
fn store_that_is_closed_says_so_and_has_all_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let commit = Commit { changes: Vec::new(), audit: vec![entry(1)] };
    store.commit(&commit).unwrap();

    store.close();

    assert!(matches!(store.audit(0, 1), Err(StoreError::Unavailable(_))));
    assert!(matches!(store.commit(&commit), Err(StoreError::Unavailable(_))));
    drop(store);
    assert_eq!(open(folder.path()).audit(0, 10).unwrap().len(), 1);
}

//! What every store has to show.
//!
//! A case gets what opens its store, which is empty at first, and opens it again once the last one
//! is dropped.

pub(super) mod channels;

use std::sync::Arc;

use super::{AuditEntry, Commit, Most, Store};
use crate::proto::bus::{
    Cause, Change, Digest, Found, Level, MailboxId, Message, Millis, Named, Owner, Seq, Stored,
};

/// What a store has to show, and its name.
pub(super) type Case<S> = (&'static str, fn(&dyn Fn() -> S));

/// All that a store has to show.
pub(super) const fn cases<S: Store>() -> [Case<S>; 18] {
    [
        ("what was committed is there after a restart", restart::<S>),
        ("names are replaced, forgotten, and their mailboxes never given again", names::<S>),
        ("messages are read in order, from a position, up to a bound", order::<S>),
        ("a message is found by its delivery key until it is gone", find::<S>),
        ("attempts are told with their message", attempts::<S>),
        ("dead letters leave their mailbox, and are dropped by age", bury::<S>),
        ("dead letters beyond a bound go, the oldest first", crowd::<S>),
        ("a dead letter that waits again is none any more", requeue::<S>),
        ("what was accepted is forgotten up to a number", accepted::<S>),
        ("the audit log is read from any entry", audit::<S>),
        ("the audit log is cut behind a head", cut::<S>),
        ("a commit that is repeated does nothing twice", repeat::<S>),
        ("an empty commit is none", empty::<S>),
        ("100,000 messages are drained in order", many::<S>),
        ("channels, records and cursors are there after a restart", channels::restart::<S>),
        ("records that were removed are gone, however many", channels::removal::<S>),
        ("channels and cursors are gone once they are dropped", channels::forget::<S>),
        ("a commit of channels that is repeated does nothing twice", channels::repeat::<S>),
    ]
}

/// No bound that a test comes near.
pub(super) const ALL: Most = Most { messages: usize::MAX, bytes: usize::MAX };

pub(super) fn message(sender: &str, number: u64, bytes: usize) -> Arc<Message> {
    let key = number.to_string();
    Arc::new(Message {
        from: sender.into(),
        origin: Digest::of_origin(sender, &key),
        key: key.into(),
        accepted: Millis(1_000 + number),
        body: vec![number.to_le_bytes()[0]; bytes].into(),
    })
}

pub(super) fn named(mailbox: u64, name: &str) -> Named {
    Named {
        mailbox: MailboxId(mailbox),
        realm: 3,
        name: name.into(),
        owner: Owner([7; 32]),
        seen: Millis(5),
    }
}

pub(super) fn append(mailbox: u64, seq: u64, message: &Arc<Message>) -> Change {
    Change::Append { mailbox: MailboxId(mailbox), seq: Seq(seq), message: message.clone() }
}

pub(super) fn remove(mailbox: u64, seq: u64, message: &Message) -> Change {
    let key = Digest::of_key(&message.key);
    Change::Remove { mailbox: MailboxId(mailbox), seq: Seq(seq), key }
}

pub(super) fn level(mailbox: u64, head: u64, next: u64) -> Change {
    let messages = next - head;
    let level = Level {
        head: Seq(head),
        next: Seq(next),
        messages,
        bytes: 100 * messages,
        oldest: Millis(1_000),
    };
    Change::Level { mailbox: MailboxId(mailbox), level }
}

pub(super) fn entry(seq: u64) -> AuditEntry {
    let event = format!("{{\"event\":{seq}}}").into_bytes().into();
    AuditEntry { seq, at: Millis(seq), hash: [seq.to_le_bytes()[0]; 32], event }
}

pub(super) fn commit(store: &impl Store, changes: Vec<Change>) {
    store.commit(&Commit { changes, audit: Vec::new() }).unwrap();
}

fn log(store: &impl Store, entries: impl IntoIterator<Item = u64>) {
    let audit = entries.into_iter().map(entry).collect();
    store.commit(&Commit { changes: Vec::new(), audit }).unwrap();
}

fn numbers(entries: &[AuditEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

pub(super) fn positions(read: &[Stored]) -> Vec<u64> {
    read.iter().map(|stored| stored.seq.0).collect()
}

fn restart<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    assert!(store.recover().unwrap().names.is_empty());
    let sent = message("alice", 1, 300);
    let changes = vec![
        Change::Name(named(4, "bob")),
        append(4, 1, &sent),
        level(4, 1, 2),
        Change::Accepted { number: 9, at: Millis(77), origins: vec![sent.origin] },
    ];
    store.commit(&Commit { changes, audit: vec![entry(0), entry(1)] }).unwrap();
    drop(store);

    let store = open();
    let recovered = store.recover().unwrap();
    let [(name, level)] = &recovered.names[..] else { panic!("{recovered:?}") };
    assert_eq!((name, level.next, level.messages), (&named(4, "bob"), Seq(2), 1));
    assert_eq!(recovered.accepted, [(9, Millis(77), vec![sent.origin])]);
    assert_eq!(recovered.next_mailbox, 5);
    let read = store.read(MailboxId(4), Seq(1), ALL).unwrap().stored;
    assert_eq!(read, [Stored { seq: Seq(1), attempts: 0, message: sent }]);
    assert_eq!(store.last_audit().unwrap(), Some(entry(1)));
}

fn names<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    let moved = Named { owner: Owner([9; 32]), seen: Millis(8), ..named(2, "bob") };
    commit(&store, vec![Change::Name(named(2, "bob")), Change::Name(named(7, ""))]);
    commit(&store, vec![Change::Name(moved.clone())]);
    let forget = |mailbox, name: &str| Change::Forget {
        realm: 3,
        name: name.into(),
        mailbox: MailboxId(mailbox),
    };
    commit(&store, vec![level(7, 1, 1), forget(7, ""), forget(6, "never there")]);
    drop(store);

    let recovered = open().recover().unwrap();
    assert_eq!(recovered.names, [(moved, Level::EMPTY)]);
    assert_eq!(recovered.next_mailbox, 8);
}

fn order<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    for seq in 250..260 {
        let other = message("eve", seq, 10);
        let changes = vec![append(1, seq, &message("alice", seq, 100)), append(2, seq, &other)];
        commit(&store, changes);
    }
    let read = |from, most| positions(&store.read(MailboxId(1), Seq(from), most).unwrap().stored);
    assert_eq!(read(1, ALL), (250..260).collect::<Vec<_>>());
    assert_eq!(read(257, ALL), [257, 258, 259]);
    assert!(read(260, ALL).is_empty());
    assert_eq!(read(1, Most { messages: 2, ..ALL }), [250, 251]);
    let cost = message("alice", 250, 100).cost();
    assert_eq!(read(1, Most { bytes: 2 * cost, ..ALL }), [250, 251]);
    assert_eq!(read(1, Most { bytes: 1, ..ALL }), [250], "one whatever it costs");
    assert!(store.read(MailboxId(3), Seq(1), ALL).unwrap().is_empty());
}

fn find<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    let sent = message("alice", 5, 40);
    let key = Digest::of_key(&sent.key);
    assert_eq!(store.find(MailboxId(1), key).unwrap(), None);
    commit(&store, vec![append(1, 3, &sent)]);
    let found = Found { seq: Seq(3), origin: sent.origin, cost: sent.cost() };
    assert_eq!(store.find(MailboxId(1), key).unwrap(), Some(found));
    assert_eq!(store.find(MailboxId(2), key).unwrap(), None, "of another mailbox");
    commit(&store, vec![remove(1, 3, &sent)]);
    assert_eq!(store.find(MailboxId(1), key).unwrap(), None);
    assert!(store.read(MailboxId(1), Seq(1), ALL).unwrap().is_empty());
}

fn attempts<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    let sent = message("alice", 1, 40);
    let attempt = |attempts| Change::Attempt { mailbox: MailboxId(1), seq: Seq(1), attempts };
    commit(&store, vec![append(1, 1, &sent), append(1, 2, &message("alice", 2, 4))]);
    commit(&store, vec![attempt(1)]);
    commit(&store, vec![attempt(300)]);
    let of = |store: &S| {
        let read = store.read(MailboxId(1), Seq(1), ALL).unwrap().stored;
        read.iter().map(|stored| stored.attempts).collect::<Vec<_>>()
    };
    assert_eq!(of(&store), [300, 0]);
    drop(store);

    let store = open();
    assert_eq!(of(&store), [300, 0]);
    commit(&store, vec![remove(1, 1, &sent)]);
    commit(&store, vec![append(1, 1, &sent)]);
    assert_eq!(of(&store), [0, 0], "those of a message that is gone");
}

fn bury<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    let bury = |mailbox, seq: u64, at| Change::Bury {
        mailbox: MailboxId(mailbox),
        seq: Seq(seq),
        key: Digest::of_key(&seq.to_string()),
        cause: Cause::Attempts,
        at: Millis(at),
    };
    for (mailbox, seq) in [(1, 1), (1, 2), (1, 3), (5, 9)] {
        commit(&store, vec![append(mailbox, seq, &message("alice", seq, 10))]);
    }
    let attempt = Change::Attempt { mailbox: MailboxId(1), seq: Seq(2), attempts: 16 };
    commit(&store, vec![attempt]);
    commit(&store, vec![bury(1, 2, 500)]);
    commit(&store, vec![bury(1, 1, 600), bury(5, 9, 550)]);
    drop(store);

    let store = open();
    assert_eq!(positions(&store.read(MailboxId(1), Seq(1), ALL).unwrap().stored), [3]);
    let key = Digest::of_key("2");
    assert_eq!(store.find(MailboxId(1), key).unwrap(), None);
    let letters = |mailbox, messages| {
        store.dead_letters(MailboxId(mailbox), Most { messages, ..ALL }).unwrap()
    };
    let [oldest, next] = &letters(1, 9)[..] else { panic!("{:?}", letters(1, 9)) };
    assert_eq!((oldest.at, oldest.stored.seq, oldest.stored.attempts), (Millis(500), Seq(2), 16));
    assert_eq!(oldest.stored.message, message("alice", 2, 10));
    assert_eq!((next.at, next.stored.seq, next.stored.attempts), (Millis(600), Seq(1), 0));
    assert_eq!(letters(1, 1).len(), 1);
    let few = store.dead_letters(MailboxId(1), Most { bytes: 1, ..ALL }).unwrap();
    assert_eq!(few.len(), 1, "one whatever it costs");

    assert_eq!(store.drop_dead_letters(Millis(500)).unwrap(), 0);
    assert_eq!(store.drop_dead_letters(Millis(600)).unwrap(), 2);
    assert_eq!((letters(1, 9).len(), letters(5, 9).len()), (1, 0));
    assert_eq!(store.drop_dead_letters(Millis(u64::MAX)).unwrap(), 1);
}

fn crowd<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    for seq in 1..=9 {
        let mailbox = 1 + seq / 8;
        commit(&store, vec![append(mailbox, seq, &message("alice", seq, 70_000))]);
        let bury = Change::Bury {
            mailbox: MailboxId(mailbox),
            seq: Seq(seq),
            key: Digest::of_key(&seq.to_string()),
            cause: Cause::Attempts,
            at: Millis(500 + seq),
        };
        commit(&store, vec![bury]);
    }
    let positions = |store: &S, mailbox| {
        let letters = store.dead_letters(MailboxId(mailbox), ALL).unwrap();
        letters.iter().map(|letter| letter.stored.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(store.trim_dead_letters(ALL).unwrap(), 0);
    drop(store);

    let store = open();
    assert_eq!(store.trim_dead_letters(Most { messages: 5, ..ALL }).unwrap(), 2);
    assert_eq!(positions(&store, 1), [3, 4, 5, 6, 7]);
    assert_eq!(positions(&store, 2), [8, 9]);
    drop(store);

    let store = open();
    assert_eq!(store.trim_dead_letters(Most { bytes: 150_000, ..ALL }).unwrap(), 3);
    assert_eq!(positions(&store, 1), [6, 7]);
    assert_eq!(positions(&store, 2), [8, 9]);
}

fn requeue<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    let letter = message("alice", 1, 10);
    let key = Digest::of_key("1");
    let (mailbox, seq, at) = (MailboxId(1), Seq(1), Millis(500));
    commit(&store, vec![append(1, 1, &letter), append(1, 2, &message("alice", 2, 10))]);
    commit(&store, vec![Change::Bury { mailbox, seq, key, cause: Cause::Attempts, at }]);
    let requeue = vec![Change::Requeue { mailbox, seq, at }, append(1, 3, &letter)];
    commit(&store, requeue.clone());
    // As where a commit is repeated.
    commit(&store, requeue);
    drop(store);

    let store = open();
    assert_eq!(store.dead_letters(mailbox, ALL).unwrap(), []);
    assert_eq!(positions(&store.read(mailbox, Seq(1), ALL).unwrap().stored), [2, 3]);
    assert_eq!(store.find(mailbox, key).unwrap().map(|found| found.seq), Some(Seq(3)));
}

fn accepted<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    for number in 3..=8_u64 {
        let origins = vec![Digest([number.to_le_bytes()[0]; 16]); 2];
        commit(&store, vec![Change::Accepted { number, at: Millis(number), origins }]);
    }
    commit(&store, vec![Change::ForgetAccepted { before: 6 }]);
    let numbers = |store: &S| {
        let accepted = store.recover().unwrap().accepted;
        accepted.iter().map(|(number, ..)| *number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&store), [6, 7, 8]);
    drop(store);

    let store = open();
    assert_eq!(numbers(&store), [6, 7, 8]);
    commit(&store, vec![Change::ForgetAccepted { before: 100 }]);
    assert!(numbers(&store).is_empty());
}

fn audit<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    assert_eq!(store.last_audit().unwrap(), None);
    assert!(store.audit(0, 9).unwrap().is_empty());
    log(&store, 0..1);
    log(&store, 1..900);
    log(&store, 900..905);
    let read = |from, most| numbers(&store.audit(from, most).unwrap());
    assert_eq!(read(0, 10_000), (0..905).collect::<Vec<_>>());
    assert_eq!(read(600, 3), [600, 601, 602]);
    assert_eq!(read(903, 9), [903, 904]);
    assert!(read(905, 9).is_empty());
    assert!(read(0, 0).is_empty());
    assert_eq!(store.audit(700, 1).unwrap(), [entry(700)]);
    assert_eq!(store.last_audit().unwrap(), Some(entry(904)));
}

fn cut<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    for first in (0..100).step_by(10) {
        log(&store, first..first + 10);
    }
    assert_eq!(store.audit_head().unwrap(), None);
    store.cut_audit(35, b"head").unwrap();
    let check = |store: &S| {
        assert_eq!(numbers(&store.audit(0, 3).unwrap()), [35, 36, 37]);
        assert_eq!(store.audit(0, 100).unwrap().len(), 65);
        assert_eq!(store.audit_head().unwrap().as_deref(), Some(&b"head"[..]));
    };
    check(&store);
    drop(store);

    let store = open();
    check(&store);
    store.cut_audit(100, b"all").unwrap();
    assert!(store.audit(0, 100).unwrap().is_empty());
    assert_eq!(store.last_audit().unwrap(), Some(entry(99)), "the chain goes on from it");
    log(&store, 100..101);
    assert_eq!(numbers(&store.audit(0, 9).unwrap()), [100]);
}

fn repeat<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    let sent = message("alice", 1, 10);
    let acknowledged = message("alice", 2, 10);
    let buried = message("alice", 3, 10);
    commit(&store, vec![append(1, 2, &acknowledged), append(1, 3, &buried)]);
    let bury = Change::Bury {
        mailbox: MailboxId(1),
        seq: Seq(3),
        key: Digest::of_key(&buried.key),
        cause: Cause::Attempts,
        at: Millis(4),
    };
    let changes = vec![
        Change::Name(named(1, "bob")),
        append(1, 1, &sent),
        remove(1, 2, &acknowledged),
        bury,
        level(1, 1, 3),
        Change::Accepted { number: 0, at: Millis(1), origins: vec![sent.origin] },
    ];
    let repeated = Commit { changes, audit: vec![entry(0), entry(1)] };
    for _ in 0..3 {
        store.commit(&repeated).unwrap();
    }
    assert_eq!(positions(&store.read(MailboxId(1), Seq(1), ALL).unwrap().stored), [1]);
    assert_eq!(numbers(&store.audit(0, 9).unwrap()), [0, 1]);
    assert_eq!(store.dead_letters(MailboxId(1), ALL).unwrap().len(), 1);
    let recovered = store.recover().unwrap();
    assert_eq!((recovered.names.len(), recovered.accepted.len()), (1, 1));
}

fn empty<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    assert!(Commit::default().is_empty());
    store.commit(&Commit::default()).unwrap();
    store.sync().unwrap();
    assert!(store.space().unwrap().free > 0);
}

fn many<S: Store>(open: &dyn Fn() -> S) {
    const MESSAGES: u64 = 100_000;
    let store = open();
    for first in (1..=MESSAGES).step_by(1_000) {
        let appends = (first..first + 1_000).map(|seq| append(1, seq, &message("alice", seq, 64)));
        let changes = appends.chain([level(1, 1, first + 1_000)]).collect();
        commit(&store, changes);
    }
    drop(store);

    let store = open();
    let mut next = 1;
    loop {
        let read =
            store.read(MailboxId(1), Seq(next), Most { messages: 256, ..ALL }).unwrap().stored;
        let Some(last) = read.last() else { break };
        let expected: Vec<_> = (next..=last.seq.0).collect();
        assert_eq!(positions(&read), expected);
        let mut changes: Vec<_> =
            read.iter().map(|stored| remove(1, stored.seq.0, &stored.message)).collect();
        next = last.seq.0 + 1;
        changes.push(level(1, next, MESSAGES + 1));
        commit(&store, changes);
    }
    assert_eq!(next, MESSAGES + 1);
}

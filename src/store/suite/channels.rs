//! What a store has to show of channels.

use super::{ALL, append, commit, level, message, named, positions};
use crate::proto::bus::{Change, ChannelState, Cursor, MailboxId, Millis, Seq};
use crate::store::{Most, Store};

pub(in crate::store) fn state(channel: u64, head: u64, next: u64) -> ChannelState {
    ChannelState {
        channel: MailboxId(channel),
        realm: 4,
        name: format!("channel-{channel}").into(),
        head: Seq(head),
        next: Seq(next),
        bytes: 100 * (next - head),
        end: 100 * (next - 1),
        oldest: Millis(1_000),
    }
}

pub(in crate::store) fn record(channel: u64, seq: u64) -> Change {
    let record = message("alice", seq, 300);
    Change::Record { channel: MailboxId(channel), seq: Seq(seq), record }
}

pub(in crate::store) fn trim(channel: u64, from: u64, before: u64) -> Change {
    Change::Trim { channel: MailboxId(channel), from: Seq(from), before: Seq(before) }
}

pub(in crate::store) fn at(seq: u64) -> Cursor {
    Cursor { seq: Seq(seq), offset: 100 * (seq - 1), seen: Millis(77), attempts: 3 }
}

pub(in crate::store) fn cursor(channel: u64, peer: u64, cursor: Option<Cursor>) -> Change {
    Change::Cursor { channel: MailboxId(channel), peer: MailboxId(peer), cursor }
}

fn read(store: &impl Store, channel: u64, from: u64) -> Vec<u64> {
    positions(&store.read(MailboxId(channel), Seq(from), ALL).unwrap().stored)
}

pub(super) fn restart<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    commit(&store, vec![Change::Name(named(4, "bob"))]);
    let changes = vec![
        record(9, 1),
        record(9, 2),
        cursor(9, 4, Some(at(1))),
        Change::Channel(state(9, 1, 3)),
        // A mailbox beside it has what is its own.
        append(4, 1, &message("alice", 1, 10)),
        level(4, 1, 2),
    ];
    commit(&store, changes);
    commit(&store, vec![record(9, 3), Change::Channel(state(9, 1, 4))]);
    commit(&store, vec![cursor(9, 4, Some(at(2)))]);
    let check = |store: &S| {
        let recovered = store.recover().unwrap();
        assert_eq!(recovered.channels, [state(9, 1, 4)]);
        assert_eq!(recovered.cursors, [(MailboxId(9), MailboxId(4), at(2))]);
        assert_eq!(recovered.next_mailbox, 10);
        assert_eq!(read(store, 9, 1), [1, 2, 3]);
        assert_eq!(read(store, 9, 3), [3]);
        assert_eq!(read(store, 4, 1), [1]);
    };
    check(&store);
    drop(store);

    check(&open());
}

pub(super) fn removal<S: Store>(open: &dyn Fn() -> S) {
    const RECORDS: u64 = 10_000;
    let store = open();
    for first in (1..=RECORDS).step_by(1_000) {
        let records = (first..first + 1_000).map(|seq| record(9, seq));
        let changes = records.chain([Change::Channel(state(9, 1, first + 1_000))]).collect();
        commit(&store, changes);
    }
    let some = Most { messages: 3, ..ALL };
    let begin =
        |store: &S, from| positions(&store.read(MailboxId(9), Seq(from), some).unwrap().stored);
    // Few and many, of rows and of what is no row yet.
    commit(&store, vec![trim(9, 1, 3), Change::Channel(state(9, 3, RECORDS + 1))]);
    assert_eq!(begin(&store, 1), [3, 4, 5]);
    commit(&store, vec![trim(9, 3, 4_099), Change::Channel(state(9, 4_099, RECORDS + 1))]);
    assert_eq!(begin(&store, 1), [4_099, 4_100, 4_101]);
    commit(&store, vec![record(9, RECORDS + 1), Change::Channel(state(9, 4_099, RECORDS + 2))]);
    commit(&store, vec![trim(9, 4_099, RECORDS), Change::Channel(state(9, RECORDS, RECORDS + 2))]);
    assert_eq!(begin(&store, 1), [RECORDS, RECORDS + 1]);
    drop(store);

    let store = open();
    assert_eq!(begin(&store, 1), [RECORDS, RECORDS + 1]);
    let all =
        vec![trim(9, RECORDS, RECORDS + 2), Change::Channel(state(9, RECORDS + 2, RECORDS + 2))];
    commit(&store, all);
    assert!(begin(&store, 1).is_empty());
}

pub(super) fn forget<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    for channel in [8, 9] {
        let of_it = vec![cursor(channel, 4, Some(at(1))), Change::Channel(state(channel, 1, 1))];
        commit(&store, of_it);
    }
    drop(store);

    let store = open();
    commit(&store, vec![cursor(9, 4, None), Change::DropChannel { channel: MailboxId(9) }]);
    let check = |store: &S| {
        let recovered = store.recover().unwrap();
        assert_eq!(recovered.channels, [state(8, 1, 1)]);
        assert_eq!(recovered.cursors, [(MailboxId(8), MailboxId(4), at(1))]);
        assert_eq!(recovered.next_mailbox, 10, "its number is nobody else's");
    };
    check(&store);
    drop(store);

    check(&open());
}

pub(super) fn repeat<S: Store>(open: &dyn Fn() -> S) {
    let store = open();
    commit(&store, vec![record(9, 1), record(9, 2), Change::Channel(state(9, 1, 3))]);
    let changes = vec![
        record(9, 3),
        trim(9, 1, 3),
        cursor(9, 4, Some(at(3))),
        cursor(9, 5, None),
        Change::Channel(state(9, 3, 4)),
        Change::DropChannel { channel: MailboxId(7) },
    ];
    for _ in 0..3 {
        commit(&store, changes.clone());
    }
    assert_eq!(read(&store, 9, 1), [3]);
    let recovered = store.recover().unwrap();
    assert_eq!((recovered.channels.len(), recovered.cursors.len()), (1, 1));
}

//! Channels, as a relay has them that follows the log, or takes it over.

use super::snapshots::{first_of_log, snapshot};
use super::*;
use crate::proto::bus::Change;
use crate::store::suite::channels::{at, cursor, record, state, trim};

fn committed(store: &dyn Store, changes: Vec<Change>) {
    store.commit(&Commit { changes, audit: Vec::new() }).unwrap();
}

/// The positions of the records of the channel 9, as a relay has it.
fn records(store: &dyn Store) -> Vec<u64> {
    positions(&store.read(MailboxId(9), Seq(1), ALL).unwrap().stored)
}

#[test]
fn relay_that_takes_over_has_channels_of_a_snapshot_and_of_the_log_behind_it() {
    let site = Site::new();
    let log = site.open("channels", 1);
    let store = log.tenure(until_leads(&log));
    let first = (1..=40).map(|seq| record(9, seq));
    let first = first.chain([cursor(9, 4, Some(at(1))), Change::Channel(state(9, 1, 41))]);
    committed(&*store, first.collect());
    snapshot(&site, &log, None);
    assert!(first_of_log(&site, &log) > 1, "the snapshot is in the place of what was before");
    let behind = vec![
        record(9, 41),
        trim(9, 1, 39),
        cursor(9, 4, Some(at(39))),
        Change::Channel(state(9, 39, 42)),
    ];
    committed(&*store, behind);

    let other = site.open("channels", 2);
    until("a new relay to have all", || records(&*other.reader()) == [39, 40, 41]);
    drop((log, store));
    let store = other.tenure(until_leads(&other));

    let recovered = store.recover().unwrap();
    assert_eq!(recovered.channels, [state(9, 39, 42)]);
    assert_eq!(recovered.cursors, [(MailboxId(9), MailboxId(4), at(39))]);
    assert_eq!(recovered.next_mailbox, 10);
    // And the first one, which follows, forgets what the second one does.
    committed(&*store, vec![cursor(9, 4, None), record(9, 42), Change::Channel(state(9, 39, 43))]);
    let back = site.open("channels", 1);
    until("the first to have all", || records(&*back.reader()) == [39, 40, 41, 42]);
    assert!(back.reader().recover().unwrap().cursors.is_empty());
}

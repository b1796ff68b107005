//! Snapshots, and replicas that are made of them.

use super::snapshot::Stop;
use super::*;

/// A log with 40 commits, led by the relay 1.
fn filled(site: &Site, name: &str) -> (Arc<JetStream>, Arc<dyn Store>) {
    let log = site.open(name, 1);
    let store = log.tenure(until_leads(&log));
    for seq in 1..=40 {
        store.commit(&appending(seq, 20_000)).unwrap();
    }
    (log, store)
}

/// Positions of the first record of a log.
pub(super) fn first_of_log(site: &Site, log: &JetStream) -> u64 {
    site.runtime.block_on(async {
        let context = log.shared.connection.wait().await;
        let stream = context.get_stream(&log.shared.streams.log).await.unwrap();
        stream.cached_info().state.first_sequence
    })
}

pub(super) fn snapshot(site: &Site, log: &JetStream, stop: Option<Stop>) {
    site.runtime.block_on(log.shared.write_snapshot_up_to(stop)).unwrap();
}

#[test]
fn replica_from_nothing_has_all_whatever_step_of_a_snapshot_was_the_last() {
    let site = Site::new();
    let stops = [None, Some(Stop::Pages), Some(Stop::Manifest), Some(Stop::Log)];
    for (number, stop) in stops.into_iter().enumerate() {
        let name = format!("steps{number}");
        let (log, store) = filled(&site, &name);
        snapshot(&site, &log, None);
        assert!(first_of_log(&site, &log) > 30);
        for seq in 41..=60 {
            store.commit(&appending(seq, 20_000)).unwrap();
        }
        snapshot(&site, &log, stop);
        store.commit(&appending(61, 10)).unwrap();

        let other = site.open(&name, 2);
        let reader = other.reader();
        until("a new relay to have all", || waiting(&*reader).len() == 61);
        assert_eq!(reader.chain(id(1), 0, 100).unwrap().entries.len(), 61);
        assert_eq!(other.shared.meters.fills.value(), 1);

        // And the next snapshot leaves nothing of what this one was.
        snapshot(&site, &log, None);
        let subjects = site.runtime.block_on(async {
            let context = log.shared.connection.wait().await;
            let stream = context.get_stream(&log.shared.streams.snapshots).await.unwrap();
            stream.cached_info().state.subjects_count
        });
        assert_eq!(subjects, 2, "pages and a manifest, {stop:?}");
    }
}

#[test]
fn replica_that_was_away_while_the_log_was_cut_is_filled_again() {
    let site = Site::new();
    let (log, store) = filled(&site, "away");
    let other = site.open("away", 2);
    until("the other to have some", || waiting(&*other.reader()).len() == 40);
    drop(other);
    for seq in 41..=50 {
        store.commit(&appending(seq, 10)).unwrap();
    }
    snapshot(&site, &log, None);
    let other = site.open("away", 2);
    let reader = other.reader();
    until("the other to have all", || waiting(&*reader).len() == 50);
    assert_eq!(other.shared.meters.fills.value(), 1);
    drop(log);
    drop(store);
    let epoch = until_leads(&other);
    other.tenure(epoch).commit(&appending(51, 10)).unwrap();
    assert_eq!(waiting(&*other.reader()).len(), 51);
}

#[test]
fn relay_that_has_lost_its_replica_goes_on_with_its_chain() {
    let site = Site::new();
    let (log, store) = filled(&site, "lost");
    snapshot(&site, &log, None);
    store.commit(&appending(41, 10)).unwrap();
    drop((log, store));
    std::fs::remove_dir_all(site.folder("lost", 1)).unwrap();
    let store = leading(&site, "lost", 1);
    assert_eq!(waiting(&store).len(), 41);
    assert_eq!(store.last_audit().unwrap(), Some(entry(41)));
}

#[test]
fn log_that_is_long_is_cut_by_itself() {
    let site = Site::new();
    let settings = Settings { max_bytes: Some(8 << 20), ..site.settings("long") };
    let log = site.open_with(&settings, 1);
    let store = log.tenure(until_leads(&log));
    let space = || store.space().unwrap();
    for seq in 1..=10 {
        store.commit(&appending(seq, 500_000)).unwrap();
    }
    until("a snapshot", || log.shared.meters.snapshots.value() > 0);
    until("its bytes to be known", || space().used > 5_000_000);
    assert!(space().free < 8 << 20);
    assert_eq!(waiting(&*store).len(), 10);
}

#[test]
fn log_that_is_another_than_the_replicas_is_refused() {
    let site = Site::new();
    drop(filled(&site, "anew"));
    site.runtime.block_on(async {
        let client = async_nats::connect(site.server.as_ref().unwrap().url()).await.unwrap();
        let context = async_nats::jetstream::new(client);
        context.delete_stream("anew-bus").await.unwrap();
    });
    let log = site.open("anew", 1);
    until("a failure", || log.shared.meters.failures.value() > 0);
    assert_eq!(*log.leadership().borrow(), Leadership::Nobody);
    assert_eq!(waiting(&*log.reader()).len(), 40, "nothing of it is removed");
}

#[test]
fn snapshots_of_another_log_are_refused() {
    let site = Site::new();
    let (log, store) = filled(&site, "orphans");
    snapshot(&site, &log, None);
    drop((log, store));
    std::fs::remove_dir_all(site.folder("orphans", 1)).unwrap();
    site.runtime.block_on(async {
        let client = async_nats::connect(site.server.as_ref().unwrap().url()).await.unwrap();
        let context = async_nats::jetstream::new(client);
        context.delete_stream("orphans-bus").await.unwrap();
    });
    let log = site.open("orphans", 1);
    until("a failure", || log.shared.meters.failures.value() > 0);
    assert_eq!(*log.leadership().borrow(), Leadership::Nobody);
}

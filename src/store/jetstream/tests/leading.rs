//! Who leads, and what becomes of who did.

use rustix::process::Signal;

use super::*;

#[test]
fn one_of_two_leads_and_the_other_follows_it() {
    let site = Site::new();
    let first = site.open("two", 1);
    let epoch = until_leads(&first);
    let second = site.open("two", 2);
    let there = Leadership::There { epoch, relay: id(1) };
    until("the other to know it", || *second.leadership().borrow() == there);
    let store = first.tenure(epoch);
    for seq in 1..=20 {
        store.commit(&appending(seq, 100)).unwrap();
    }
    assert!(first.may_serve() && !second.may_serve());
    assert!(matches!(second.reader().commit(&appending(21, 1)), Err(StoreError::Fenced)));
    let reader = second.reader();
    until("the other to have all", || waiting(&*reader).len() == 20);

    // At a clean stop nobody waits.
    let began = Instant::now();
    drop(store);
    drop(first);
    assert_eq!(until_leads(&second), epoch + 1);
    assert!(began.elapsed() < election::SILENCE / 2, "{:?}", began.elapsed());
}

#[test]
fn who_was_replaced_appends_nothing_more() {
    let site = Site::new();
    let first = site.open("fenced", 1);
    let epoch = until_leads(&first);
    let store = first.tenure(epoch);
    store.commit(&appending(1, 10)).unwrap();

    // Another relay that appends its epoch, as one does that has heard nothing for 4 s.
    let usurper = site.open("fenced", 2);
    until("the usurper to have all", || waiting(&*usurper.reader()) == [1]);
    usurp(&site, &usurper);
    assert!(matches!(store.commit(&appending(2, 10)), Err(StoreError::Fenced)));
    assert!(!first.may_serve());
    assert!(matches!(store.commit(&appending(2, 10)), Err(StoreError::Fenced)), "once and for all");

    let next = until_leads(&usurper);
    assert!(next > epoch);
    usurper.tenure(next).commit(&appending(3, 10)).unwrap();
    let reader = first.reader();
    until("the first to follow", || waiting(&*reader) == [1, 3]);
    let there = Leadership::There { epoch: next, relay: id(2) };
    assert_eq!(*first.leadership().borrow(), there);
}

/// Appends the next epoch of a relay to the log.
fn usurp(site: &Site, usurper: &JetStream) {
    let shared = &usurper.shared;
    site.runtime.block_on(async {
        let context = shared.connection.wait().await;
        loop {
            let log = context.get_stream(&shared.streams.log).await.unwrap();
            let last = log.cached_info().state.last_sequence;
            let author = record::Author { epoch: 7, relay: id(2), process: shared.process };
            let epoch = record::Record { author, entry: record::Entry::Epoch }.encode();
            let appended = log::append(&context, &shared.streams, &epoch, last).await.unwrap();
            if appended == log::Appended::There {
                break;
            }
        }
    });
}

#[test]
fn store_of_an_epoch_takes_nothing_in_the_next_of_the_same_relay() {
    let site = Site::new();
    let log = site.open("again", 1);
    let before = until_leads(&log);
    drop(log);
    let log = site.open("again", 1);
    let epoch = until_leads(&log);
    assert!(epoch > before);
    assert!(matches!(log.tenure(before).commit(&appending(1, 1)), Err(StoreError::Fenced)));
    log.tenure(epoch).commit(&appending(1, 1)).unwrap();
}

#[test]
fn leader_that_is_cut_off_serves_for_less_time_than_others_wait() {
    let mut site = Site::new();
    let log = site.open("paused", 1);
    let epoch = until_leads(&log);
    let store = log.tenure(epoch);
    store.commit(&appending(1, 10)).unwrap();
    let since = Instant::now();
    site.server().signal(Signal::STOP);
    until("the lease to end", || !log.may_serve());
    assert!(since.elapsed() < election::SILENCE, "{:?}", since.elapsed());
    let refused = store.commit(&appending(2, 10)).unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");

    // Nobody else led meanwhile, so it goes on in its epoch.
    site.server().signal(Signal::CONT);
    until("the commit to be taken", || store.commit(&appending(2, 10)).is_ok());
    assert_eq!(*log.leadership().borrow(), Leadership::Here { epoch });
    assert!(log.may_serve());
    assert_eq!(waiting(&*store), [1, 2]);
}

#[test]
fn server_that_is_killed_and_started_again_has_each_commit_once() {
    let mut site = Site::new();
    let log = site.open("killed", 1);
    let store = log.tenure(until_leads(&log));
    let writer = {
        let store = Arc::clone(&store);
        thread::spawn(move || {
            for seq in 1..=300 {
                let commit = appending(seq, 100);
                until("a commit", || match store.commit(&commit) {
                    Ok(()) => true,
                    Err(StoreError::Unavailable(_)) => false,
                    Err(error) => panic!("{error}"),
                });
            }
        })
    };
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(60));
        let Site { server, runtime, .. } = &mut site;
        let server = server.as_mut().unwrap();
        server.stop();
        runtime.block_on(server.start_again());
    }
    writer.join().unwrap();
    let all: Vec<_> = (1..=300).collect();
    assert_eq!(waiting(&*store), all);

    let other = site.open("killed", 2).reader();
    until("another relay to have all", || waiting(&*other) == all);
    let entries = log.shared.replica.embedded.audit(0, 1_000).unwrap();
    assert_eq!(entries.len(), 300);
}

//! Servers that refuse, that are full, and that lose what they had.

use async_nats::ConnectOptions;
use async_nats::jetstream::context::ContextBuilder;

use super::*;

const TEMPLATE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/nats/messages.conf"));

#[test]
fn configuration_of_deploy_lets_a_relay_do_all_that_it_does_and_no_more() {
    let site = Site::of(|folder| {
        TEMPLATE
            .replace("host: \"127.0.0.1\"\nport: 4222\n", "")
            .replace("/var/lib/nats", folder)
            .replace("\"PASSWORD\"", "\"secret\"")
    });
    let server = site.server.as_ref().unwrap();
    let url = server.url_of("relay:secret@");
    let settings = |max_bytes| Settings {
        nats: nats::Settings { url: url.clone(), credentials: None },
        max_bytes,
        ..site.settings("beacon")
    };
    let log = site.open_with(&settings(None), 1);
    let store = log.tenure(until_leads(&log));
    (1..=5).for_each(|seq| store.commit(&appending(seq, 100_000)).unwrap());
    log.shared.write_snapshot().unwrap();
    store.commit(&appending(6, 10)).unwrap();
    // Another relay fills its replica, and has the streams be as its settings say.
    let other = site.open_with(&settings(Some(1 << 30)), 2);
    until("the other to have all", || waiting(&*other.reader()).len() == 6);

    let connecting =
        ConnectOptions::with_user_and_password("relay".to_owned(), "secret".to_owned())
            .connect(server.url());
    let client = site.runtime.block_on(connecting).unwrap();
    let _runtime = site.runtime.enter();
    let context = ContextBuilder::new().timeout(Duration::from_millis(300)).build(client);
    assert!(site.runtime.block_on(context.create_stream("another")).is_err());
}

#[test]
fn full_log_refuses_and_takes_again_when_it_was_cut() {
    let site = Site::new();
    let settings = Settings { max_bytes: Some(4 << 20), ..site.settings("full") };
    let log = site.open_with(&settings, 1);
    let store = log.tenure(until_leads(&log));
    // No snapshot comes to help meanwhile.
    *log.shared.meters.next_snapshot.lock() = None;
    let mut taken = 0;
    let refused = loop {
        match store.commit(&appending(taken + 1, 400_000)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 20, "it is never full");
    };
    assert!(refused.to_string().contains("maximum bytes"), "{refused}");
    assert_eq!(waiting(&*store), (1..=taken).collect::<Vec<_>>(), "nothing of it is there");

    *log.shared.meters.next_snapshot.lock() = Some(Instant::now());
    let refused = appending(taken + 1, 400_000);
    until("the refused commit to be taken", || store.commit(&refused).is_ok());
    until("the snapshot to be counted", || log.shared.meters.snapshots.value() > 0);
}

#[test]
fn what_nats_loses_a_replica_gives_back() {
    let mut site = Site::new();
    let log = site.open("loses", 1);
    let store = log.tenure(until_leads(&log));
    (1..=10).for_each(|seq| store.commit(&appending(seq, 1_000)).unwrap());
    let copy = tempfile::tempdir().unwrap();
    let tree = |from: &Path, to: &Path| {
        let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(copied.unwrap().success());
    };
    // As a server is after a power loss that wrote nothing for long.
    let streams = site.streams.path().join("jetstream");
    site.server().stop();
    tree(&streams, &copy.path().join("jetstream"));
    let Site { server, runtime, .. } = &mut site;
    runtime.block_on(server.as_mut().unwrap().start_again());
    for seq in 11..=20 {
        until("a commit", || store.commit(&appending(seq, 1_000)).is_ok());
    }
    site.server().stop();
    std::fs::remove_dir_all(&streams).unwrap();
    tree(&copy.path().join("jetstream"), &streams);
    let Site { server, runtime, .. } = &mut site;
    runtime.block_on(server.as_mut().unwrap().start_again());

    // Its tenure is over, since the log is not what it appended to; the next has all.
    until("the loss to be found", || log.shared.meters.lost.value() > 0);
    let epoch = until_leads(&log);
    let store = log.tenure(epoch);
    store.commit(&appending(21, 1_000)).unwrap();
    let other = site.open("loses", 2).reader();
    until("another relay to have all", || waiting(&*other) == (1..=21).collect::<Vec<_>>());
}

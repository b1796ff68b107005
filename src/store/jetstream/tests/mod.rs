//! The store on JetStream with the real nats-server.

mod channels;
mod faults;
mod leading;
mod snapshots;
mod three;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::tenure::Tenure;
use super::*;
use crate::ids::PublicKey;
use crate::net::nats::testing::Server;
use crate::proto::bus::{MailboxId, Seq};
use crate::store::suite::{ALL, append, cases, entry, level, message, positions};
use crate::store::{AuditEntry, Commit};

/// Longest wait for anything that a test expects.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest record of a door of these tests, in bytes.
const LONGEST: usize = 1 << 20;

/// A nats-server, and folders for replicas.
struct Site {
    runtime: Runtime,
    server: Option<Server>,
    /// The server's streams.
    streams: TempDir,
    folders: TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with("")
    }

    fn with(config: &str) -> Self {
        Self::of(|folder| {
            format!("max_payload: 2MB\njetstream {{ store_dir: \"{folder}\" }}\n{config}")
        })
    }

    /// One whose server has this configuration, with the folder of its streams.
    fn of(config: impl Fn(&str) -> String) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let streams = tempfile::tempdir().unwrap();
        let config = config(streams.path().to_str().unwrap());
        let server = runtime.block_on(Server::start(&config));
        let folders = tempfile::tempdir().unwrap();
        Self { runtime, server: Some(server), streams, folders }
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().unwrap()
    }

    fn settings(&self, name: &str) -> Settings {
        Settings {
            nats: nats::Settings { url: self.server.as_ref().unwrap().url(), credentials: None },
            name: name.to_owned(),
            replicas: 1,
            max_bytes: None,
            longest: LONGEST,
        }
    }

    fn folder(&self, name: &str, relay: u8) -> PathBuf {
        self.folders.path().join(format!("{name}-{relay}"))
    }

    /// A relay of this number, which follows the log of this name.
    fn open(&self, name: &str, relay: u8) -> Arc<JetStream> {
        self.open_with(&self.settings(name), relay)
    }

    fn open_with(&self, settings: &Settings, relay: u8) -> Arc<JetStream> {
        let _runtime = self.runtime.enter();
        let folder = self.folder(&settings.name, relay);
        Arc::new(JetStream::open(settings, &folder, id(relay)).unwrap())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // While there is a runtime that waits for it.
        drop(self.server.take());
    }
}

fn id(relay: u8) -> RelayId {
    RelayId(PublicKey([relay; 32]))
}

/// Waits for something that cannot announce itself.
fn until(what: &str, is_so: impl FnMut() -> bool) {
    let mut is_so = is_so;
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a relay leads, and returns the number of its epoch.
fn until_leads(log: &JetStream) -> u64 {
    let leadership = log.leadership();
    let mut found = 0;
    until("a relay to lead", || match *leadership.borrow() {
        Leadership::Here { epoch } => {
            found = epoch;
            true
        }
        Leadership::Nobody | Leadership::There { .. } => false,
    });
    found
}

/// The store of a relay that leads.
fn leading(site: &Site, name: &str, relay: u8) -> Tenure {
    let log = site.open(name, relay);
    let epoch = until_leads(&log);
    Tenure::of(log, epoch)
}

/// A message for the mailbox 1 at a position, with an entry of the audit log.
fn appending(seq: u64, bytes: usize) -> Commit {
    let changes = vec![append(1, seq, &message("alice", seq, bytes)), level(1, 1, seq + 1)];
    Commit { changes, audit: vec![entry(seq)] }
}

/// The positions of what waits in the mailbox 1, as a relay has it.
fn waiting(store: &dyn Store) -> Vec<u64> {
    positions(&store.read(MailboxId(1), Seq(1), ALL).unwrap().stored)
}

#[test]
fn suite_of_stores_is_passed() {
    let site = Site::new();
    for (number, (name, case)) in cases().into_iter().enumerate() {
        println!("{name}");
        case(&|| leading(&site, &format!("case{number}"), 1));
    }
}

#[test]
fn commit_longer_than_a_message_is_one_all_the_same() {
    let site = Site::new();
    let store = leading(&site, "long", 1);
    let messages: Vec<_> = (1..=5).map(|seq| append(1, seq, &message("a", seq, 1 << 20))).collect();
    store.commit(&Commit { changes: messages, audit: Vec::new() }).unwrap();
    store.commit(&appending(6, 10)).unwrap();

    let other = site.open("long", 2).reader();
    until("the other relay to have all", || waiting(&*other) == [1, 2, 3, 4, 5, 6]);
}

#[test]
fn server_whose_messages_are_too_short_is_refused() {
    let site = Site::new();
    let settings = Settings { longest: 4 << 20, ..site.settings("short") };
    let _runtime = site.runtime.enter();
    let refused = JetStream::open(&settings, &site.folder("short", 1), id(1)).unwrap_err();
    assert!(
        matches!(refused, OpenError::Payload { offered: 2_097_152, needed: 4_259_840, .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("set max_payload of nats-server to 4259840"), "{refused}");
}

#[test]
fn each_relay_has_the_chains_of_all() {
    let site = Site::new();
    let first = leading(&site, "chains", 1);
    first.commit(&appending(1, 10)).unwrap();
    drop(first);
    let second = leading(&site, "chains", 2);
    let of_second = Commit { changes: Vec::new(), audit: (0..3).map(entry).collect() };
    second.commit(&of_second).unwrap();
    second.cut_audit(1, b"head").unwrap();
    let log = site.open("chains", 1);
    let reader = log.reader();
    let numbers = |entries: Vec<AuditEntry>| entries.iter().map(|e| e.seq).collect::<Vec<_>>();

    let other = || reader.chain(id(2), 0, 9).unwrap();
    until("the head of the other chain", || other().head.is_some());
    assert_eq!(reader.chains().unwrap(), [id(2)]);
    assert_eq!(numbers(reader.audit(0, 9).unwrap()), [1], "its own");
    assert_eq!((numbers(other().entries), other().last), (vec![1, 2], Some(2)));
    assert_eq!(numbers(second.audit(0, 9).unwrap()), [1, 2]);
}

//! What is believed and what is held back, and that nobody is kept who has left.

use std::fs;
use std::path::PathBuf;
use std::pin::Pin;

use ed25519_dalek::SigningKey;
use tokio::net::UnixStream;

use super::*;
use crate::client::{Client, Options, SessionError};
use crate::doors::pilot::directory::{Keys, Settings};
use crate::doors::pilot::{Login, Pilot, per_packet};
use crate::ids::PublicKey;
use crate::net::listener::Listener;
use crate::peers::testing;
use crate::session::{self, Door, Session, Spec};

#[tokio::test(start_paused = true)]
async fn session_that_ends_is_not_kept_until_its_key_is_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { keys: None, registry: None, state_dir: folder.path().to_owned() };
    let directory = Directory::open(settings).unwrap();
    let table = Arc::new(Table::new(1, 1));
    let (stream, _peer) = UnixStream::pair().unwrap();
    let session = testing::session(NodeId::new(1).unwrap(), 1, testing::link(stream));
    let registration = table.register(Arc::clone(&session)).unwrap();

    let mut tasks = JoinSet::new();
    tasks.spawn(recheck(Arc::clone(&table), directory));
    sleep(Duration::from_millis(1)).await;
    let weak = Arc::<Session>::downgrade(&session);
    drop((session, registration));
    assert!(weak.upgrade().is_none(), "its socket stays open");
}

/// A directory whose key file loses all its keys as soon as one has been looked up, and whose
/// change is seen before the login goes on.
struct Emptied {
    directory: Directory,
    file: PathBuf,
}

impl Keys for Emptied {
    fn lookup(&self, node: NodeId) -> Pin<Box<dyn Future<Output = Lookup> + Send + '_>> {
        Box::pin(async move {
            let found = self.directory.lookup(node).await;
            fs::write(&self.file, "{}").unwrap();
            self.directory.reload(false).unwrap();
            // As `end_sessions` would, which finds no session of the node yet.
            assert_eq!(self.directory.next_change().await, Change::Node(node));
            found
        })
    }

    fn session_began(&self, node: NodeId, key: PublicKey) {
        self.directory.session_began(node, key);
    }
}

#[tokio::test]
async fn key_that_is_removed_between_its_look_up_and_the_session_ends_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("given.json");
    let node = NodeId::new(1).unwrap();
    let key = SigningKey::from_bytes(&[1; 32]);
    let public_key = PublicKey(key.verifying_key().to_bytes());
    fs::write(&file, format!("{{\"1\": \"{public_key}\"}}")).unwrap();
    let state_dir = folder.path().to_owned();
    let settings = Settings { keys: Some(file.clone()), registry: None, state_dir };
    let directory = Directory::open(settings).unwrap();
    let table = Arc::new(Table::new(1, 1));
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let settings = session::Settings::new(listener.address().unwrap());
    let keys = Emptied { directory: directory.clone(), file };
    let pilot: Arc<dyn Door> = Pilot::new(keys, per_packet(|_, _| ()), Login::default());
    let spec =
        Spec { listener, settings, doors: vec![pilot], tls: None, quic: None, runtime: None };
    let server = session::Server::serve(vec![spec], Arc::clone(&table), Arc::default(), None);
    let url = format!("ws://{}", server.addr().unwrap());

    let mut client = Client::connect(&Options::new(url, node, key)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(end_sessions(table, directory));

    let ended = timeout(Duration::from_secs(10), client.recv()).await;
    let ended = ended.expect("the session goes on without a key").unwrap_err();
    assert!(matches!(ended, SessionError::Closed { code: Some(1008), .. }), "{ended}");
    assert!(ended.to_string().contains("key withdrawn"), "{ended}");
}

fn case(contradicted: usize, confirmed: usize, sessions: usize) -> Case {
    let sample = Sample { confirmed, contradicted, unavailable: 0 };
    Case { sample, sessions, claimed: contradicted, ended: 0 }
}

#[test]
fn registry_that_contradicts_most_of_a_fleet_is_not_believed() {
    assert_eq!(case(20, 0, 20).verdict(), Verdict::Hold);
    assert_eq!(case(17, 15, 30_000).verdict(), Verdict::Hold);
    assert_eq!(case(4, 3, 7).verdict(), Verdict::Hold);
}

#[test]
fn nodes_that_are_withdrawn_one_by_one_are_believed() {
    assert_eq!(case(1, 0, 1).verdict(), Verdict::Believe);
    assert_eq!(case(3, 0, 3).verdict(), Verdict::Believe, "three nodes are no fleet");
    assert_eq!(case(10, 10, 20).verdict(), Verdict::Believe, "half is no more than half");
    assert_eq!(case(0, 32, 30_000).verdict(), Verdict::Believe);
}

#[test]
fn fleet_is_not_sent_away_in_small_parts_either() {
    let lately = |ended| Case { ended, ..case(4, 12, 16) };
    assert_eq!(lately(6).verdict(), Verdict::Believe, "10 of 22");
    assert_eq!(lately(9).verdict(), Verdict::Hold, "13 of 25");
}

#[test]
fn registry_that_says_little_is_asked_again() {
    let sample = Sample { confirmed: 1, contradicted: 1, unavailable: 3 };
    let case = Case { sample, sessions: 5, claimed: 1, ended: 0 };
    assert_eq!(case.verdict(), Verdict::Postpone);
}

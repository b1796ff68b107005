//! Doors that a program brings: which can be opened together, and what one of them that fails,
//! or never answers, does to its own peers and to nobody else.

use std::fs;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;
use crate::config::{DoorPaths, Flags, Layers, Surroundings};
use crate::peers::{Credential, Overflow, Principal, Session, Takeover};
use crate::server::{Host, Server};
use crate::session::{Answer, Conversation, Messages, Refusal, Welcome};
use crate::wire::Framing;
use crate::wire::name::{Name, Spelling};
use crate::wire::websocket::Opcode;

const PATIENCE: Duration = Duration::from_secs(20);

/// The wait of the fifth takeover of a peer.
const FIRST_WAIT: Duration = Duration::from_secs(1);

static CLUB: DoorKind = DoorKind { name: "club", paths: DoorPaths::Fixed(&["/club"]), quic: None };
const REALM: Realm = Realm(221);

/// A door whose peers say their name and a secret.
struct Club;

impl Door for Club {
    fn name(&self) -> &'static str {
        CLUB.name
    }

    fn max_greeting(&self) -> usize {
        64
    }

    fn max_message(&self) -> usize {
        64
    }

    fn greet<'a>(
        &'a self,
        conversation: &'a mut Conversation<'_>,
    ) -> Answer<'a, Result<Welcome, Refusal>> {
        Box::pin(async {
            let (_, text) = conversation.receive().await?;
            let text = String::from_utf8(text).unwrap();
            let (name, secret) = text.split_once(' ').expect("a name, or a panic");
            let mut credential = [0; 32];
            credential[..secret.len()].copy_from_slice(secret.as_bytes());
            Ok(Welcome {
                principal: Principal {
                    name: Name::new(REALM, name.as_bytes()),
                    credential: Credential(credential),
                },
                takeover: Takeover::SameCredential,
                framing: Framing::Text,
                overflow: Overflow::Refuse,
                takes: 64,
                outbox_bytes: None,
                is_patient: false,
                data: None,
            })
        })
    }

    fn greet_again<'a>(&'a self, welcome: &'a Welcome) -> Answer<'a, Result<(), Refusal>> {
        if welcome.principal.name == Name::new(REALM, b"patient") {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn accept(&self, session: &Session) {
        session.push_control(Opcode::Text, b"welcome");
    }

    fn messages(&self, _: &Arc<Session>, _: Messages<'_>, _: Instant) {
        panic!("on purpose");
    }
}

fn plan(kind: &'static DoorKind, realm: Realm) -> Plan {
    let spelling = Spelling {
        door: kind.name,
        show: |bytes, f| f.write_str(&String::from_utf8_lossy(bytes)),
        parse: |text| Some(text.into()),
    };
    Plan::new(kind, realm, spelling, |_| Arc::new(Club))
}

/// A relay with the door.
struct Relay {
    server: Server,
    _folder: TempDir,
}

impl Relay {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&CLUB, REALM);
        plan.register().unwrap();
        let file = folder.path().join("relay.toml");
        let listener = "[[listener]]\nbind = \"127.0.0.1:0\"\ndoors = [\"club\"]\n";
        fs::write(&file, format!("auth_timeout = \"500ms\"\n{listener}")).unwrap();
        let mut flags = Flags::state_dir(Some(folder.path().display().to_string()));
        for key in ["wss_bind", "udp_bind", "admin_bind"] {
            flags.add(key, "127.0.0.1:0".to_owned());
        }
        let mut surroundings = Surroundings::of_this_process();
        surroundings.variables.insert("BEACON_RELAY_CONFIG".into(), file.into());
        let layers = Layers::collect(flags, &surroundings).unwrap();
        let config = Config::new(&layers).unwrap();
        let host = Host { doors: vec![plan], ..Host::default() };
        Self { server: Server::start_in(host, config).await.unwrap(), _folder: folder }
    }

    fn sessions(&self) -> &session::Server {
        &self.server.doors.sessions
    }

    async fn connect(&self, greeting: &str) -> Peer {
        let address = self.sessions().addrs().nth(1).unwrap().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = client_async("ws://here/club", stream).await.unwrap();
        stream.send(Message::text(greeting)).await.unwrap();
        Peer(stream)
    }

    /// Logs a peer in so often that its next login waits for [`FIRST_WAIT`].
    async fn contested(&self, greeting: &str) -> Peer {
        let mut peers = Vec::new();
        for _ in 0..5 {
            let mut peer = self.connect(greeting).await;
            peer.is_welcome().await;
            peers.push(peer);
        }
        peers.pop().unwrap()
    }

    fn metric(&self, name: &str) -> f64 {
        let mut families = Vec::new();
        self.sessions().exporter()(&mut families);
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric()[0].get_counter().get_value()
    }
}

struct Peer(WebSocketStream<TcpStream>);

impl Peer {
    async fn read(&mut self) -> Option<Message> {
        timeout(PATIENCE, self.0.next()).await.unwrap()?.ok()
    }

    async fn is_welcome(&mut self) {
        assert_eq!(self.read().await, Some(Message::text("welcome")));
    }

    /// What the relay closes with.
    async fn close(&mut self) -> String {
        let Some(Message::Close(Some(frame))) = self.read().await else { panic!("no close") };
        format!("{} {}", u16::from(frame.code), frame.reason)
    }
}

async fn until(what: impl Fn() -> bool) {
    let looking = async {
        while !what() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("it comes to that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_look_at_a_login_that_waited_had_all_the_time_of_the_world() {
    let relay = Relay::start().await;
    let mut serving = relay.contested("patient a").await;

    let began = Instant::now();
    let mut waits = relay.connect("patient a").await;
    assert_eq!(waits.close().await, "1008 auth timeout");
    assert!(began.elapsed() >= FIRST_WAIT);

    // Its place is free, and whom it would have replaced is served.
    assert_eq!(relay.sessions().delayed(), 0);
    serving.0.send(Message::Ping("still there?".into())).await.unwrap();
    assert!(matches!(serving.read().await, Some(Message::Pong(_))));
    relay.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_secret_put_off_the_login_that_waited_with_the_right_one() {
    let relay = Relay::start().await;
    let _serving = relay.contested("alice a").await;
    let mut waits = relay.connect("alice a").await;
    until(|| relay.sessions().delayed() == 1).await;

    let mut thief = relay.connect("alice b").await;

    assert_eq!(thief.close().await, "1000 replaced");
    waits.is_welcome().await;
    relay.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn door_that_panics_loses_the_connection_and_no_other() {
    let relay = Relay::start().await;
    let mut other = relay.connect("bob b").await;
    other.is_welcome().await;

    assert_eq!(relay.connect("nobody").await.read().await, None, "in its login");
    let mut peer = relay.connect("alice a").await;
    peer.is_welcome().await;
    peer.0.send(Message::text("any")).await.unwrap();
    assert_eq!(peer.read().await, None, "in its first message");

    until(|| relay.metric("pilot_beacon_wss_panics_total") == 2.0).await;
    assert_eq!(relay.sessions().peer_count(), 1);
    other.0.send(Message::Ping("still there?".into())).await.unwrap();
    assert!(matches!(other.read().await, Some(Message::Pong(_))));
    relay.connect("alice another").await.is_welcome().await;
    relay.server.shutdown().await;
}

#[test]
fn two_doors_of_one_name_or_realm_shared_what_was_for_one_of_them() {
    static OTHER: DoorKind = DoorKind { name: "other-club", paths: DoorPaths::Any, quic: None };
    let layers = Layers::collect(Flags::default(), &Surroundings::of_this_process()).unwrap();
    let config = Config::new(&layers).unwrap();
    let opened = |doors: [(&'static DoorKind, Realm); 2]| {
        let doors = doors.map(|(kind, realm)| plan(kind, realm));
        plans(&config, doors.into()).map(|plans| plans.len())
    };
    let error = |doors| opened(doors).unwrap_err().to_string();

    let of_relay = doors::plans().len();
    assert_eq!(opened([(&CLUB, REALM), (&OTHER, Realm(222))]).unwrap(), of_relay + 2);
    let same = "the doors `club` and `club` have one name or one realm";
    assert_eq!(error([(&CLUB, REALM), (&CLUB, Realm(222))]), same);
    let same = "the doors `other-club` and `club` have one name or one realm";
    assert_eq!(error([(&CLUB, REALM), (&OTHER, REALM)]), same);
    let same = "the doors `club` and `pilot` have one name or one realm";
    assert_eq!(error([(&CLUB, Realm::PILOT), (&OTHER, REALM)]), same);
}

#[test]
fn door_that_is_called_two_ways_is_refused() {
    let mut plan = plan(&CLUB, REALM);
    plan.spelling.door = "pub";
    let error = plan.register().unwrap_err().to_string();
    assert_eq!(error, "the configuration calls the door `club`, and names call it `pub`");
}

//! The door as a library: without the relay behind it, and not knowing what packets hold.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::*;
use crate::client::{Client, ConnectError, LoginError, Options, SessionError};
use crate::ids::PublicKey;
use crate::session::{Origins, Snapshot};
use crate::wire::Frames;

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

type Frame = (NodeId, Vec<u8>);

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

/// The nodes 1 to 3, each with the key of its number.
fn keys() -> HashMap<NodeId, PublicKey> {
    let public = |number: u8| PublicKey(key(number).verifying_key().to_bytes());
    (1..=3).map(|number| (id(number.into()), public(number))).collect()
}

fn settings() -> Settings {
    Settings::new("127.0.0.1:0".parse().unwrap())
}

/// A server whose sink hands each frame on.
fn start(settings: Settings) -> (Server, mpsc::UnboundedReceiver<Frame>) {
    let (sender, frames) = mpsc::unbounded_channel();
    let sink = per_packet(move |node, frame: &[u8]| {
        // A test may have seen enough.
        let _ = sender.send((node, frame.to_vec()));
    });
    (Pilot::new(keys(), sink, Login::default()).listen(settings).unwrap(), frames)
}

async fn connect(server: &Server, node: u32, key: SigningKey) -> Result<Client, ConnectError> {
    let url = format!("ws://{}", server.addr().unwrap());
    Client::connect(&Options::new(url, id(node), key)).await
}

async fn until(what: impl Fn() -> bool) {
    let looking = async {
        while !what() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("it comes to that");
}

/// The status of a plain request.
fn status(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn frames_go_both_ways_with_the_authenticated_node() {
    let (server, mut frames) = start(settings());
    assert_ne!(server.addr().unwrap().port(), 0, "the real port");
    assert!(!server.is_connected(id(1)));
    let mut client = connect(&server, 1, key(1)).await.unwrap();
    assert!(server.is_connected(id(1)), "before the client can know that it is");
    assert_eq!(server.peer_count(), 1);

    for frame in [&b"any bytes"[..], b"", &[0xff; 65_536]] {
        client.send_packet(frame).await.unwrap();
        assert!(frames.recv().await.unwrap() == (id(1), frame.to_vec()));
    }
    assert!(server.write_frame(id(1), b"\x06\0\0\0\x02hello"));
    let delivery = client.recv().await.unwrap().unwrap();
    assert_eq!((delivery.sender, &delivery.payload[..]), (id(2), &b"hello"[..]));
    assert!(!server.write_frame(id(2), b"not connected here"));
    assert!(deliver(&server, id(2), id(1), b"in one call"));
    let delivery = client.recv().await.unwrap().unwrap();
    assert_eq!((delivery.sender, &delivery.payload[..]), (id(2), &b"in one call"[..]));
    assert!(!deliver(&server, id(1), id(2), b"not connected here"));

    let counted = server.metrics();
    assert_eq!((counted.frames_in, counted.frames_out, counted.active_peers), (3, 2, 1));
    client.bye().await.unwrap();
    until(|| !server.is_connected(id(1))).await;
    assert_eq!(server.peer_count(), 0);
    assert!(!server.write_frame(id(1), b"gone"));
}

#[tokio::test]
async fn sink_gets_all_frames_of_one_read_at_once() {
    struct Batches(Mutex<Vec<usize>>);
    impl PacketSink for Arc<Batches> {
        fn packets(&self, _: &Arc<Session>, packets: Frames<'_>, _: Instant) {
            self.0.lock().push(packets.len());
        }
    }
    let batches = Arc::new(Batches(Mutex::default()));
    let pilot = Pilot::new(keys(), Arc::clone(&batches), Login::default());
    let server = pilot.listen(settings()).unwrap();
    let client = connect(&server, 1, key(1)).await.unwrap();
    let (sender, _receiver) = client.split();
    for number in 0..200u8 {
        sender.send_packet(&[number; 100]).await.unwrap();
    }
    until(|| batches.0.lock().iter().sum::<usize>() == 200).await;
    let reads = batches.0.lock().len();
    assert!(reads < 200, "{reads} reads for 200 frames");
}

#[tokio::test]
async fn metrics_tell_what_became_of_every_attempt() {
    let (server, _frames) = start(Settings { max_peers: 2, ..settings() });
    let address = server.addr().unwrap();
    let _clients =
        [connect(&server, 1, key(1)).await.unwrap(), connect(&server, 2, key(2)).await.unwrap()];
    connect(&server, 3, key(3)).await.unwrap_err();
    assert_eq!(server.metrics().upgrades_failed, 1, "at capacity");
    drop(_clients);
    until(|| server.peer_count() == 0).await;

    connect(&server, 1, key(2)).await.unwrap_err();
    connect(&server, 9, key(9)).await.unwrap_err();
    let statuses = tokio::task::spawn_blocking(move || {
        ["/health", "/metrics", "/v1/compat"].map(|path| status(address, path))
    });
    assert_eq!(statuses.await.unwrap(), ["200", "404", "426"]);
    let expected = Snapshot {
        upgrades_ok: 4,
        upgrades_failed: 3,
        authentications_ok: 2,
        authentications_failed: 2,
        ..Snapshot::default()
    };
    assert_eq!(server.metrics(), expected);
}

#[tokio::test]
async fn silent_peer_is_an_idle_disconnect() {
    let mut settings = settings();
    settings.timing.idle_timeout = Duration::from_millis(50);
    let (server, _frames) = start(settings);
    let mut client = connect(&server, 1, key(1)).await.unwrap();
    let ended = timeout(PATIENCE, client.recv()).await.unwrap().unwrap_err();
    assert!(matches!(ended, SessionError::Closed { code: Some(1008), .. }), "{ended}");
    // Counted when both sides have said goodbye.
    drop(client);
    until(|| server.metrics().idle_disconnects == 1).await;
}

#[tokio::test]
async fn newer_session_of_a_node_is_the_one_that_is_written_to() {
    let (server, _frames) = start(settings());
    let mut first = connect(&server, 1, key(1)).await.unwrap();
    let mut second = connect(&server, 1, key(1)).await.unwrap();
    let ended = first.recv().await.unwrap_err();
    assert!(matches!(ended, SessionError::Closed { code: Some(1000), .. }), "{ended}");
    assert_eq!(server.peer_count(), 1);
    assert!(server.write_frame(id(1), b"\x06\0\0\0\x02hello"));
    assert_eq!(&second.recv().await.unwrap().unwrap().payload[..], b"hello");
}

/// What a web page of this origin is answered that asks for an upgrade.
fn upgrade_of_a_page(address: SocketAddr, origin: &str) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET /v1/compat HTTP/1.1\r\nHost: here\r\nOrigin: {origin}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head).into_owned();
    head.strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

/// A server with a listener for each of these settings, and room for two peers.
fn start_all<const N: usize>(settings: [Settings; N]) -> (Canary, Arc<Server>, [SocketAddr; N]) {
    let table = Arc::new(Table::new(2, 0));
    let pilot = Pilot::new(keys(), per_packet(|_, _: &[u8]| ()), Login::default());
    let specs = settings.map(|settings| Spec {
        quic: None,
        listener: Listener::tcp(settings.bind).unwrap(),
        settings,
        doors: vec![Arc::clone(&pilot) as Arc<dyn Door>],
        tls: None,
        runtime: None,
    });
    let server = Arc::new(Server::serve(specs.into(), table, Arc::default(), None));
    let addresses: Vec<_> = server.addrs().map(Option::unwrap).collect();
    assert_eq!(server.addr(), addresses.first().copied());
    let canary = Canary::new(pilot, Arc::clone(&server));
    (canary, server, addresses.try_into().unwrap())
}

#[tokio::test]
async fn listeners_share_their_peers_and_end_together() {
    let (canary, server, addresses) = start_all([settings(), settings()]);
    let [one, other] = addresses;
    let login = |address: SocketAddr, node: u8| async move {
        let options = Options::new(format!("ws://{address}"), id(node.into()), key(node));
        Client::connect(&options).await
    };
    let mut first = login(one, 1).await.unwrap();

    let mut newer = login(other, 1).await.unwrap();
    let replaced = first.recv().await.unwrap_err();
    let _second = login(one, 2).await.unwrap();
    let third = login(other, 3).await;

    assert!(matches!(replaced, SessionError::Closed { code: Some(1000), .. }), "{replaced}");
    assert!(matches!(third, Err(ConnectError::Status { status: 503 })), "{third:?}");
    assert_eq!((server.peer_count(), server.is_connected(id(2))), (2, true));
    // This sink hands nothing back.
    let lost = canary.fly(Duration::from_millis(50)).await.unwrap_err();
    assert!(lost.to_string().starts_with("at 127.0.0.1:") && lost.is_late(), "{lost}");

    let (ended, ()) = tokio::join!(newer.recv(), server.close());
    let ended = ended.unwrap_err();
    assert!(matches!(ended, SessionError::Closed { code: Some(1001), .. }), "{ended}");
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "{address} still listens");
    }
}

#[tokio::test]
async fn each_listener_lets_pages_in_by_its_own_rule() {
    let listed = || vec!["https://app.test".to_owned()];
    let rules = [Origins::DoorAnd(listed()), Origins::Only(listed()), Origins::Any];
    let (_canary, server, addresses) =
        start_all(rules.map(|allow_origins| Settings { allow_origins, ..settings() }));
    let ask_all = move || {
        let pages = ["https://app.test", "http://here", "pilot://a", "https://other.test"];
        addresses.map(|address| pages.map(|page| upgrade_of_a_page(address, page)))
    };

    let answers = tokio::task::spawn_blocking(ask_all).await.unwrap();
    server.update(addresses.map(|_| settings()));
    let afterwards = tokio::task::spawn_blocking(ask_all).await.unwrap();

    let expected = [[101, 101, 101, 403], [101, 403, 403, 403], [101, 101, 101, 101]];
    assert_eq!(answers, expected);
    assert_eq!(afterwards, [[403, 101, 101, 403]; 3]);
}

#[tokio::test]
async fn key_that_is_withdrawn_while_its_login_waits_opens_no_session() {
    let known = Arc::new(AtomicBool::new(true));
    let keys = {
        let (known, keys) = (Arc::clone(&known), keys());
        move |node: NodeId| keys.get(&node).copied().filter(|_| known.load(Ordering::SeqCst))
    };
    let pilot = Pilot::new(keys, per_packet(|_, _| ()), Login::default());
    let server = pilot.listen(settings()).unwrap();
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(connect(&server, 1, key(1)).await.unwrap());
    }
    let waits = async {
        until(|| server.delayed() == 1).await;
        known.store(false, Ordering::SeqCst);
    };
    let (refused, ()) = tokio::join!(connect(&server, 1, key(1)), waits);
    assert!(matches!(refused, Err(ConnectError::Login(LoginError::Refused { .. }))), "{refused:?}");
    assert_eq!((server.peer_count(), server.metrics().authentications_ok), (1, 5));
}

#[tokio::test]
async fn close_sends_peers_away_and_can_be_repeated() {
    let (server, _frames) = start(settings());
    let mut client = connect(&server, 1, key(1)).await.unwrap();
    let closing = async { tokio::join!(server.close(), server.close()) };
    let (ended, _) = tokio::join!(client.recv(), closing);
    let ended = ended.unwrap_err();
    assert!(matches!(ended, SessionError::Closed { code: Some(1001), .. }), "{ended}");
    server.close().await;
    assert_eq!((server.peer_count(), server.is_connected(id(1))), (0, false));
    assert!(!server.write_frame(id(1), b"gone"));
    connect(&server, 1, key(1)).await.unwrap_err();
}

#[tokio::test]
async fn address_in_use_is_an_error_of_the_start() {
    let (server, _frames) = start(settings());
    let again = Settings::new(server.addr().unwrap());
    let pilot = Pilot::new(keys(), per_packet(|_, _| ()), Login::default());
    let error = pilot.listen(again).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

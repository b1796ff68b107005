//! The registry as the source of keys and of beacons, and what its failures cost (SPEC §8).

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, mem};

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use crate::control::{fail, say};
use crate::harness::{Node, PATIENCE, Relay, http_get, look_until};
use crate::peer::{Peer, UdpNode, nonce, sync};
use crate::ports::free_address;

/// What the registry says when it is asked for a node.
pub(crate) enum Answer {
    /// The key of this node, whichever was asked for.
    Key(u32),
    NotFound,
    /// These bytes, and then the end of the connection.
    Lie(Vec<u8>),
    Nothing,
    /// The key of the node that was asked for, after this time.
    Slow(Duration),
}

/// A registry in binary mode on a real socket; it goes down when it is dropped.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    answer: Box<dyn Fn(u32) -> Answer + Send + Sync>,
    beacons: Value,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    down: bool,
    connections: Vec<TcpStream>,
    /// JSON requests as they came.
    requests: Vec<Value>,
}

impl Registry {
    pub(crate) fn start(answer: impl Fn(u32) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_beacons(answer, json!([]))
    }

    fn with_beacons(
        answer: impl Fn(u32) -> Answer + Send + Sync + 'static,
        beacons: Value,
    ) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer, beacons)
    }

    pub(crate) fn on(
        listener: TcpListener,
        answer: impl Fn(u32) -> Answer + Send + Sync + 'static,
        beacons: Value,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { answer: Box::new(answer), beacons, state, changed });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming().map(Result::unwrap) {
                    let mut state = shared.state.lock();
                    if state.down {
                        return;
                    }
                    state.connections.push(stream.try_clone().unwrap());
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.serve(stream));
                }
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// A relay that asks this registry, started with these further arguments.
    fn relay(&self, arguments: &[&str]) -> Relay {
        Relay::start([&["--registry", &*self.address.to_string()], arguments].concat())
    }

    /// Waits for a JSON request of this type.
    fn wait_for(&self, kind: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock();
        loop {
            if let Some(request) = state.requests.iter().find(|request| request["type"] == kind) {
                return request.clone();
            }
            assert!(!self.shared.changed.wait_until(&mut state, end).timed_out(), "no {kind}");
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.down = true;
        for connection in mem::take(&mut state.connections) {
            // The other side may have closed it already.
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        // Wakes the listener, which ends with its thread.
        let _ = TcpStream::connect(self.address);
        self.accepting.take().unwrap().join().unwrap();
    }
}

impl Shared {
    /// Answers one connection to its end, which is an error like another.
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut preamble = [0; 5];
        stream.read_exact(&mut preamble)?;
        assert_eq!(preamble, *b"PILT\x01");
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut message = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
            stream.read_exact(&mut message)?;
            match message.split_first().unwrap() {
                (0x00, json) => stream.write_all(&self.control(json))?,
                (0x02, node) => {
                    let node = u32::from_be_bytes(node.try_into().unwrap());
                    match (self.answer)(node) {
                        Answer::Key(of) => {
                            let key = Node::new(of).key.verifying_key().to_bytes();
                            stream.write_all(&found(node, &key))?;
                        }
                        Answer::NotFound => {
                            stream.write_all(&framed(b"\xff\x00\x0enode not found"))?;
                        }
                        Answer::Lie(bytes) => {
                            stream.write_all(&bytes)?;
                            return stream.shutdown(Shutdown::Both);
                        }
                        Answer::Nothing => {}
                        Answer::Slow(time) => {
                            thread::sleep(time);
                            let key = Node::new(node).key.verifying_key().to_bytes();
                            stream.write_all(&found(node, &key))?;
                        }
                    }
                }
                (other, _) => panic!("a request of type {other:#04x}"),
            }
        }
    }

    fn control(&self, json: &[u8]) -> Vec<u8> {
        let request: Value = serde_json::from_slice(json).unwrap();
        let response = if request["type"] == "beacon_list" {
            json!({"type": "beacon_list_ok", "beacons": self.beacons})
        } else {
            json!({"type": "beacon_register_ok"})
        };
        self.state.lock().requests.push(request);
        self.changed.notify_all();
        framed(&[b"\0", response.to_string().as_bytes()].concat())
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// The answer to a look-up, with two numbers in the list and a field of later versions.
fn found(node: u32, key: &[u8]) -> Vec<u8> {
    let mut body = vec![0x82];
    body.extend(node.to_be_bytes());
    body.extend([1, 0, 0, 0, 0, 0, 2, 0, 7, 0, 8, u8::try_from(key.len()).unwrap()]);
    body.extend(key);
    body.extend(b"more");
    framed(&body)
}

/// Answers the challenge, and waits for nothing.
fn try_to_log_in(relay: &Relay, node: &Node) -> Peer {
    let mut peer = Peer::upgrade(relay.wss);
    let challenge = peer.challenge();
    let text = format!("compat_auth:{}:{}:{}", node.id, challenge["ts"], nonce(&challenge));
    peer.reply(node, &text, None);
    peer
}

fn assert_refused(relay: &Relay, node: &Node) {
    let close = try_to_log_in(relay, node).read_close();
    assert_eq!(close, (1008, "auth failed".to_owned()));
}

/// How often the registry failed for this reason.
fn failures(relay: &Relay, reason: &str) -> f64 {
    relay.metric(&format!("pilot_beacon_registry_failures_total{{reason=\"{reason}\"}}"))
}

#[test]
fn spec_8_2_node_that_only_the_registry_knows_logs_in_and_the_key_file_wins_for_its_own() {
    let (filed, registered) = (Node::new(11), Node::new(12));
    let registry = Registry::start(|node| match node {
        12 => Answer::Key(12),
        // Not the key of the file.
        11 => Answer::Key(99),
        _ => Answer::NotFound,
    });
    let address = registry.address.to_string();
    let relay = Relay::with_nodes(&[&filed], &["--registry", &address]);
    let (mut a, mut b) = (Peer::log_in(relay.wss, &filed), Peer::log_in(relay.wss, &registered));
    a.relay(11, 12, b"hello");
    assert_eq!(b.delivery(), (11, b"hello".to_vec()));
    assert_refused(&relay, &Node::new(13));
    // The right id with a key that is not the registry's.
    assert_refused(&relay, &Node { id: 12, ..Node::new(13) });
    for (outcome, count) in [("file", 1.0), ("asked", 1.0), ("unknown", 1.0), ("cached", 1.0)] {
        let name = format!("pilot_beacon_directory_lookups_total{{outcome=\"{outcome}\"}}");
        assert_eq!(relay.metric(&name), count, "{outcome}");
    }
    assert_eq!(relay.metric("pilot_beacon_registry_up"), 1.0);
}

#[test]
fn spec_8_4_registry_that_is_down_costs_only_the_nodes_that_it_was_never_asked_for() {
    let registry = Registry::start(Answer::Key);
    let relay = registry.relay(&[]);
    let known = Node::new(11);
    drop(Peer::log_in(relay.wss, &known));
    drop(registry);

    assert_refused(&relay, &Node::new(12));
    let line = relay.wait_for_line("the registry failed");
    assert!(line.contains("WARN") && line.contains("reason=\"connect\""), "{line}");
    assert!(line.contains("known keys stay in use"), "{line}");
    assert!(failures(&relay, "connect") >= 1.0);
    relay.wait_for_metric("pilot_beacon_registry_up", 0.0);
    drop(Peer::log_in(relay.wss, &known));
    // What is known to be down is not waited for.
    let began = Instant::now();
    assert_refused(&relay, &Node::new(13));
    assert!(began.elapsed() < Duration::from_secs(2));
    let unavailable = "pilot_beacon_wss_connections_total{outcome=\"directory_unavailable\"}";
    assert_eq!(relay.metric(unavailable), 2.0);
}

#[test]
fn spec_8_4_relay_starts_without_its_registry_and_uses_it_when_it_comes() {
    let address = free_address();
    let relay = Relay::start(["--registry", &address.to_string()]);
    assert_refused(&relay, &Node::new(11));
    relay.wait_for_line("the registry failed");

    let listener = TcpListener::bind(address).unwrap();
    let _registry = Registry::on(listener, Answer::Key, json!([]));
    relay.wait_for_metric("pilot_beacon_registry_up", 1.0);
    Peer::log_in(relay.wss, &Node::new(11));
    relay.wait_for_line("the registry answers");
}

#[test]
fn spec_8_4_lies_of_the_registry_are_named_and_counted_and_known_keys_go_on() {
    let key = Node::new(12).key.verifying_key().to_bytes();
    let huge = [&0x7fff_ffff_u32.to_be_bytes()[..], &[0x82; 64]].concat();
    for (lie, reason) in [
        (found(12, &key[..31]), "wrong_key_length"),
        (found(12, &[&key[..], b"!"].concat()), "wrong_key_length"),
        (found(12, b""), "wrong_key_length"),
        (huge, "message_too_long"),
        (found(12, &key)[..20].to_vec(), "closed"),
        (found(13, &key), "wrong_node"),
        (framed(&[0x82, 0]), "malformed"),
    ] {
        let registry = Registry::start(move |node| match node {
            12 => Answer::Lie(lie.clone()),
            _ => Answer::Key(node),
        });
        let relay = registry.relay(&[]);
        let known = Node::new(11);
        drop(Peer::log_in(relay.wss, &known));
        assert_refused(&relay, &Node::new(12));
        let line = relay.wait_for_line("the registry failed");
        let said = line.contains("WARN") && line.contains(&format!("reason=\"{reason}\""));
        assert!(said && line.contains("error="), "{line}");
        assert_eq!(failures(&relay, reason), 1.0, "{reason}");
        drop(Peer::log_in(relay.wss, &known));
    }
}

#[test]
fn spec_8_4_slow_registry_delays_only_those_who_need_it() {
    let registry = Registry::start(|node| match node {
        12 => Answer::Nothing,
        _ => Answer::Key(node),
    });
    let relay = registry.relay(&["--auth-timeout", "3s"]);
    let known = Node::new(11);
    drop(Peer::log_in(relay.wss, &known));
    let began = Instant::now();
    let mut slow = try_to_log_in(&relay, &Node::new(12));
    relay.wait_for_metric("pilot_beacon_registry_lookups_in_flight", 1.0);
    drop(Peer::log_in(relay.wss, &known));
    assert!(began.elapsed() < Duration::from_secs(2), "nobody else waits");

    assert_eq!(slow.read_close(), (1008, "auth failed".to_owned()));
    let waited = began.elapsed();
    let times = 2.6..6.0;
    assert!(times.contains(&waited.as_secs_f64()), "{waited:?} for a look-up of 2.7 s");
    let line = relay.wait_for_line("the registry failed");
    assert!(line.contains("reason=\"timeout\""), "{line}");
    relay.wait_for_metric("pilot_beacon_registry_failures_total{reason=\"timeout\"}", 1.0);
}

#[test]
fn registry_that_takes_2_seconds_for_each_look_up_lets_everybody_in() {
    let registry = Registry::start(|_| Answer::Slow(Duration::from_secs(2)));
    let relay = registry.relay(&[]);
    let nodes = [11, 12, 13].map(Node::new);
    let peers = nodes.each_ref().map(|node| try_to_log_in(&relay, node));
    for mut peer in peers {
        assert_eq!(peer.read(), Some((1, br#"{"type":"auth_ok"}"#.to_vec())));
    }
    let line = relay.wait_for_line("the registry answers");
    assert!(line.contains("mode=Binary"), "{line}");
    assert_eq!(failures(&relay, "timeout") + failures(&relay, "closed"), 0.0);
}

#[test]
fn keys_of_the_registry_are_kept_for_the_next_start() {
    let registry = Registry::start(Answer::Key);
    let mut relay = registry.relay(&["--drain-time", "0s"]);
    drop(Peer::log_in(relay.wss, &Node::new(11)));
    relay.signal("TERM");
    assert_eq!(relay.wait_for_end(), 0);
    let kept = fs::metadata(relay.state_dir().join("registry-keys")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
}

#[test]
fn registry_that_has_lost_all_nodes_disconnects_nobody_until_somebody_believes_it() {
    let has_lost_all = Arc::new(AtomicBool::new(false));
    let is_lost = Arc::clone(&has_lost_all);
    let registry = Registry::start(move |node| match is_lost.load(Ordering::Relaxed) {
        true => Answer::NotFound,
        false => Answer::Key(node),
    });
    let keys = tempfile::NamedTempFile::new().unwrap();
    fs::write(keys.path(), "{}").unwrap();
    let path = keys.path().to_str().unwrap();
    let relay = registry.relay(&["--upgrade-burst", "1000", "--keys", path]);
    // One of them is looked up again every 2 s.
    let nodes: Vec<_> = (1..=150).map(Node::new).collect();
    let mut peers: Vec<_> = nodes.iter().map(|node| Peer::log_in(relay.wss, node)).collect();
    has_lost_all.store(true, Ordering::Relaxed);

    let line = relay.wait_for_line("the registry says that most nodes have no key");
    assert!(line.contains("WARN") && line.contains("contradicted=32 confirmed=0"), "{line}");
    let held = relay.metric("pilot_beacon_registry_held_nodes");
    assert!(held >= 32.0, "{held}");
    assert_eq!(relay.metric("pilot_beacon_wss_active"), 150.0);
    let (status, parts) = http_get(relay.admin, "/readyz?verbose");
    assert!(status == 200 && parts.contains("held back, until"), "{parts}");
    drop(peers.pop());
    let _returned = Peer::log_in(relay.wss, nodes.last().unwrap());

    // Without an operator's word nothing changes, with it all that is held goes.
    say(&relay, &["reload"]);
    assert!(relay.metric("pilot_beacon_registry_held_nodes") >= held);
    // So it does where the files are of no use, which it says as well.
    fs::write(keys.path(), "{").unwrap();
    let (_, said) = fail(relay.state_dir(), &["reload", "--force"]);
    assert!(said.contains("but the registry is believed, as was asked: "), "{said}");
    let withdrawn = "pilot_beacon_wss_sessions_ended_total{reason=\"key_withdrawn\"}";
    let ended = || (relay.metric(withdrawn) >= held).then_some(());
    look_until(Instant::now() + PATIENCE, ended).expect("the sessions end");
    assert_eq!(relay.metric("pilot_beacon_registry_held_nodes"), 0.0);
}

#[test]
fn spec_8_3_beacon_registers_at_start_and_believes_those_that_are_listed() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listed = socket.local_addr().unwrap().to_string();
    let registry = Registry::with_beacons(
        |_| Answer::NotFound,
        json!([{"id": 7, "addr": "127.0.0.8:9001"}, {"id": 9, "addr": listed, "region": "x"}]),
    );
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), "secret of the fleet\n").unwrap();
    let relay = registry.relay(&[
        "--beacon-id",
        "7",
        "--advertise-addr",
        "relay.example.net:9001",
        "--registry-admin-token-file",
        token.path().to_str().unwrap(),
    ]);
    let request = registry.wait_for("beacon_register");
    assert_eq!(request["beacon_id"], 7);
    assert_eq!(request["addr"], "relay.example.net:9001");
    assert_eq!(request["admin_token"], "secret of the fleet");
    registry.wait_for("beacon_list");

    // As soon as it is listed; until then it is a stranger.
    let beacon = UdpNode::with(socket, relay.udp, 9);
    let believed = look_until(Instant::now() + PATIENCE, || {
        beacon.send(&sync(9, &[31]));
        (relay.metric("pilot_beacon_learnt_nodes") == 1.0).then_some(())
    });
    believed.expect("the Sync of a listed beacon is taken");
    // Our own entry is no peer of ours.
    let itself = UdpNode::at("127.0.0.8:0", relay.udp, 7);
    let before = relay.dropped("sync_from_stranger");
    itself.send(&sync(7, &[32]));
    relay.wait_for_dropped("sync_from_stranger", before + 1);
    let gossip = beacon.receive();
    assert_eq!(gossip[..5], [0x07, 0, 0, 0, 7], "and is told what is served here");
    assert!(!relay.log().contains("secret of the fleet"));
}

//! What real daemons sent, played to the relay: it answers as recorded, byte for byte, but where
//! the recorded relay had a fault, which the test names.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::Value;

use crate::cells::assert_balance;
use crate::deploy::root;
use crate::harness::{Node, Relay};
use crate::peer::{Peer, UdpNode, address, relay as relay_packet, signed_text};

/// Nodes of the recordings that came over WebSocket.
const COMPAT: [u32; 3] = [1, 2, 5];

/// Nodes of the recordings that came over UDP; node 3 was in compat mode for a while as well.
const UDP: [u32; 2] = [3, 4];

/// A recording: a JSON object a line.
fn recording(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(root("tests/vectors/pilot").join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes(event: &Value) -> Vec<u8> {
    let hex = event["hex"].as_str().unwrap();
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn id_at(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
}

/// A recorded connection that is open in the replay.
struct Connection {
    peer: Peer,
    node: Option<u32>,
    challenge: Value,
    /// The head of the response that came, to be compared with the recorded one.
    head: String,
}

impl Connection {
    /// The next frame but the relay's own pings.
    fn next(&mut self) -> (u8, Vec<u8>) {
        loop {
            let frame = self.peer.read().expect("the relay sends on");
            if frame.0 != 9 {
                return frame;
            }
        }
    }
}

/// The replay of a recorded relay's WebSocket side.
struct Replay<'relay> {
    relay: &'relay Relay,
    open: BTreeMap<u64, Connection>,
    udp: BTreeMap<u32, UdpNode>,
    punches: usize,
    probes: usize,
}

#[test]
fn recorded_compat_daemons_get_the_recorded_answers() {
    let events = recording("wss.jsonl");
    let nodes = [1, 2, 3, 5].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &["--relay-name", "beacon.test"]);
    let udp = UDP.map(|id| (id, UdpNode::register(relay.udp, id)));
    let mut replay =
        Replay { relay: &relay, open: BTreeMap::new(), udp: udp.into(), punches: 0, probes: 0 };

    // A connection that nobody logged in on was refused by a relay that was draining.
    let logs_in = |event: &&Value| event["op"] == "text" && event["dir"] == "C->S";
    let played: Vec<u64> =
        events.iter().filter(logs_in).map(|event| event["conn"].as_u64().unwrap()).collect();
    assert_eq!(played.len(), 14);
    for event in events.iter().filter(|event| played.contains(&event["conn"].as_u64().unwrap())) {
        replay.play(event);
    }

    let Replay { punches, probes, .. } = replay;
    relay.wait_for_dropped("punch_over_wss", punches);
    relay.wait_for_dropped("direct_probe", probes);
    assert!(punches > 100 && probes > 500, "{punches} punches and {probes} probes");
    let dropped: f64 = relay
        .metrics()
        .lines()
        .filter(|line| line.starts_with("pilot_beacon_packets_dropped_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(dropped, (punches + probes) as f64, "{}", relay.metrics());
    assert_balance(&relay);
}

impl Replay<'_> {
    fn play(&mut self, event: &Value) {
        let number = event["conn"].as_u64().unwrap();
        let from_daemon = event["dir"] == "C->S";
        match (event["op"].as_str().unwrap(), from_daemon) {
            ("http", true) => {
                let mut peer = Peer::connect(self.relay.wss);
                let request = format!("{}\r\n\r\n", event["text"].as_str().unwrap());
                let (status, head) = peer.ask(&request);
                assert_eq!(status, 101, "{head}");
                let challenge = Value::Null;
                self.open.insert(number, Connection { peer, node: None, challenge, head });
            }
            ("http", false) => {
                let lines = |head: &str| -> Vec<String> {
                    let mut lines: Vec<_> =
                        head.trim_end().lines().map(str::to_ascii_lowercase).collect();
                    lines.sort();
                    lines
                };
                let head = &self.open[&number].head;
                assert_eq!(lines(head), lines(event["text"].as_str().unwrap()));
            }
            ("text", false) => {
                let text: Value = serde_json::from_str(event["text"].as_str().unwrap()).unwrap();
                // Which is read with the verdict, in `log_in`.
                if text["type"] == "auth_challenge" {
                    self.open.get_mut(&number).unwrap().challenge = text;
                }
            }
            ("text", true) => self.log_in(number, event["text"].as_str().unwrap()),
            ("binary", true) => self.send(number, &bytes(event)),
            ("binary", false) => self.expect(number, &bytes(event)),
            ("ping", true) => {
                let payload = bytes(event);
                let connection = self.open.get_mut(&number).unwrap();
                connection.peer.send(9, &payload);
                assert_eq!(connection.next(), (10, payload));
            }
            ("close", true) => {
                let connection = self.open.get_mut(&number).unwrap();
                let payload = bytes(event);
                connection.peer.send(8, &payload);
                let (opcode, answer) = connection.next();
                assert_eq!((opcode, &answer[..2]), (8, &payload[..2]));
            }
            ("tcp-fin", true) => {
                self.open.remove(&number);
            }
            // The recorded relay's own pings and shutdowns come when it wants them.
            ("ping" | "pong" | "close" | "tcp-fin", _) => {}
            (other, _) => panic!("{other} is in no recording"),
        }
    }

    /// Checks the recorded signature, and logs in as that node with a key that is at hand.
    fn log_in(&mut self, number: u64, recorded: &str) {
        let connection = self.open.get_mut(&number).unwrap();
        let reply: Value = serde_json::from_str(recorded).unwrap();
        let node = u32::try_from(reply["node_id"].as_u64().unwrap()).unwrap();
        let decode = |field: &str| STANDARD.decode(reply[field].as_str().unwrap()).unwrap();
        let key = VerifyingKey::from_bytes(&decode("public_key").try_into().unwrap()).unwrap();
        let signature = Signature::from_slice(&decode("sig")).unwrap();
        let text = signed_text(node, &connection.challenge, 2);
        key.verify_strict(text.as_bytes(), &signature).expect("the signature is over this text");

        connection.peer.authenticate(&Node::new(node), 2);
        connection.node = Some(node);
    }

    fn send(&mut self, number: u64, packet: &[u8]) {
        self.open.get_mut(&number).unwrap().peer.send(2, packet);
        match packet[0] {
            0x03 => self.punches += 1,
            b'P' => self.probes += 1,
            0x05 => {
                let (sender, dest) = (id_at(packet, 1), id_at(packet, 5));
                if !self.has_session(dest) {
                    let delivery = self.udp[&dest].delivery();
                    assert_eq!(delivery, (sender, packet[9..].to_vec()));
                }
            }
            _ => {}
        }
    }

    fn expect(&mut self, number: u64, packet: &[u8]) {
        if packet[0] == 0x06 {
            let sender = id_at(packet, 1);
            if !self.has_session(sender) {
                let dest = self.open[&number].node.unwrap();
                self.udp[&sender].relay(dest, &packet[5..]);
            }
        }
        let connection = self.open.get_mut(&number).unwrap();
        assert_eq!(connection.next(), (2, packet.to_vec()));
    }

    fn has_session(&self, node: u32) -> bool {
        self.open.values().any(|connection| connection.node == Some(node))
    }
}

/// A recorded daemon on UDP; its id is the third number of its address.
struct Host {
    node: UdpNode,
    /// Where punches sent it.
    commands: Vec<SocketAddr>,
    /// Whether the relay knows it.
    is_registered: bool,
}

impl Host {
    /// The next packet but punch commands, which come when the other side punches.
    fn next(&mut self) -> Vec<u8> {
        loop {
            let packet = self.node.receive();
            if packet[0] != 0x04 {
                return packet;
            }
            self.commands.push(address(0x04, &packet));
        }
    }
}

#[test]
fn recorded_udp_daemons_get_the_recorded_answers() {
    let events = recording("udp.jsonl");
    let compat = COMPAT.map(Node::new);
    // Without its pauses the recording would be over the rates of punches and of questions.
    let relay = Relay::with_nodes(&compat.each_ref(), &["--punch-allow", "*"]);
    let mut peers: BTreeMap<u32, Peer> =
        compat.iter().map(|node| (node.id, Peer::log_in(relay.wss, node))).collect();
    let mut hosts: BTreeMap<u32, Host> = BTreeMap::new();
    let mut delivered = Vec::new();
    let mut deliveries = 0;
    let mut punches = 0;

    for event in &events {
        let packet = bytes(event);
        let (from, to) = (host(event, "src"), host(event, "dst"));
        if let Some(from) = from {
            // A daemon keeps its address, here its port as well: moves have tests of their own.
            let host = hosts.entry(from).or_insert_with(|| {
                let local = format!("127.77.{from}.2:0");
                let node = UdpNode::at(&local, relay.udp, from);
                Host { node, commands: Vec::new(), is_registered: false }
            });
            host.node.send(&packet);
            match packet[0] {
                // The recorded relay answered neither id 0 nor a node that had just left compat
                // mode: now all are.
                0x01 => {
                    assert_eq!(address(0x02, &host.next()), host.node.address());
                    host.is_registered |= id_at(&packet, 1) == from;
                }
                // The recorded relay answered a punch a second.
                0x03 if UDP.contains(&id_at(&packet, 5)) => punches += 1,
                0x03 => {}
                0x05 => {
                    let (sender, dest) = (id_at(&packet, 1), id_at(&packet, 5));
                    if let Some(peer) = peers.get_mut(&dest) {
                        assert_eq!(peer.delivery(), (sender, packet[9..].to_vec()));
                    } else if let Some(host) = hosts.get_mut(&dest).filter(|h| h.is_registered) {
                        let delivery = host.next();
                        assert_eq!(delivery[..5], [&[0x06], &packet[1..5]].concat());
                        assert_eq!(delivery[5..], packet[9..]);
                        delivered.push(delivery);
                    }
                }
                other => panic!("{other:#04x} is in no recording"),
            }
        } else if packet[0] == 0x06 {
            let to = to.expect("the relay sends to a daemon");
            let sender = id_at(&packet, 1);
            if let Some(peer) = peers.get_mut(&sender) {
                peer.send(2, &relay_packet(sender, to, &packet[5..]));
                assert_eq!(hosts.get_mut(&to).unwrap().next(), packet);
            } else {
                // The recording has the first 96 bytes of each datagram.
                let was_delivered = |delivery: &Vec<u8>| packet.starts_with(delivery);
                assert!(delivered.iter().any(was_delivered), "{packet:?}");
            }
            deliveries += 1;
        }
    }

    assert_eq!(deliveries, 92);
    // Each punch that the relay carried out reached both sides, and each was sent to the other.
    let carried_out = relay.metric("pilot_beacon_packets_handled_total{kind=\"punch\"}");
    assert!(carried_out > 51.0, "{carried_out} of {punches}");
    let addresses: Vec<_> = UDP.iter().map(|id| hosts[id].node.address()).collect();
    for (id, other) in UDP.iter().zip(addresses.iter().rev()) {
        let host = hosts.get_mut(id).unwrap();
        while (host.commands.len() as f64) < carried_out {
            host.commands.push(address(0x04, &host.node.receive()));
        }
        assert!(host.commands.iter().all(|sent_to| sent_to == other), "{:?}", host.commands);
    }
    assert_balance(&relay);
}

/// The daemon that a datagram came from or went to; `None` for the relay.
fn host(event: &Value, field: &str) -> Option<u32> {
    let address: SocketAddr = event[field].as_str().unwrap().parse().unwrap();
    let SocketAddr::V4(address) = address else { panic!("{address}") };
    let number = address.ip().octets()[2];
    (number != 0).then_some(number.into())
}

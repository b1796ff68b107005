//! What real clients and real servers said to each other over QUIC is said again to the relay.

use std::collections::HashMap;
use std::fs;

use serde_json::Value;

use super::super::recordings::renewed;
use super::super::{EXPOSED, Site};
use super::{Manner, QuicPeer, normal_closure};
use crate::deploy::root;

fn replay(file: &str) {
    let site = Site::with_tls(&["--upgrade-rate", "0"]);
    let text = fs::read_to_string(root("tests/vectors/netbird").join(file)).unwrap();
    let mut peers: HashMap<u64, QuicPeer> = HashMap::new();
    let mut datagrams = 0;
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let number = event["conn"].as_u64().unwrap();
        let is_ours = event["dir"] == "C->S";
        match event["op"].as_str().unwrap() {
            "accepted" => {
                let dialled = QuicPeer::dial(site.quic.unwrap(), &site.ca(), &Manner::wide());
                peers.insert(number, dialled.unwrap());
            }
            "datagram" => {
                datagrams += 1;
                let bytes = bytes(&event);
                let peer = &peers[&number];
                if is_ours {
                    peer.send(&renewed("", &bytes));
                } else if bytes.starts_with(b"\x01\x07") {
                    let accepted = [b"\x01\x07", EXPOSED.as_bytes()].concat();
                    assert_eq!(peer.read(), Some(accepted), "{line}");
                } else {
                    assert_eq!(peer.read(), Some(bytes), "{line}");
                }
            }
            // Both ends were recorded: that of who has closed says so of the other.
            "close" if event["err"].as_str().unwrap().contains("(remote)") => {
                let peer = peers.remove(&number).unwrap();
                if is_ours {
                    peer.close();
                } else {
                    assert_eq!(peer.close_reason(), normal_closure(), "{line}");
                }
            }
            "close" => {}
            other => panic!("{other}"),
        }
    }
    assert!(datagrams >= 19, "{datagrams}");
}

/// The datagram, of which the beginning was recorded where it is long.
fn bytes(event: &Value) -> Vec<u8> {
    let hex = event["hex"].as_str().unwrap();
    let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    let mut bytes: Vec<_> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let last = bytes.last().copied().unwrap();
    bytes.resize(event["len"].as_u64().unwrap().try_into().unwrap(), last);
    bytes
}

#[test]
fn what_netbird_s_server_and_clients_said_over_quic_is_said() {
    replay("quic-netbird-0.77.1.jsonl");
}

#[test]
fn what_openzro_s_server_and_clients_said_over_quic_is_said() {
    replay("quic-openzro.jsonl");
}

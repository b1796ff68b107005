//! Beacon packets: what is decoded says the same when it is encoded again.

use std::net::SocketAddr;

use beacon_wire::beacon::{self, Deliver, Discover, Packet, Relay};
use beacon_wire::ids::{NodeId, PublicKey};

/// Takes one packet.
///
/// # Panics
/// Where a packet that decodes does not come back.
pub fn run(input: &[u8]) {
    let _probe = beacon::is_direct_probe(input);
    let Ok(packet) = beacon::decode(input) else { return };
    let mut out = Vec::new();
    let expected = match packet {
        Packet::Discover(Discover { node: None, .. }) => {
            beacon::encode_address_question(&mut out);
            Packet::Discover(Discover { node: None, key: None, extended: false })
        }
        Packet::Discover(Discover { node: Some(node), key, extended }) => {
            let key = key.map(|key| PublicKey(*key));
            beacon::encode_discover(node, key.as_ref(), extended, &mut out);
            assert!(input.starts_with(&out));
            packet
        }
        Packet::DiscoverReply(address) => {
            beacon::encode_discover_reply(address, &mut out);
            Packet::DiscoverReply(canonical(address))
        }
        Packet::PunchRequest(request) => {
            beacon::encode_punch_request(&request, &mut out);
            assert!(input.starts_with(&out));
            packet
        }
        Packet::PunchCommand(address) => {
            beacon::encode_punch_command(address, &mut out);
            Packet::PunchCommand(canonical(address))
        }
        Packet::Relay(Relay { sender, dest, payload }) => {
            beacon::encode_relay(sender, dest, payload, &mut out);
            assert_eq!(input, out);
            packet
        }
        Packet::Deliver(Deliver { sender, dest, payload }) => {
            match dest {
                Some(dest) => out.extend(beacon::deliver_dest_header(sender, dest)),
                None => out.extend(beacon::deliver_header(sender)),
            }
            out.extend(payload);
            assert_eq!(input, out);
            packet
        }
        Packet::Sync(sync) => {
            let nodes: Vec<NodeId> = sync.nodes().collect();
            let count = beacon::encode_sync(sync.beacon, &nodes, &mut out);
            assert_eq!(count, nodes.len().min(beacon::MAX_SYNC_NODES));
            let Ok(Packet::Sync(again)) = beacon::decode(&out) else { panic!("no Sync") };
            assert_eq!(again.beacon, sync.beacon);
            assert!(again.nodes().eq(nodes.into_iter().take(count)));
            return;
        }
        Packet::Notify(kind) => {
            beacon::encode_notify(kind, &mut out);
            packet
        }
    };
    assert_eq!(beacon::decode(&out), Ok(expected));
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

//! What comes from the floor's peers in datagrams.

use beacon_relay::net::udp::{Datagrams, Received};
use beacon_wire::beacon::{self, Discover, Packet, RELAY_HEADER, deliver_header};

use super::lanes::Lanes;
use super::{Place, Places, send_run};

pub(super) fn serve(socket: &dyn Datagrams, places: &Places) {
    let mut received = Received::new();
    let mut lanes = Lanes::default();
    loop {
        if socket.receive(&mut received).is_err() {
            continue;
        }
        for (_, packet) in received.iter() {
            let Ok(Packet::Relay(relay)) = beacon::decode(packet) else { continue };
            let payload = packet.get(RELAY_HEADER..).unwrap_or_default();
            lanes.push(places, relay.dest.number(), &deliver_header(relay.sender), payload);
        }
        for (datagram, packet) in received.iter() {
            if let Ok(Packet::Discover(Discover { node: Some(node), .. })) = beacon::decode(packet)
            {
                places.insert(node.number(), Place::Udp(datagram.from));
                lanes.forget();
                let mut reply = Vec::new();
                beacon::encode_discover_reply(datagram.from, &mut reply);
                send_run(socket, datagram.from, &reply, reply.len());
            }
        }
        lanes.flush(socket);
    }
}

//! What the relay's own client says over UDP, which is no node.

use std::net::SocketAddr;

use crate::ids::NodeId;
use crate::udp::{Exchange, SECRET};
use crate::wire::beacon;

/// The id that its packet has. It takes it from nobody: nothing is registered.
const NODE: NodeId = NodeId::new(u32::MAX).expect("not 0");

/// Asks for its address and sends itself a packet, as a node would; with the answers that a
/// node would get.
#[must_use]
pub fn script(client: SocketAddr, secret: &[u8; SECRET]) -> Vec<Exchange> {
    let mut question = Vec::new();
    // Nobody's: or a thread that comes to it much later would make a node of it.
    beacon::encode_address_question(&mut question);
    question.extend_from_slice(secret);
    let mut reply = Vec::new();
    beacon::encode_discover_reply(client, &mut reply);

    let mut packet = Vec::new();
    beacon::encode_relay(NODE, NODE, secret, &mut packet);
    let mut delivered = beacon::deliver_header(NODE).to_vec();
    delivered.extend_from_slice(secret);

    vec![Exchange { packet: question, answer: reply }, Exchange { packet, answer: delivered }]
}

//! Delivers a payload to a node in the name of another: for programs that embed the listener and
//! decide themselves who hears what.

use crate::ids::NodeId;
use crate::peers::Record;
use crate::session::Server;
use crate::wire::beacon::deliver_header;

/// Delivers a payload of `sender` to `dest`; false where that is not connected to this server, so
/// that the caller falls back to another way. A packet that does not fit its outbox is dropped and
/// counted, and so is one that is longer than the node takes: 32,763 bytes of payload always fit
/// (SPEC §2.5).
pub fn deliver(server: &Server, sender: NodeId, dest: NodeId, payload: &[u8]) -> bool {
    let head = deliver_header(sender);
    server.write_record(dest.into(), Record { head: &head, body: payload })
}

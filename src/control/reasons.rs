//! What a reason of a drop means, and what to do about it, for somebody who asks why a packet
//! did not arrive.

use crate::metrics::Drop;

/// One sentence or two.
pub(super) const fn why(reason: Drop) -> &'static str {
    match reason {
        Drop::Empty => "a packet without a byte; the sender's software is at fault",
        Drop::UnknownType => "its first byte is no type of the protocol: another version?",
        Drop::Truncated => "it is shorter than its fixed part; the sender's software is at fault",
        Drop::ZeroId => "it names node 0, which is nobody",
        Drop::NotForRelay => "a type that only relays and beacons send",
        Drop::SenderMismatch => "a WebSocket peer sent it in the name of another node",
        Drop::SenderIsWss => {
            "it came over UDP in the name of a node with a WebSocket session: a forgery, or the \
             node's own old process"
        }
        Drop::SenderNotObserved => {
            "it is not from the sender's own endpoint; --udp-sender-check observed asks for that"
        }
        Drop::RateLimited => "the sender is over --relay-rate packets a second",
        Drop::ByteLimited => "the sender is over --relay-bytes bytes a second",
        Drop::UnknownDestination => {
            "nobody has the destination: it is not connected, or its heartbeat is overdue"
        }
        Drop::BeaconLoop => "it came from a beacon, and only a beacon has the destination",
        Drop::OutboxFull => "the destination reads too slowly: its outbox is full, the oldest went",
        Drop::OutboxShare => "the sender holds more than half of the destination's full outbox",
        Drop::OutboxAged => "it waited longer than --outbox-age: the destination reads too slowly",
        Drop::PeerGone => "the destination's session ended before it left",
        Drop::SessionEnded => "the sender's session was replaced or had ended",
        Drop::TooLargeForUdp => "it is longer than a datagram can be, and the way is UDP",
        Drop::TooLargeForPeer => {
            "it is longer than the WebSocket message that the destination takes: 32,768 bytes, \
             unless its login says more"
        }
        Drop::UdpSocketFull => "the relay's UDP send buffer was full: see net.core.wmem_max",
        Drop::UdpSendFailed => "the kernel refused the datagram: no route, or too large",
        Drop::QuietEndpoint => {
            "the destination's UDP address has been silent for two minutes, and gets little until \
             its next heartbeat"
        }
        Drop::ForbiddenEndpoint => "it came from an address that no node may have",
        Drop::EndpointUnchecked => {
            "it came from the relay's own port, while the relay could not read which addresses \
             are its own: is it out of descriptors?"
        }
        Drop::DiscoverLimited => {
            "over --discover-rate Discovers and punches a second of one client address"
        }
        Drop::ClaimOfWssNode => {
            "a punch over UDP of a node that has a WebSocket session, or has just lost one"
        }
        Drop::EndpointsFull => "as many UDP nodes as --max-nodes allows",
        Drop::DiscoverForOther => "a Discover over WebSocket for another node",
        Drop::NotOverWss => "a type that has no meaning over WebSocket",
        Drop::PunchOverWss => "a punch over WebSocket, as daemons in compat mode send all the time",
        Drop::DirectProbe => {
            "a probe for a direct way, as daemons in compat mode send over WebSocket all the time"
        }
        Drop::PunchOff => "an operator has switched punches off (`switch punch on`)",
        Drop::ForeignName => {
            "another relay sent it for a door that is not here, or in a name that no peer of the \
             door can have"
        }
        Drop::RelayOff => "an operator has switched relaying off (`switch relay on`)",
        Drop::DiscoverOff => {
            "an operator has switched Discovers off, so that endpoints are neither made nor moved \
             (`switch discover on`)"
        }
        Drop::PunchRateLimited => "over --punch-rate punches a second, of all nodes together",
        Drop::PunchSourceLimited => "more than one punch a second of one address",
        Drop::PunchUnknownTarget => "a side of the punch has no UDP endpoint here",
        Drop::PunchWithoutGrant => "--require-punch-grant is on, and the punch has no grant",
        Drop::GrantExpired => "the punch's grant has expired: do the clocks agree?",
        Drop::GrantInvalid => "the punch's target did not sign its grant",
        Drop::GrantQueueFull => "too many grants wait for verification",
        Drop::SyncFromStranger => "a Sync from an address that is no listed beacon",
        Drop::SyncLimited => "a Sync too soon after the last, or from one source too many",
        Drop::LookupFull => "too many packets wait for the answer to where the destination is",
        Drop::Overtaken => {
            "the destination came to this relay while the packet waited for a look-up"
        }
        Drop::LookupExpired => "the cluster did not say in time where the destination is",
        Drop::ClusterFull => "too much waits for the relay that has the destination",
        Drop::ClusterAged => {
            "it waited too long for the link to the relay that has the destination"
        }
        Drop::ClusterLost => "the link to the relay that has the destination ended",
        Drop::NotHere => "another relay sent it here, where the destination is no more",
        Drop::SenderElsewhere => "another relay sent it in the name of a node that is elsewhere",
        Drop::Failed => "a panic ended the batch that it was in: a bug of the relay",
    }
}

//! The words that packets are counted under: over what they came, why they were dropped, what
//! became of endpoints.

use super::{Drop, Owner};
use crate::{reasons, words};

words! {
    /// Where a packet came from or went to.
    pub enum Transport {
        /// A peer over WebSocket.
        Wss => "wss",
        /// A peer over datagrams of QUIC.
        Quic => "quic",
        /// A peer over UDP.
        Udp => "udp",
        /// A foreign server, by the name that its door has for it
        /// ([`Traffic::families`](super::Traffic::families)).
        Foreign => "foreign",
        /// Another relay of the cluster.
        Cluster => "cluster",
    }
}

reasons! {
    impl Drop of Owner::Relay;

    SENDER_MISMATCH = "sender_mismatch",
        "a WebSocket peer sent it in the name of another",
        "the sender uses another name than it logged in with";
    RATE_LIMITED = "rate_limited",
        "the sender is over `--relay-rate` packets a second, or over the rate of its door",
        "slow down, or raise it; for a foreign server: list it by the very address and \
         port that it sends from";
    BYTE_LIMITED = "byte_limited",
        "the sender is over `--relay-bytes` bytes a second, or over those of its door",
        "as `rate_limited`";
    UNKNOWN_DESTINATION = "unknown_destination",
        "nobody has the destination, on no relay of the cluster: it is not connected, or its \
         heartbeat is overdue",
        "is it connected (debug log), or silent over UDP for 10 min? Has the foreign server that \
         has it published it (`learnt_nodes`)?";
    OUTBOX_FULL = "outbox_full",
        "the destination reads too slowly: its outbox is full, the oldest went",
        "its network; `--outbox-bytes` buys only delay";
    OUTBOX_SHARE = "outbox_share",
        "the sender holds more than half of the destination's full outbox",
        "the sender is too fast for that destination";
    OUTBOX_AGED = "outbox_aged",
        "it waited longer than `--outbox-age`: the destination reads too slowly",
        "as `outbox_full`";
    PEER_GONE = "peer_gone",
        "the destination's session ended before it left",
        "nothing, if sessions end normally (`wss_sessions_ended_total`)";
    FOREIGN_NAME = "foreign_name",
        "another relay sent it for a door that is not here, or in a name that no peer of the \
         door can have",
        "the same doors on all relays of the cluster; else that relay lies";
    SESSION_ENDED = "session_ended",
        "the sender's session was replaced or had ended",
        "two programs of one identity: `wss_contested_nodes`";
    TOO_LARGE_FOR_PEER = "too_large_for_peer",
        "it is longer than the WebSocket message that the destination takes: 32,768 bytes, \
         unless its login says more (`max_message`), or than the 65,535 bytes that go to another \
         relay",
        "the sender must send less to such peers, which would close with 1009";
    TOO_LARGE_FOR_PATH = "too_large_for_path",
        "it is longer than a datagram of QUIC that the path to the destination carries, and was \
         for `--outbox-age` while that was being found out",
        "packets of a lower MTU at the sender (1,280 bytes in a tunnel always fit 1,500), or \
         WebSocket at the destination";
    UDP_SOCKET_FULL = "udp_socket_full",
        "the relay's UDP send buffer, or the device's queue, was full",
        "`net.core.wmem_max`; the link is full";
    UDP_SEND_FAILED = "udp_send_failed",
        "the kernel refused the datagram: no route, a firewall, another address family, or it \
         is too large",
        "`ip route get`, the firewall's output rules";
    RELAY_OFF = "relay_off",
        "an operator has switched relaying off",
        "`beacon-relay switch relay on`; the audit log says who, and when";
    LOOKUP_FULL = "lookup_full",
        "too many packets wait for the answer to where the destination is: more than 32 for it, \
         or 16 MiB or 16,384 destinations in all",
        "a flood towards peers that are not there";
    LOOKUP_EXPIRED = "lookup_expired",
        "the cluster did not say within 200 ms where the destination is",
        "relays that are far apart, busy or lost: `cluster_lookup_seconds`";
    OVERTAKEN = "overtaken",
        "the destination came to this relay while the packet waited for a look-up; what was \
         sent after it has arrived already",
        "nothing: a few for a peer that moves here";
    CLUSTER_FULL = "cluster_full",
        "too much waits for the relay that has the destination: 4 MiB",
        "see [the cluster](#the-cluster-does-not-come-together)";
    CLUSTER_AGED = "cluster_aged",
        "it waited too long for the link to the relay that has the destination: 2 s",
        "as `cluster_full`";
    CLUSTER_LOST = "cluster_lost",
        "the link to the relay that has the destination ended",
        "as `cluster_full`";
    NOT_HERE = "not_here",
        "another relay sent it here, where the destination is no more",
        "passes at once; else presence is behind: `cluster_nacks_sent_total`";
    SENDER_ELSEWHERE = "sender_elsewhere",
        "another relay sent it in the name of a peer that has a session here, or on a third relay",
        "a peer that moves; else a forgery over UDP at that relay";
    FAILED = "failed",
        "a panic ended the batch that it was in: a bug of the relay",
        "report it, with the log's backtrace (`udp_panics_total`, `wss_panics_total`, \
         `cluster_panics_total`)";
}

words! {
    /// What happened to the endpoints of peers over UDP.
    pub enum EndpointEvent {
        /// A peer got its first endpoint.
        Registered => "registered",
        /// A peer's endpoint moved.
        Moved => "moved",
        /// A move came too soon after the last: answered, not followed.
        MoveLimited => "move_limited",
        /// A claim of a peer that has, or just had, a WSS session: not followed.
        Held => "held",
        /// A key that is none, or contradicts the known one, was ignored.
        KeyIgnored => "key_ignored",
        /// An endpoint gave way to a new one.
        Evicted => "evicted",
        /// An endpoint was silent for too long.
        Expired => "expired",
    }
}

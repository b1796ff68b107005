//! Why this door drops packets.

use crate::metrics::Owner;
use crate::reasons;
use crate::wire::name::Realm;

/// Why packets of nodes and beacons are not passed on, beside what every door's are dropped for.
#[derive(Debug)]
pub struct PilotDrop;

reasons! {
    impl PilotDrop of Owner::AmongRelay(Realm::PILOT);

    EMPTY = "empty",
        "a packet without a byte; the sender's software is at fault",
        "a broken sender, or a scanner";
    UNKNOWN_TYPE = "unknown_type",
        "its first byte is no type of the protocol: another version?",
        "as `empty`";
    TRUNCATED = "truncated",
        "it is shorter than its fixed part; the sender's software is at fault",
        "as `empty`";
    ZERO_ID = "zero_id",
        "it names node 0, which is nobody",
        "as `empty`";
    NOT_FOR_RELAY = "not_for_relay",
        "a type that only relays and beacons send",
        "a broken sender; somebody reflects";
    SENDER_IS_WSS = "sender_is_wss",
        "it came over UDP in the name of a node with a WebSocket session: a forgery, or the \
         node's own old process",
        "a forgery, or a daemon that uses both ways at once";
    SENDER_NOT_OBSERVED = "sender_not_observed",
        "it is not from the sender's own endpoint; `--udp-sender-check observed` asks for that",
        "a symmetric NAT: switch the check off";
    BEACON_LOOP = "beacon_loop",
        "it came from a beacon, and only a beacon has the destination",
        "old gossip: passes within 90 s";
    TOO_LARGE_FOR_UDP = "too_large_for_udp",
        "it is longer than a datagram can be (65,507 bytes), and the way is UDP",
        "the sender must send less to UDP nodes";
    QUIET_ENDPOINT = "quiet_endpoint",
        "the destination's UDP address has been silent for two minutes, and gets no more than \
         10 a second until its next heartbeat",
        "the node must send its heartbeat (60 s)";
    FORBIDDEN_ENDPOINT = "forbidden_endpoint",
        "it came from an address that no node may have: our own, a beacon's, loopback, \
         multicast, port 0",
        "a node on the relay's own machine and port, or a forgery";
    ENDPOINT_UNCHECKED = "endpoint_unchecked",
        "it came from the relay's own port, while the relay could not read for 30 s, or not \
         yet, which addresses are its own",
        "is it out of descriptors? `local_address_failures_total`";
    DISCOVER_LIMITED = "discover_limited",
        "over `--discover-rate` Discovers and punches a second of one client address",
        "a flood or a forgery; a NAT with more than 12,000 nodes: raise it";
    KICKED = "kicked",
        "a Discover or a punch over UDP of a node that an operator has kicked for some time",
        "`kick N --for 0s` lets it in again";
    CLAIM_OF_WSS_NODE = "claim_of_wss_node",
        "a punch over UDP of a node that has a WebSocket session, or has lost one within 90 s \
         at another address",
        "wait, or let it use one way";
    ENDPOINTS_FULL = "endpoints_full",
        "as many UDP nodes as `--max-nodes` allows, and none can be evicted",
        "raise it";
    DISCOVER_FOR_OTHER = "discover_for_other",
        "a Discover over WebSocket for another node",
        "a broken daemon";
    NOT_OVER_WSS = "not_over_wss",
        "a type that has no meaning over WebSocket: a Sync",
        "a broken daemon";
    PUNCH_OVER_WSS [expected] = "punch_over_wss",
        "a punch over WebSocket, as daemons in compat mode send all the time: one every 15 s \
         for each node that they reach through the relay",
        "none: nothing is wrong";
    DIRECT_PROBE [expected] = "direct_probe",
        "a probe for a direct way, as daemons in compat mode send over WebSocket all the time: \
         about five every 15 s for each node that they reach through the relay",
        "none: nothing is wrong";
    PUNCH_OFF = "punch_off",
        "an operator has switched punches off",
        "`beacon-relay switch punch on`; the audit log says who, and when";
    DISCOVER_OFF = "discover_off",
        "an operator has switched Discovers off, so that endpoints are neither made nor moved",
        "`beacon-relay switch discover on`; the audit log says who, and when";
    PUNCH_RATE_LIMITED = "punch_rate_limited",
        "over `--punch-rate` punches a second, of all nodes together",
        "raise it; use grants, which pass it";
    PUNCH_SOURCE_LIMITED = "punch_source_limited",
        "more than one punch a second of one address (IPv4, or IPv6 /64)",
        "`--punch-allow` for a NAT with many nodes";
    PUNCH_UNKNOWN_TARGET = "punch_unknown_target",
        "a side of the punch has no UDP endpoint here",
        "is it over UDP, and here?";
    PUNCH_WITHOUT_GRANT = "punch_without_grant",
        "`--require-punch-grant` is on, and the punch has no grant",
        "the daemon sends none";
    GRANT_EXPIRED = "grant_expired",
        "the punch's grant has expired",
        "do the clocks agree?";
    GRANT_INVALID = "grant_invalid",
        "the punch's target did not sign its grant for this requester",
        "clocks; the target's key in the directory";
    GRANT_QUEUE_FULL = "grant_queue_full",
        "too many grants wait for verification: 256",
        "a flood, or a slow registry";
    SYNC_FROM_STRANGER = "sync_from_stranger",
        "a Sync from an address that is no listed beacon",
        "`--peers`, or the registry; does the name resolve?";
    SYNC_LIMITED = "sync_limited",
        "more than one Sync a second of one source, more than one new port a second of one \
         address, or a source too many (64 in all, 4 of one address)",
        "a broken beacon, or forged Syncs";
}

//! The words that packets are counted under: over what they came, why they were dropped, what
//! else they were good for.

use crate::words;

words! {
    /// Where a packet came from or went to.
    pub enum Transport {
        /// A peer over WebSocket.
        Wss => "wss",
        /// A node over UDP.
        Udp => "udp",
        /// A beacon of the fleet.
        Beacon => "beacon",
        /// Another relay of the cluster.
        Cluster => "cluster",
    }
}

words! {
    /// Why a packet was not passed on.
    pub enum Drop {
        /// A packet without a byte.
        Empty => "empty",
        /// A type byte that is not in the specification.
        UnknownType => "unknown_type",
        /// A packet shorter than its fixed part.
        Truncated => "truncated",
        /// Node id 0.
        ZeroId => "zero_id",
        /// A type that only beacons send.
        NotForRelay => "not_for_relay",
        /// A packet over WSS whose sender is not the authenticated node.
        SenderMismatch => "sender_mismatch",
        /// A packet over UDP in the name of a node that has a WSS session.
        SenderIsWss => "sender_is_wss",
        /// A packet that does not come from the sender's own endpoint.
        SenderNotObserved => "sender_not_observed",
        /// Over the packets a second of its source.
        RateLimited => "rate_limited",
        /// Over the bytes a second of its source.
        ByteLimited => "byte_limited",
        /// Nobody here or at a beacon has the destination.
        UnknownDestination => "unknown_destination",
        /// A packet from a beacon for a node of another beacon.
        BeaconLoop => "beacon_loop",
        /// The oldest of a full outbox.
        OutboxFull => "outbox_full",
        /// The arrival of a sender that holds most of a full outbox.
        OutboxShare => "outbox_share",
        /// Waited in an outbox beyond its age.
        OutboxAged => "outbox_aged",
        /// The peer's session ended before the packet left.
        PeerGone => "peer_gone",
        /// A packet from another relay for a door that is not here, or of a name that is not the
        /// door's.
        ForeignName => "foreign_name",
        /// A frame that a session sent after it was replaced or ended.
        SessionEnded => "session_ended",
        /// Longer than a datagram can be.
        TooLargeForUdp => "too_large_for_udp",
        /// Longer than the message that the peer takes over WSS.
        TooLargeForPeer => "too_large_for_peer",
        /// The UDP socket's send buffer is full.
        UdpSocketFull => "udp_socket_full",
        /// The kernel refused a datagram.
        UdpSendFailed => "udp_send_failed",
        /// Over the cap towards an address that has been silent for two minutes.
        QuietEndpoint => "quiet_endpoint",
        /// A claim from an address that no endpoint may have.
        ForbiddenEndpoint => "forbidden_endpoint",
        /// A claim from our own port, while our own addresses are not known.
        EndpointUnchecked => "endpoint_unchecked",
        /// Over the Discovers and punches a second of the client address.
        DiscoverLimited => "discover_limited",
        /// A punch over UDP of a node that has, or has just lost, a WSS session.
        ClaimOfWssNode => "claim_of_wss_node",
        /// The endpoint table is full and nobody in it gives way.
        EndpointsFull => "endpoints_full",
        /// A Discover over WSS for another node.
        DiscoverForOther => "discover_for_other",
        /// A packet that has no meaning over WSS.
        NotOverWss => "not_over_wss",
        /// A punch over WSS: daemons in compat mode send one all the time.
        PunchOverWss => "punch_over_wss",
        /// A probe for a direct way to another node: likewise.
        DirectProbe => "direct_probe",
        /// An operator has switched punches off.
        PunchOff => "punch_off",
        /// An operator has switched relaying off.
        RelayOff => "relay_off",
        /// An operator has switched Discovers off.
        DiscoverOff => "discover_off",
        /// Over the punches a second of the relay.
        PunchRateLimited => "punch_rate_limited",
        /// Over the punches a second of the source address.
        PunchSourceLimited => "punch_source_limited",
        /// The target of a punch has no endpoint here.
        PunchUnknownTarget => "punch_unknown_target",
        /// A punch without a grant where one is required.
        PunchWithoutGrant => "punch_without_grant",
        /// A punch whose grant has expired.
        GrantExpired => "grant_expired",
        /// A punch whose grant the target did not sign.
        GrantInvalid => "grant_invalid",
        /// No room to verify another grant.
        GrantQueueFull => "grant_queue_full",
        /// A Sync from an address that is no known beacon.
        SyncFromStranger => "sync_from_stranger",
        /// A Sync too soon after the last from the same beacon, or from one beacon too many.
        SyncLimited => "sync_limited",
        /// One packet too many for a node that is being looked up.
        LookupFull => "lookup_full",
        /// Waited too long for the answer of a look-up.
        LookupExpired => "lookup_expired",
        /// Waited for a look-up while its node came here: later packets would overtake it.
        Overtaken => "overtaken",
        /// The oldest of a full outbox towards another relay.
        ClusterFull => "cluster_full",
        /// Waited in the outbox towards another relay beyond its age.
        ClusterAged => "cluster_aged",
        /// The link to another relay ended before the packet left.
        ClusterLost => "cluster_lost",
        /// A packet from another relay for a node that is not here.
        NotHere => "not_here",
        /// A packet from another relay in the name of a node that is elsewhere.
        SenderElsewhere => "sender_elsewhere",
        /// A panic ended its batch before it was passed on.
        Failed => "failed",
    }
}

impl Drop {
    /// Whether packets are dropped for this reason wherever daemons are in compat mode, and
    /// nothing is wrong: people are not told of them, and no alert counts them.
    #[must_use]
    pub const fn is_expected(self) -> bool {
        matches!(self, Self::PunchOverWss | Self::DirectProbe)
    }
}

words! {
    /// What a packet that is not passed on was good for.
    pub enum Handled {
        /// A Discover was answered.
        Discover => "discover",
        /// A punch was arranged.
        Punch => "punch",
        /// A beacon's nodes were taken in.
        Sync => "sync",
    }
}

words! {
    /// What happened to the endpoints of UDP nodes.
    pub enum EndpointEvent {
        /// A node got its first endpoint.
        Registered => "registered",
        /// A node's endpoint moved.
        Moved => "moved",
        /// A move came too soon after the last: answered, not followed.
        MoveLimited => "move_limited",
        /// A claim of a node that has, or just had, a WSS session: not followed.
        Held => "held",
        /// A key that is none, or contradicts the known one, was ignored.
        KeyIgnored => "key_ignored",
        /// An endpoint gave way to a new one.
        Evicted => "evicted",
        /// An endpoint was silent for too long.
        Expired => "expired",
    }
}

//! What the listeners have counted: for a program that embeds them, and for a scrape.

use std::sync::Arc;
use std::time::Instant;

use super::{Counters, Outcome, Server, Shared};
use crate::metrics::{Transport, family};
use crate::peers::End;

/// What the listeners have counted; see [`Server::metrics`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Requests that became a WebSocket.
    pub upgrades_ok: u64,
    /// Requests that did not, health checks apart.
    pub upgrades_failed: u64,
    /// Logins that succeeded.
    pub authentications_ok: u64,
    /// Logins that did not, for whatever reason.
    pub authentications_failed: u64,
    /// Binary frames received after the login.
    pub frames_in: u64,
    /// Binary frames sent.
    pub frames_out: u64,
    /// Sessions that ended because nothing was heard of the peer.
    pub idle_disconnects: u64,
    /// Nodes that are connected.
    pub active_peers: usize,
}

impl Server {
    /// What was counted so far.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        let Counters { connections, ended, .. } = &*self.shared.counters;
        let count = |outcome| connections.of(outcome).value();
        let failed_logins = [
            Outcome::AuthFail,
            Outcome::AuthTimeout,
            Outcome::Unavailable,
            Outcome::Gone,
            Outcome::Violation,
            Outcome::CrowdedOut,
            Outcome::Superseded,
        ];
        let refused_upgrades = [
            Outcome::RateLimited,
            Outcome::AtCapacity,
            Outcome::OriginRefused,
            Outcome::BadUpgrade,
            Outcome::NotFound,
            Outcome::TlsFailed,
            Outcome::BadRequest,
            Outcome::Draining,
        ];
        let authentications_ok = count(Outcome::AuthOk);
        let authentications_failed = failed_logins.into_iter().map(count).sum();
        let (relayed, ours) = self.shared.traffic.packets_out(Transport::Wss);
        Snapshot {
            upgrades_ok: authentications_ok + authentications_failed,
            upgrades_failed: refused_upgrades.into_iter().map(count).sum(),
            authentications_ok,
            authentications_failed,
            frames_in: self.shared.traffic.packets_in(Transport::Wss),
            frames_out: relayed + ours,
            idle_disconnects: ended.of(End::Idle).value(),
            active_peers: self.peer_count(),
        }
    }

    /// A function that appends the door's families, for a registry that outlives this value.
    pub fn exporter(&self) -> impl Fn(&mut Vec<prometheus::proto::MetricFamily>) + use<> {
        let shared = Arc::clone(&self.shared);
        move |families| shared.families(families)
    }
}

impl Shared {
    fn families(&self, families: &mut Vec<prometheus::proto::MetricFamily>) {
        self.counters.families(families);
        self.of_doors.families(families);
        if self.has_quic {
            families.push(family::counter(
                "beacon_relay_quic_retries_total",
                "First packets over QUIC that were answered by a token to come back with.",
                &self.counters.quic_retries,
            ));
            families.push(family::labelled(
                "beacon_relay_quic_datagrams_lost_total",
                "Datagrams of ended sessions that QUIC had and lost, before or after the relay.",
                "reason",
                &self.counters.quic_lost,
            ));
        }
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let value = |number: usize| number as f64;
        families.push(family::gauge_value(
            "pilot_beacon_wss_active",
            "Nodes that are connected over WebSocket.",
            value(self.table.session_count()),
        ));
        families.push(family::gauge(
            "pilot_beacon_wss_sessions",
            "Sessions, those that are replaced or closing among them.",
            &self.sessions,
        ));
        families.push(family::gauge_value(
            "pilot_beacon_wss_waiting",
            "Connections that have not logged in.",
            value(self.gate.waiting()),
        ));
        families.push(family::gauge_value(
            "pilot_beacon_wss_delayed",
            "Logins that wait, since sessions of their node replace each other.",
            value(self.table.delayed()),
        ));
        families.push(family::gauge_value(
            "pilot_beacon_wss_contested_nodes",
            "Nodes whose sessions have replaced each other four times in 90 s.",
            value(self.table.contested(Instant::now())),
        ));
    }
}

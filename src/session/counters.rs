//! What listeners count.

use std::time::Duration;

use prometheus::proto::MetricFamily;

use crate::metrics::{Buckets, Counter, Histogram, Labelled, family};
use crate::peers::End;
use crate::words;

words! {
    /// How an attempt to connect ended, or that it became a session.
    pub enum Outcome {
        /// The login succeeded.
        AuthOk => "auth_ok",
        /// The login was refused.
        AuthFail => "auth_fail",
        /// The login was not complete in time.
        AuthTimeout => "auth_timeout",
        /// The directory could not say whose key it is.
        Unavailable => "directory_unavailable",
        /// Too many upgrades of one client.
        RateLimited => "rate_limited",
        /// As many peers as there may be.
        AtCapacity => "at_capacity",
        /// A browser's page that may not connect.
        OriginRefused => "origin_refused",
        /// Not an upgrade as RFC 6455 has it.
        BadUpgrade => "bad_upgrade",
        /// Another path than the public ones.
        NotFound => "not_found",
        /// Not HTTP, headers over the limit, or a head that may be read in two ways.
        BadRequest => "bad_request",
        /// The client went away before its login was complete.
        Gone => "gone",
        /// The client broke the framing rules before its login was complete.
        Violation => "violation",
        /// Gave way to others while it had not logged in.
        CrowdedOut => "crowded_out",
        /// Another login of the same node, of a later connection, came before it.
        Superseded => "superseded",
        /// The relay is stopping.
        Draining => "draining",
    }
}

/// From one signature (32 µs) to the registry's deadline (3 s) and the login's (10 s).
const LOGIN_TIME: Buckets = &[
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// The door's counters.
#[derive(Debug)]
pub struct Counters {
    /// Attempts to connect.
    pub connections: Labelled<Outcome>,
    /// Ended sessions.
    pub ended: Labelled<End>,
    /// Requests that a trusted proxy passed on without saying for whom.
    pub not_forwarded: Counter,
    /// Connections that could not be accepted, most often for want of descriptors.
    pub accept_errors: Counter,
    /// Sessions that took the place of another.
    pub replacements: Counter,
    /// Logins that had to wait, since sessions of their node replace each other.
    pub delayed: Counter,
    /// Panics that ended one connection.
    pub panics: Counter,
    /// From the accepted connection to `auth_ok`.
    pub login_time: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            connections: Labelled::default(),
            ended: Labelled::default(),
            not_forwarded: Counter::default(),
            accept_errors: Counter::default(),
            replacements: Counter::default(),
            delayed: Counter::default(),
            panics: Counter::default(),
            login_time: Histogram::new(LOGIN_TIME),
        }
    }
}

impl Counters {
    /// Appends the door's families to a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        families.extend([
            family::labelled(
                "pilot_beacon_wss_connections_total",
                "Attempts to connect, by how they ended.",
                "outcome",
                &self.connections,
            ),
            family::labelled(
                "pilot_beacon_wss_sessions_ended_total",
                "Ended sessions, by reason.",
                "reason",
                &self.ended,
            ),
            family::counter(
                "pilot_beacon_wss_idle_disconnects_total",
                "Sessions that ended because nothing was heard of the peer.",
                self.ended.of(End::Idle),
            ),
            family::counter(
                "pilot_beacon_wss_replacements_total",
                "Sessions that took the place of another of the same node.",
                &self.replacements,
            ),
            family::counter(
                "pilot_beacon_wss_delayed_total",
                "Logins that had to wait, since sessions of their node replace each other.",
                &self.delayed,
            ),
            family::counter(
                "pilot_beacon_wss_not_forwarded_total",
                "Requests from a trusted proxy without X-Forwarded-For.",
                &self.not_forwarded,
            ),
            family::counter(
                "pilot_beacon_wss_accept_errors_total",
                "Connections that could not be accepted.",
                &self.accept_errors,
            ),
            family::counter(
                "pilot_beacon_wss_panics_total",
                "Panics that ended one connection.",
                &self.panics,
            ),
            self.login_time.family(
                "pilot_beacon_wss_authentication_seconds",
                "Time from an accepted connection to its accepted login.",
            ),
        ]);
    }
}

//! What listeners count.

use std::time::Duration;

use prometheus::proto::MetricFamily;

use crate::metrics::{Buckets, Counter, Gauge, Histogram, Labelled, Word as _, family};
use crate::net::tls::{Failure, Kind};
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
        /// A TLS handshake that failed: `beacon_relay_tls_handshakes_total` says why.
        TlsFailed => "tls_failed",
        /// The challenge of an ACME authority, which was answered.
        AcmeChallenge => "acme_challenge",
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
        /// An operator has kicked the peer for some time.
        Kicked => "kicked",
        /// The relay is stopping.
        Draining => "draining",
    }
}

words! {
    /// How a TLS handshake ended.
    pub(super) enum Handshake {
        /// With all that it takes.
        Full => "full",
        /// With the ticket of an earlier one.
        Resumed => "resumed",
        /// What came was no TLS, as of a client that speaks plain HTTP.
        NotTls => "not_tls",
        /// No version, cipher or key exchange that both sides have.
        Incompatible => "incompatible",
        /// The client sent an alert: it does not trust the certificate, most often.
        ClientRefused => "client_refused",
        /// The client broke the rules.
        Invalid => "invalid",
        /// No certificate has come from the ACME authority yet.
        NoCertificate => "no_certificate",
        /// The challenge of an ACME authority was answered.
        AcmeChallenge => "acme_challenge",
        /// The client went away.
        Gone => "gone",
        /// Not done in time, or crowded out.
        NotDone => "not_done",
    }
}

words! {
    /// Why QUIC has lost a datagram of a session, which no account of packets has.
    pub(super) enum QuicLoss {
        /// It had come, and more came before it was read, or the session ended.
        Unread => "unread",
        /// It had left the outbox, and was too long for the path, or the session ended.
        Unsent => "unsent",
    }
}

impl From<Kind> for Handshake {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Full => Self::Full,
            Kind::Resumed => Self::Resumed,
        }
    }
}

impl From<&Failure> for Handshake {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Gone | Failure::Lost(_) => Self::Gone,
            Failure::NotTls => Self::NotTls,
            Failure::NoCertificate => Self::NoCertificate,
            Failure::Challenge => Self::AcmeChallenge,
            Failure::Tls(
                rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol,
            ) => Self::Incompatible,
            Failure::Tls(rustls::Error::AlertReceived(_)) => Self::ClientRefused,
            Failure::Tls(_) | Failure::TooLong => Self::Invalid,
        }
    }
}

impl Outcome {
    /// Whether a client came so far that its door is known.
    const fn is_of_a_login(self) -> bool {
        match self {
            Self::AuthOk
            | Self::AuthFail
            | Self::AuthTimeout
            | Self::Unavailable
            | Self::AtCapacity
            | Self::Gone
            | Self::Violation
            | Self::CrowdedOut
            | Self::Superseded
            | Self::Kicked
            | Self::Draining => true,
            Self::RateLimited
            | Self::OriginRefused
            | Self::BadUpgrade
            | Self::NotFound
            | Self::TlsFailed
            | Self::AcmeChallenge
            | Self::BadRequest => false,
        }
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

/// What all listeners count together.
#[derive(Debug)]
pub struct Counters {
    /// Attempts to connect.
    pub connections: Labelled<Outcome>,
    /// TLS handshakes.
    pub(super) handshakes: Labelled<Handshake>,
    /// Ended sessions.
    pub ended: Labelled<End>,
    /// Requests that a trusted proxy passed on without saying for whom.
    pub not_forwarded: Counter,
    /// Connections that could not be accepted, most often for want of descriptors.
    pub accept_errors: Counter,
    /// Sessions that took the place of another.
    pub replacements: Counter,
    /// First packets over QUIC whose sender had to show that it is where it says.
    pub quic_retries: Counter,
    /// Datagrams that QUIC has lost.
    pub(super) quic_lost: Labelled<QuicLoss>,
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
            handshakes: Labelled::default(),
            ended: Labelled::default(),
            not_forwarded: Counter::default(),
            accept_errors: Counter::default(),
            replacements: Counter::default(),
            quic_retries: Counter::default(),
            quic_lost: Labelled::default(),
            delayed: Counter::default(),
            panics: Counter::default(),
            login_time: Histogram::new(LOGIN_TIME),
        }
    }
}

impl Counters {
    /// Appends the families to a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        families.extend([
            family::labelled(
                "pilot_beacon_wss_connections_total",
                "Attempts to connect, by how they ended.",
                "outcome",
                &self.connections,
            ),
            family::labelled(
                "beacon_relay_tls_handshakes_total",
                "TLS handshakes of clients, by how they ended.",
                "outcome",
                &self.handshakes,
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

/// What is counted for one door.
#[derive(Debug)]
pub(super) struct OfDoor {
    door: &'static str,
    /// Logins that began, by how they ended.
    pub(super) logins: Labelled<Outcome>,
    /// Ended sessions.
    pub(super) ended: Labelled<End>,
    /// Sessions, those that are replaced or closing among them.
    pub(super) sessions: Gauge,
}

/// What is counted for each door that a listener speaks.
#[derive(Debug, Default)]
pub(super) struct OfDoors(Vec<OfDoor>);

impl OfDoors {
    /// Nothing yet, of each door once.
    pub(super) fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        let mut doors = Vec::new();
        for door in names {
            if !doors.iter().any(|known: &OfDoor| known.door == door) {
                let (logins, ended) = Default::default();
                doors.push(OfDoor { door, logins, ended, sessions: Gauge::default() });
            }
        }
        Self(doors)
    }

    /// The counters of a door.
    pub(super) fn of(&self, door: &str) -> &OfDoor {
        let found = self.0.iter().find(|counters| counters.door == door);
        found.expect("each door of a listener is counted")
    }

    /// Appends the families to a scrape.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let logins = self.0.iter().flat_map(|of| {
            let reached = Outcome::ALL.iter().filter(|outcome| outcome.is_of_a_login());
            reached.map(|outcome| ([of.door, outcome.word()], of.logins.of(*outcome).value()))
        });
        let logins: Vec<_> = logins.collect();
        let ended = self.0.iter().flat_map(|of| {
            End::ALL.iter().map(|end| ([of.door, end.word()], of.ended.of(*end).value()))
        });
        let ended: Vec<_> = ended.collect();
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let sessions: Vec<_> =
            self.0.iter().map(|of| ([of.door], of.sessions.value() as f64)).collect();
        families.extend([
            family::counts(
                "beacon_relay_logins_total",
                "Logins over WebSocket, by door and by how they ended.",
                &["door", "outcome"],
                logins.iter().map(|(labels, count)| (labels.as_slice(), *count)),
            ),
            family::counts(
                "beacon_relay_sessions_ended_total",
                "Ended sessions, by door and reason.",
                &["door", "reason"],
                ended.iter().map(|(labels, count)| (labels.as_slice(), *count)),
            ),
            family::gauge_values(
                "beacon_relay_sessions",
                "Sessions by door, those that are replaced or closing among them.",
                &["door"],
                sessions.iter().map(|(labels, count)| (labels.as_slice(), *count)),
            ),
        ]);
    }
}

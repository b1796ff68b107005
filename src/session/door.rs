//! What a protocol over WebSocket is to the session machinery: how a connection logs in, what its messages mean, and how an end reads on its wire.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;
use serde::Serialize;

use super::{
    CallEnd, CallId, Close, Conversation, Dialect, Kind, Messages, Outcome, Refusal, Session,
    Status, TopicOrder, Topics, farewell, refusal,
};
use crate::config::Config;
use crate::net::entrance::Duplex;
use crate::peers::{DoorData, End, Overflow, Principal, Takeover};
use crate::wire::Framing;
use crate::wire::name::Name;
use crate::wire::websocket::Violation;

/// What a door answers later, on the connection's own task.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A protocol that listeners speak. All connections share one value of it.
///
/// The session machinery does the rest once for all doors: the upgrade, the limits before the
/// login, framing, pings and timeouts, the bounded outbox, the drain.
pub trait Door: Send + Sync + 'static {
    /// The word for it in configuration, names and metrics.
    fn name(&self) -> &'static str;

    /// The subprotocol that is agreed to where a client offers it.
    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    /// How its clients come over QUIC, where each message is a datagram; nothing where they do
    /// not. Such a door has a heartbeat.
    fn quic(&self) -> Option<Quic> {
        None
    }

    /// Whether pages of this origin may connect, beside those of the listener's own host.
    fn admits_origin(&self, _origin: &str) -> bool {
        false
    }

    /// What it is over HTTP/2, where its clients call methods of gRPC; nothing where they do not.
    fn calls(&self) -> Option<&dyn Calls> {
        None
    }

    /// In what its WebSocket is not as other doors'.
    fn dialect(&self) -> Dialect {
        Dialect::default()
    }

    /// Longest message of a login, in bytes.
    fn max_greeting(&self) -> usize;

    /// Longest message after the login, in bytes; at most [`super::MAX_MESSAGE`].
    fn max_message(&self) -> usize;

    /// Logs a connection in. Everything until the answer is under one deadline.
    ///
    /// # Errors
    /// Why the client is sent away.
    fn greet<'a>(
        &'a self,
        conversation: &'a mut Conversation<'_>,
    ) -> Answer<'a, Result<Welcome, Refusal>>;

    /// Whether a login that has waited for its turn is still good. The answer has as much time as
    /// a login.
    ///
    /// # Errors
    /// Why it is not.
    fn greet_again<'a>(&'a self, _welcome: &'a Welcome) -> Answer<'a, Result<(), Refusal>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Judges a message of a client that waits for its turn.
    ///
    /// # Errors
    /// Why the client is sent away.
    fn while_waiting(&self, _kind: Kind, _message: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    /// Queues the acceptance. Nobody can find the session yet, so nothing precedes it.
    fn accept(&self, session: &Session);

    /// The session can be found from here on.
    fn opened(&self, _session: &Arc<Session>) {}

    /// The session cannot be found any more; another of the same peer may be there.
    fn closed(&self, _session: &Arc<Session>) {}

    /// What stands for pings in sessions of the door; WebSocket's own where it has none.
    fn heartbeat(&self) -> Option<Heartbeat> {
        None
    }

    /// Takes messages of one kind that one read brought. It runs on the session's own task and
    /// must not wait: meanwhile that peer is not read.
    fn messages(&self, session: &Arc<Session>, messages: Messages<'_>, now: Instant);

    /// Goes on by these settings: those that can change while the relay runs.
    fn update(&self, _config: &Config) {}

    /// Appends the door's own families to a scrape.
    fn families(&self, _families: &mut Vec<MetricFamily>) {}

    /// What the door does by the clock, from its start on. A task that ends, or panics, ends the
    /// relay: it cannot do without.
    fn tasks(&self) -> Vec<Task> {
        Vec::new()
    }

    /// Adds the door's main numbers, by the names that they have in the answer to `status`.
    fn numbers(&self, _numbers: &mut BTreeMap<&'static str, usize>) {}

    /// The first of the door's topics in this order, `most` at most; nothing where it has none such.
    fn topics(&self, _order: TopicOrder, _most: usize) -> Option<Topics> {
        None
    }

    /// What operators call a foreign server of the door's network; nothing where it has none.
    fn foreign_server(&self) -> Option<&'static str> {
        None
    }

    /// Whether the door has a credential to check a peer's login with; nothing where it keeps no
    /// list of peers. After 5 s nobody waits for the answer.
    fn knows(&self, _peer: Name) -> Answer<'_, Option<Known>> {
        Box::pin(std::future::ready(None))
    }

    /// What a peer's login is checked with, and where the door has that from, without asking
    /// anybody; nothing where it keeps no list of peers.
    fn enrolment(&self, _peer: Name) -> Option<Enrolment> {
        None
    }

    /// Tells a peer that is here that something waits for it elsewhere.
    ///
    /// # Errors
    /// Why it was not told.
    fn notify(&self, peer: Name, _now: Instant) -> Result<Notified, NotNotified> {
        Err(NotNotified::Refused(format!("{peer} cannot be notified: its door has no notices")))
    }

    /// Whether the door has the relay visit it.
    fn is_visited(&self) -> bool {
        false
    }

    /// Does what a client of the door does, over a connection to the relay itself that is expected
    /// ([`super::Server::expect`]): logs in, sends itself a message, waits for it, and leaves.
    ///
    /// # Errors
    /// The relay did not serve it.
    fn visit(&self, _stream: Box<dyn Duplex>) -> Answer<'_, Result<(), VisitError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// What a client is told that is sent away before it has a session; nothing where the
    /// connection is gone.
    fn refusal(&self, outcome: Outcome) -> Option<Close> {
        refusal(outcome)
    }

    /// The last message to a peer whose session ends, in front of what it is told.
    fn parting(&self, _end: End) -> Option<&'static [u8]> {
        None
    }

    /// What a peer is told when its session ends; nothing where the connection is gone.
    fn farewell(&self, end: End, violation: Option<Violation>) -> Option<Close> {
        farewell(end, violation)
    }
}

/// What a door is over HTTP/2: methods of gRPC, each call a stream of bytes in both directions.
///
/// A connection is one session. What a call is to be answered leaves through the session's outbox, by
/// [`http2::push_data`](super::http2::push_data) and [`http2::push_end`](super::http2::push_end).
pub trait Calls: Send + Sync {
    /// A call of the method that this path names. One that is taken has to be ended by the door.
    ///
    /// # Errors
    /// What the caller is told instead.
    fn begin(&self, session: &Arc<Session>, call: CallId, path: &str) -> Result<(), Status>;

    /// Bytes of a call, in order. It runs on the session's own task and must not wait.
    fn data(&self, session: &Arc<Session>, call: CallId, data: &[u8], now: Instant);

    /// The peer says nothing more in a call.
    fn ended(&self, session: &Arc<Session>, call: CallId, how: CallEnd);

    /// What a caller is told whose login was refused, for this reason.
    fn refuse(&self, path: &str, outcome: Outcome) -> Status;

    /// What the calls of a session are told that ends.
    fn farewell(&self, end: End) -> Status;
}

/// What a door is over QUIC.
#[derive(Clone, Copy, Debug)]
pub struct Quic {
    /// The protocol that its clients ask for.
    pub protocol: &'static str,
    /// The code of the close that each connection ends with, whatever ended it.
    pub code: u32,
    /// The reason of that close.
    pub reason: &'static str,
}

/// Messages that show a peer that the relay is alive.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// The message.
    pub message: &'static [u8],
    /// The time between two.
    pub interval: Duration,
    /// After this time without anything from the peer its session ends.
    pub silence: Duration,
}

/// Something that goes on until the relay stops.
pub struct Task {
    /// What the log calls it.
    pub name: &'static str,
    /// What it does; dropped when the relay stops.
    pub work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Task {
    /// A task of this name.
    pub fn new(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { name, work: Box::pin(work) }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why the relay's own client was not served.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VisitError {
    /// It was not let in.
    #[error("not logged in: {0}")]
    Login(String),
    /// Its session was not what it should be.
    #[error("its session: {0}")]
    Session(String),
}

/// Whether a door has a peer's credential.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Known {
    /// It has.
    Known,
    /// It has not: the peer cannot log in.
    Unknown,
    /// It cannot tell at this time.
    Unavailable,
}

/// What a peer's login is checked with.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Enrolment {
    /// Where the door has its list from, for people.
    pub source: String,
    /// Whether that is what `enroll` writes.
    pub is_embedded: bool,
    /// The public half of the peer's credential, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// How a peer was notified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notified {
    /// Over its session.
    Session,
    /// In a datagram, at its endpoint.
    Endpoint(SocketAddr),
}

/// Why a peer was not notified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotNotified {
    /// It is not here.
    NotHere,
    /// For this reason, which is a sentence.
    Refused(String),
}

/// A login that succeeded.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// Who the peer has proved to be.
    pub principal: Principal,
    /// What happens to an older session of the same peer. At another relay of the cluster it is
    /// the homes of the peer that judge by it, once this session has begun: for a round trip it
    /// is served although it may not stay.
    pub takeover: Takeover,
    /// How records are laid out.
    pub framing: Framing,
    /// What happens where a record does not fit the outbox.
    pub overflow: Overflow,
    /// Longest message that the peer takes, in bytes.
    pub takes: usize,
    /// Most bytes that wait for the peer, as [`Limits::bytes`](crate::peers::Limits) has it; as
    /// many as the settings say where the door says nothing.
    pub outbox_bytes: Option<usize>,
    /// Whether the relay waits for the peer as long as its connection lives: no pings, and no end
    /// for one that says or takes nothing; a drain closes it last. For peers that never notice a
    /// connection that ended.
    pub is_patient: bool,
    /// What the door keeps with the session.
    pub data: DoorData,
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A door that waits for one message and lets nobody in.
    pub(in crate::session) struct Deaf;

    impl Door for Deaf {
        fn name(&self) -> &'static str {
            "deaf"
        }
        fn max_greeting(&self) -> usize {
            1_024
        }
        fn max_message(&self) -> usize {
            crate::session::MAX_MESSAGE
        }
        fn greet<'a>(
            &'a self,
            conversation: &'a mut Conversation<'_>,
        ) -> Answer<'a, Result<Welcome, Refusal>> {
            Box::pin(async {
                conversation.receive().await?;
                Err(Refusal::goodbye())
            })
        }
        fn accept(&self, _: &Session) {}
        fn messages(&self, _: &Arc<Session>, _: Messages<'_>, _: Instant) {}
    }
}

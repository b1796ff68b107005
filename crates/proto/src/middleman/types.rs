//! What a broker is told, and what it says.

use std::time::Duration;

use super::Refusal;

/// Where a connection is in the table, for as long as it is there.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Slot(pub(super) u32);

/// Where a topic is in the table, for as long as it has anything.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct TopicKey(pub(super) u32);

/// A connection of a broker. The id of one that is gone means no other.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId {
    pub(super) slot: Slot,
    pub(super) generation: u32,
}

/// A link to another relay, from its beginning to its end: the next one to the same relay has
/// another number. Its caller chooses it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub u64);

/// Another relay said what relays do not say. The link is to be ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a relay said what relays do not say")]
pub struct Violation;

/// What a connection may do; its key says which it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Everything.
    Service,
    /// What services have granted.
    Client,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handled {
    /// The connection subscribes to the topic.
    Subscribed,
    /// It was published.
    Published {
        /// How many connections get it here.
        copies: usize,
        /// How many other relays get it for theirs.
        relays: usize,
    },
    /// Clients may do something, or the connection is one more worker of a topic.
    Granted,
    /// A responder is asked.
    Asked,
    /// A requester has its answer.
    Answered,
    /// The user id of a connection was set.
    UserSet,
    /// What another relay has said is noted.
    Noted,
    /// A publication of another relay is longer than what this one delivers.
    Lost,
    /// It has no effect, and its sender is not told: an unknown command, an answer without a
    /// number, an `INT` of a client.
    Ignored,
    /// It has no effect, and its sender is told why.
    Refused(Refusal),
}

/// What became of a request of a connection here that was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// It has its answer.
    Answered {
        /// How long the requester has waited.
        waited: Duration,
    },
    /// It has failed, and the requester is told why.
    Failed(Refusal),
    /// The requester disconnected.
    Abandoned,
}

/// What there is in a broker.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Connections.
    pub connections: usize,
    /// Topics that have anything, here or at another relay.
    pub topics: usize,
    /// Subscriptions, without those to connections' own channels.
    pub subscriptions: usize,
    /// Grants.
    pub grants: usize,
    /// Workers.
    pub workers: usize,
    /// Requests that wait for their answers.
    pub requests: usize,
    /// Links to other relays.
    pub links: usize,
}

/// What there is of a topic: here, but for what clients may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TopicInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Subscribers.
    pub subscribers: usize,
    /// Whether clients may publish.
    pub clients_publish: bool,
    /// Whether clients may subscribe.
    pub clients_subscribe: bool,
    /// Connections that respond.
    pub responders: usize,
    /// Their workers.
    pub workers: usize,
    /// Requests that they have not answered.
    pub outstanding: usize,
    /// Other relays that have anything of it.
    pub relays: usize,
}

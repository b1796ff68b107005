//! What an operator asks of a running relay, and tells it to do.
//!
//! One dispatcher, [`Actions`], behind two doors: the Unix socket `control.sock` in the state
//! folder ([`keep_socket`], for its owner and root), and HTTP with a bearer token ([`routes`]).
//! Every action is a line of the audit log. What only the owner of the server can do goes to
//! it as an [`Order`].

mod actions;
mod answers;
mod audit;
mod audit_log;
mod channels;
pub mod client;
mod explain;
mod guesses;
mod health;
mod http;
mod leader;
mod orders;
mod parts;
mod queues;
mod recorder;
mod refused;
mod socket;
#[cfg(test)]
mod testing;
mod time;

use serde::{Deserialize, Serialize};

use crate::config::LogFilter;
use crate::wire::name::Name;
use crate::words;

pub use actions::Actions;
pub use audit_log::{AuditPage, Logged, NoHash};
pub use health::Health;
pub use http::{Token, routes};
pub use orders::{Order, Orders, Task};
pub use parts::Parts;
pub use queues::Queues;
pub use recorder::Recorder;
pub use refused::Refused;
pub use socket::{Socket, keep as keep_socket, socket_file};
pub(crate) use time::rfc3339;

/// Longest request, in bytes: one line of JSON. The socket reads nothing after the line.
pub const MAX_REQUEST: usize = 65_536;

/// Peers that are listed where nobody says how many.
pub const DEFAULT_PEERS: usize = 1_000;

/// Talkers that are listed where nobody says how many.
pub const DEFAULT_TALKERS: usize = 10;

/// Messages that are shown where nobody says how many.
pub const DEFAULT_MESSAGES: usize = 10;

/// In which order peers are listed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerOrder {
    /// By their ids.
    #[default]
    Node,
    /// Those first for which most bytes wait.
    Waiting,
    /// Those first that came last.
    Age,
    /// Those first of which nothing was heard for longest over UDP.
    Silence,
}

impl PeerOrder {
    const fn is_default(&self) -> bool {
        matches!(self, Self::Node)
    }
}

/// What is asked: a line such as `{"action":"kick","node":7}`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// The main numbers.
    Status {},
    /// Whether peers should be sent here, and why not. Probes ask it again and again: it is the
    /// one action that the audit log does not have.
    Readiness {},
    /// The peers that are connected or have an endpoint.
    Peers {
        /// How many at most.
        #[serde(default = "default_peers")]
        limit: usize,
        /// Their order.
        #[serde(default, skip_serializing_if = "PeerOrder::is_default")]
        sort: PeerOrder,
        /// Those after this one alone, in the order of their ids.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Name>,
    },
    /// What is known of a node here.
    Peer {
        /// The node.
        node: Name,
    },
    /// Who sends and receives most.
    Top {
        /// How many of each.
        #[serde(default = "default_talkers")]
        count: usize,
        /// Whether it was asked for just before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
    },
    /// What the door of a node checks its login with, and where that is from. Asked again and
    /// again until an enrolment is known, and like [`Self::Readiness`] no line of the audit log.
    Enrolment {
        /// The node.
        node: Name,
    },
    /// Ends a node's session, and forgets its endpoint.
    Kick {
        /// The node.
        node: Name,
        /// For how many seconds it is kept out; 0 lets it in again. Without, it may come back.
        #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    },
    /// Tells a node that a handshake waits for it at the registry.
    Notify {
        /// The node.
        node: Name,
    },
    /// Serves one kind of traffic, or drops it, until the next start.
    Switch {
        /// Its name.
        switch: String,
        /// Whether it is served from here on.
        on: bool,
    },
    /// Sends the peers away and ends, as SIGTERM does.
    Drain {},
    /// Reads keys and settings again.
    Reload {
        /// Takes a key file that has lost most of its keys.
        #[serde(default)]
        force: bool,
    },
    /// Changes what is logged, until the next start.
    LogLevel {
        /// A level, or levels of parts.
        #[serde(with = "filter_text")]
        filter: LogFilter,
    },
    /// Where a node is, how it is reached, and what became of its last packets.
    Explain {
        /// The node.
        node: Name,
    },
    /// The last events of connections.
    Record {
        /// Those after the one of this number alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    /// The topics of doors that have such.
    Topics {
        /// How many at most, in the order of their names.
        #[serde(default = "default_peers")]
        limit: usize,
    },
    /// The names of the message bus.
    Names {
        /// How many at most, in their order.
        #[serde(default = "default_peers")]
        limit: usize,
    },
    /// Has a name of the message bus belong to nobody.
    ReleaseName {
        /// The name.
        name: String,
    },
    /// Has a name of the message bus belong to the credential of a label.
    BindName {
        /// The name.
        name: String,
        /// The label.
        label: String,
    },
    /// The mailboxes of the message bus.
    Queues {
        /// How many at most, those first in which most messages wait.
        #[serde(default = "default_peers")]
        limit: usize,
    },
    /// A mailbox of the message bus.
    Queue {
        /// The name that it is for.
        name: String,
    },
    /// The first messages that wait in a mailbox.
    PeekQueue {
        /// The name that it is for.
        name: String,
        /// How many at most.
        #[serde(default = "default_messages")]
        limit: usize,
    },
    /// Removes all messages that wait in a mailbox.
    PurgeQueue {
        /// The name that it is for.
        name: String,
    },
    /// The dead letters of a mailbox, the oldest first.
    DeadLetters {
        /// The name that it is for.
        name: String,
        /// How many at most.
        #[serde(default = "default_messages")]
        limit: usize,
    },
    /// Puts the dead letters of a mailbox back, behind what waits there.
    RequeueDeadLetters {
        /// The name that it is for.
        name: String,
    },
    /// The channels of the message bus.
    Channels {
        /// How many at most, those first of which somebody is furthest behind.
        #[serde(default = "default_peers")]
        limit: usize,
    },
    /// A channel of the message bus, and who reads it.
    Channel {
        /// Its name.
        name: String,
        /// How many readers at most, those first that are furthest behind.
        #[serde(default = "default_peers")]
        limit: usize,
    },
    /// The first records that a channel has.
    PeekChannel {
        /// Its name.
        name: String,
        /// How many at most.
        #[serde(default = "default_messages")]
        limit: usize,
    },
    /// Removes the records that a channel has.
    PurgeChannel {
        /// Its name.
        name: String,
    },
    /// Removes the records of a channel, and the cursors of peers that are away.
    RemoveChannel {
        /// Its name.
        name: String,
    },
    /// Removes the cursor of a peer that is away.
    ForgetCursor {
        /// The name of the channel.
        name: String,
        /// The name of the peer.
        peer: String,
    },
    /// A page of the audit log of messages.
    AuditLog {
        /// The number of its first entry.
        from: u64,
        /// The relay whose log it is of, where that is another.
        #[serde(default)]
        chain: Option<String>,
    },
}

impl Action {
    /// Whether it is about the message bus, which another relay may have.
    const fn is_of_bus(&self) -> bool {
        matches!(
            self,
            Self::Names { .. }
                | Self::ReleaseName { .. }
                | Self::BindName { .. }
                | Self::Queues { .. }
                | Self::Queue { .. }
                | Self::PeekQueue { .. }
                | Self::PurgeQueue { .. }
                | Self::DeadLetters { .. }
                | Self::RequeueDeadLetters { .. }
                | Self::Channels { .. }
                | Self::Channel { .. }
                | Self::PeekChannel { .. }
                | Self::PurgeChannel { .. }
                | Self::RemoveChannel { .. }
                | Self::ForgetCursor { .. }
        )
    }

    /// Whether probes ask it, all day long.
    const fn is_a_probe(&self) -> bool {
        matches!(
            self,
            Self::Readiness {}
                | Self::Enrolment { .. }
                // Who follows was written down when it began to.
                | Self::Top { again: true, .. }
                | Self::Record { after: Some(_) }
        )
    }

    /// Whether something is different after it.
    const fn changes_something(&self) -> bool {
        match self {
            Self::Kick { .. }
            | Self::Notify { .. }
            | Self::Switch { .. }
            | Self::Drain {}
            | Self::Reload { .. }
            | Self::LogLevel { .. }
            | Self::ReleaseName { .. }
            | Self::BindName { .. }
            | Self::PurgeQueue { .. }
            | Self::RequeueDeadLetters { .. }
            | Self::PurgeChannel { .. }
            | Self::RemoveChannel { .. }
            | Self::ForgetCursor { .. } => true,
            Self::Status {}
            | Self::Readiness {}
            | Self::Enrolment { .. }
            | Self::Peers { .. }
            | Self::Peer { .. }
            | Self::Top { .. }
            | Self::Explain { .. }
            | Self::Record { .. }
            | Self::Topics { .. }
            | Self::Names { .. }
            | Self::Queues { .. }
            | Self::Queue { .. }
            | Self::PeekQueue { .. }
            | Self::DeadLetters { .. }
            | Self::Channels { .. }
            | Self::Channel { .. }
            | Self::PeekChannel { .. }
            | Self::AuditLog { .. } => false,
        }
    }
}

words! {
    /// Why a request did not become an action.
    enum BadRequest {
        /// Longer than [`MAX_REQUEST`].
        TooLarge => "too_large",
        /// The request did not come in time.
        Slow => "slow",
        /// The body of the request broke off.
        Aborted => "aborted",
        /// Not an action, or not as it should be.
        Malformed => "malformed",
        /// Over HTTP, where no token is configured.
        NoActions => "no_actions",
        /// No bearer token.
        NoToken => "no_token",
        /// Another token.
        WrongToken => "wrong_token",
        /// A process of another user on the socket.
        OtherUser => "other_user",
        /// Said nothing, and gave way to newer connections on the socket.
        CrowdedOut => "crowded_out",
        /// Came to the socket while too many others were not done.
        Busy => "busy",
    }
}

/// What is answered, in one line: `{"ok":true,"result":…}` or `{"ok":false,"error":"…"}`.
fn reply(result: &Result<String, String>) -> String {
    match result {
        Ok(json) => format!("{{\"ok\":true,\"result\":{json}}}\n"),
        Err(error) => {
            format!("{}\n", serde_json::json!({ "ok": false, "error": error }))
        }
    }
}

const fn default_peers() -> usize {
    DEFAULT_PEERS
}

const fn default_talkers() -> usize {
    DEFAULT_TALKERS
}

const fn default_messages() -> usize {
    DEFAULT_MESSAGES
}

/// A log filter as an operator writes it.
mod filter_text {
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    use crate::config::LogFilter;

    pub(super) fn serialize<S: Serializer>(filter: &LogFilter, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(filter)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LogFilter, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_read_with_its_defaults() {
        let read = |text: &str| serde_json::from_str::<Action>(text).map_err(|e| e.to_string());
        let node: Name = "7".parse().unwrap();
        for (text, action) in [
            (r#"{"action":"status"}"#, Action::Status {}),
            (
                r#"{"action":"peers"}"#,
                Action::Peers { limit: DEFAULT_PEERS, sort: PeerOrder::Node, after: None },
            ),
            (r#"{"action":"kick","node":7}"#, Action::Kick { node, seconds: None }),
            (r#"{"action":"kick","node":7,"for":60}"#, Action::Kick { node, seconds: Some(60) }),
            (
                r#"{"action":"switch","switch":"relay","on":false}"#,
                Action::Switch { switch: "relay".to_owned(), on: false },
            ),
            (r#"{"action":"reload","force":true}"#, Action::Reload { force: true }),
            (
                r#"{"action":"peek-queue","name":"alice"}"#,
                Action::PeekQueue { name: "alice".to_owned(), limit: DEFAULT_MESSAGES },
            ),
            (
                r#"{"action":"log-level","filter":"debug"}"#,
                Action::LogLevel { filter: "debug".parse().unwrap() },
            ),
        ] {
            assert_eq!(read(text), Ok(action.clone()));
            let again = serde_json::to_string(&action).unwrap();
            assert_eq!(read(&again), Ok(action), "{again}");
        }
    }

    #[test]
    fn request_that_says_too_much_or_too_little_is_refused() {
        for text in [
            r#"{"action":"kick"}"#,
            r#"{"action":"kick","node":0}"#,
            r#"{"action":"kick","node":-1}"#,
            r#"{"action":"kick","node":7,"nodes":8}"#,
            r#"{"action":"status","node":7}"#,
            r#"{"action":"log-level","filter":"loud"}"#,
            r#"{"action":"switch","switch":"relay","on":"off"}"#,
            r#"{"action":"switch","switch":"relay"}"#,
            r#"{"action":"shutdown"}"#,
            "[]",
            "",
        ] {
            assert!(serde_json::from_str::<Action>(text).is_err(), "{text}");
        }
    }
}

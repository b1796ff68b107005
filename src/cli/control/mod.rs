//! `status`, `peers`, `kick` and others: asks the relay of a state folder, and prints what it
//! says.

mod channels;
mod follow;
pub(super) mod layout;
mod queues;
mod tables;

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::Value;

use self::follow::Followed;
use super::{Exit, output};
use crate::config::{Layers, LogFilter, Surroundings, parse_duration};
use crate::control::client::{AskError, PATIENCE, ask};
use crate::control::{Action, DEFAULT_MESSAGES, DEFAULT_PEERS, DEFAULT_TALKERS, PeerOrder};
use crate::doors::pilot::{DISCOVER, PUNCH};
use crate::relay::RELAY;
use crate::wire::name::Name;

/// What is asked of a running relay.
#[derive(Debug, Subcommand)]
pub(super) enum Control {
    /// Show whether the relay is ready, why not, and its main numbers; exits 0, 3 (degraded) or 4 (not)
    Status {
        /// Ask only whether peers should be sent here, as a health check does: exits 0 or 4
        #[arg(long)]
        ready: bool,
        #[command(flatten)]
        relay: Relay,
    },
    /// List the nodes that are connected or have a UDP endpoint
    Peers {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = DEFAULT_PEERS)]
        limit: usize,
        /// Their order: node (by id), or those first for whom most waits (waiting), that came last (age), or
        /// that were silent longest over UDP (silence)
        #[arg(long, value_name = "ORDER", value_enum, hide_possible_values = true, default_value_t = Order::Node)]
        sort: Order,
        /// Those after this one alone: the next page of a list by ids
        #[arg(long, value_name = "NODE", conflicts_with = "sort")]
        after: Option<Name>,
        #[command(flatten)]
        relay: Relay,
    },
    /// Show what is known of a node here
    Peer {
        /// The node's id
        node: Name,
        #[command(flatten)]
        relay: Relay,
    },
    /// Show who sends and receives most, estimated from a sample
    Top {
        /// How many of each
        #[arg(long, value_name = "N", default_value_t = DEFAULT_TALKERS)]
        count: usize,
        /// Show it again every 2 s
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        relay: Relay,
    },
    /// End a node's session and forget its UDP endpoint; it may come back at once, or after a time
    Kick {
        /// The node's id
        node: Name,
        /// Keep it out for this time, such as 10m or 7d; 0s lets it in again
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        time: Option<Duration>,
        #[command(flatten)]
        relay: Relay,
    },
    /// Tell a node that a handshake waits for it at the registry, once a minute at most
    Notify {
        /// The node's id
        node: Name,
        #[command(flatten)]
        relay: Relay,
    },
    /// Switch one kind of traffic off, or on again: punch, relay or discover. A restart has all on
    Switch {
        /// Which: punch, relay or discover
        #[arg(value_name = "SWITCH", value_parser = PossibleValuesParser::new(SWITCHES), hide_possible_values = true)]
        switch: String,
        /// On or off
        #[arg(value_name = "STATE")]
        state: State,
        #[command(flatten)]
        relay: Relay,
    },
    /// Send all peers away over the drain time, then end, as SIGTERM does
    Drain {
        #[command(flatten)]
        relay: Relay,
    },
    /// Read keys and settings again, as SIGHUP does
    Reload {
        /// Take a key file that has lost or changed more than half of its keys, and what is held
        /// back of the registry's answers
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        relay: Relay,
    },
    /// Change what is logged, until the next start
    LogLevel {
        /// Level, or levels of parts, as in info,beacon_relay::udp=debug
        #[arg(value_name = "FILTER")]
        filter: String,
        #[command(flatten)]
        relay: Relay,
    },
    /// Tell where a node is, how it is reached, and what became of its last packets
    Explain {
        /// The node's id
        node: Name,
        #[command(flatten)]
        relay: Relay,
    },
    /// Print the last events of connections, the latest last
    Record {
        /// Go on with each event that happens
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        relay: Relay,
    },
    /// List the topics of the middleman door: who subscribes, what clients may do, who answers
    Topics {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = DEFAULT_PEERS)]
        limit: usize,
        #[command(flatten)]
        relay: Relay,
    },
    /// List the names of the message bus, whose they are and what waits for them; release or bind one
    Names(Names),
    /// List the mailboxes of the message bus, those first in which most messages wait
    Queues {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = DEFAULT_PEERS)]
        limit: usize,
        #[command(flatten)]
        relay: Relay,
    },
    /// Show a mailbox of the message bus, look at its messages, or empty it
    Queue {
        /// The name that it is for
        name: String,
        /// Print the first messages that wait
        #[arg(long, conflicts_with_all = ["purge", "dead", "requeue"])]
        peek: bool,
        /// Remove all messages that wait; they are not delivered
        #[arg(long, conflicts_with_all = ["dead", "requeue"])]
        purge: bool,
        /// Print its dead letters, the oldest first
        #[arg(long, conflicts_with = "requeue")]
        dead: bool,
        /// Put its dead letters back, behind what waits; they are delivered as new messages are
        #[arg(long)]
        requeue: bool,
        /// How many messages to print at most
        #[arg(long, value_name = "N", default_value_t = DEFAULT_MESSAGES)]
        limit: usize,
        #[command(flatten)]
        relay: Relay,
    },
    /// List the channels of the keyop door, those first of which somebody is furthest behind
    Channels {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = DEFAULT_PEERS)]
        limit: usize,
        #[command(flatten)]
        relay: Relay,
    },
    /// Show a channel of the keyop door and how far its peers have come; look at its records, or remove it
    Channel {
        /// The name of the channel
        name: String,
        /// Print the first records that it has
        #[arg(long, conflicts_with_all = ["purge", "forget", "remove"])]
        peek: bool,
        /// Remove the records that it has: who has not got them never will
        #[arg(long, conflicts_with_all = ["forget", "remove"])]
        purge: bool,
        /// Forget how far a peer that is away has come: nothing waits for it any more
        #[arg(long, value_name = "PEER", conflicts_with = "remove")]
        forget: Option<String>,
        /// Remove its records and the cursors of all peers that are away
        #[arg(long)]
        remove: bool,
        /// How many peers, or records, to print at most
        #[arg(long, value_name = "N", default_value_t = DEFAULT_PEERS)]
        limit: usize,
        #[command(flatten)]
        relay: Relay,
    },
}

/// What is asked about the names of the message bus.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Names {
    #[command(subcommand)]
    change: Option<NameChange>,
    /// How many at most, in their order
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PEERS)]
    limit: usize,
    #[command(flatten)]
    relay: Relay,
}

/// What becomes of a name.
#[derive(Debug, Subcommand)]
enum NameChange {
    /// Have a name belong to nobody: the next peer that may have it takes it, with what waits for it
    Release {
        /// The name
        name: String,
        #[command(flatten)]
        relay: Relay,
    },
    /// Have a name belong to the credential of a label of the tokens file
    Bind {
        /// The name
        name: String,
        /// The label
        label: String,
        #[command(flatten)]
        relay: Relay,
    },
}

/// Whether something is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum State {
    /// It is.
    On,
    /// It is dropped.
    Off,
}

/// What can be switched off.
const SWITCHES: [&str; 3] = [PUNCH.name, RELAY.name, DISCOVER.name];

/// In which order peers are listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Order {
    /// By their ids.
    Node,
    /// Those first for which most bytes wait.
    Waiting,
    /// Those first that came last.
    Age,
    /// Those first of which nothing was heard for longest over UDP.
    Silence,
}

impl From<Order> for PeerOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::Node => Self::Node,
            Order::Waiting => Self::Waiting,
            Order::Age => Self::Age,
            Order::Silence => Self::Silence,
        }
    }
}

/// Which relay, and how to print.
#[derive(clap::Args, Debug)]
pub(super) struct Relay {
    /// Folder of what the relay keeps [default: that of `serve`]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    state_dir: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Control {
    /// Asks, and prints the answer.
    pub(super) fn run(self) -> Result<(), Exit> {
        let followed = if let Self::Top { follow: true, count, .. } = self {
            Some(Followed::Top { count })
        } else if matches!(self, Self::Record { follow: true, .. }) {
            Some(Followed::Events)
        } else {
            None
        };
        let (action, relay) = self.action()?;
        let folder = Layers::state_dir_of(relay.state_dir, &Surroundings::of_this_process())?;
        if let Some(followed) = followed {
            return followed.show(&folder, relay.json);
        }
        let answer = ask_relay(&folder, &action)?;
        let text = if relay.json { format!("{answer}\n") } else { tables::show(&action, &answer) };
        output::print(&text)?;
        verdict(&action, &answer)
    }

    fn action(self) -> Result<(Action, Relay), Exit> {
        Ok(match self {
            Self::Status { ready: true, relay } => (Action::Readiness {}, relay),
            Self::Status { ready: false, relay } => (Action::Status {}, relay),
            Self::Peers { limit, sort, after, relay } => {
                (Action::Peers { limit, sort: sort.into(), after }, relay)
            }
            Self::Peer { node, relay } => (Action::Peer { node }, relay),
            Self::Top { count, relay, .. } => (Action::Top { count, again: false }, relay),
            Self::Kick { node, time, relay } => {
                (Action::Kick { node, seconds: time.map(whole_seconds) }, relay)
            }
            Self::Notify { node, relay } => (Action::Notify { node }, relay),
            Self::Switch { switch, state, relay } => {
                (Action::Switch { switch, on: state == State::On }, relay)
            }
            Self::Drain { relay } => (Action::Drain {}, relay),
            Self::Reload { force, relay } => (Action::Reload { force }, relay),
            Self::LogLevel { filter, relay } => {
                let parsed = filter.parse::<LogFilter>();
                let parsed = parsed.map_err(|error| Exit::Usage(error.to_string()))?;
                (Action::LogLevel { filter: parsed }, relay)
            }
            Self::Explain { node, relay } => (Action::Explain { node }, relay),
            Self::Record { relay, .. } => (Action::Record { after: None }, relay),
            Self::Topics { limit, relay } => (Action::Topics { limit }, relay),
            Self::Names(Names { change: None, limit, relay }) => (Action::Names { limit }, relay),
            Self::Names(Names { change: Some(change), .. }) => match change {
                NameChange::Release { name, relay } => (Action::ReleaseName { name }, relay),
                NameChange::Bind { name, label, relay } => {
                    (Action::BindName { name, label }, relay)
                }
            },
            Self::Queues { limit, relay } => (Action::Queues { limit }, relay),
            Self::Queue { name, peek: true, limit, relay, .. } => {
                (Action::PeekQueue { name, limit }, relay)
            }
            Self::Queue { name, dead: true, limit, relay, .. } => {
                (Action::DeadLetters { name, limit }, relay)
            }
            Self::Queue { name, purge: true, relay, .. } => (Action::PurgeQueue { name }, relay),
            Self::Queue { name, requeue: true, relay, .. } => {
                (Action::RequeueDeadLetters { name }, relay)
            }
            Self::Queue { name, relay, .. } => (Action::Queue { name }, relay),
            Self::Channels { limit, relay } => (Action::Channels { limit }, relay),
            Self::Channel { name, peek: true, limit, relay, .. } => {
                (Action::PeekChannel { name, limit }, relay)
            }
            Self::Channel { name, purge: true, relay, .. } => {
                (Action::PurgeChannel { name }, relay)
            }
            Self::Channel { name, remove: true, relay, .. } => {
                (Action::RemoveChannel { name }, relay)
            }
            Self::Channel { name, forget: Some(peer), relay, .. } => {
                (Action::ForgetCursor { name, peer }, relay)
            }
            Self::Channel { name, limit, relay, .. } => (Action::Channel { name, limit }, relay),
        })
    }
}

/// A time in seconds, rounded up: a part of one is not none, which would let a peer in.
const fn whole_seconds(time: Duration) -> u64 {
    let part = if time.subsec_nanos() > 0 { 1 } else { 0 };
    time.as_secs() + part
}

/// Asks the relay of a state folder.
fn ask_relay(folder: &Path, action: &Action) -> Result<Value, Exit> {
    ask(folder, action, PATIENCE).map_err(|error| match error {
        AskError::NoRelay { .. } => Exit::NoRelay(error),
        AskError::Silent { .. } | AskError::NoAnswer { .. } => Exit::NoAnswer(error),
        AskError::Refused(_) => Exit::Failed(error.into()),
    })
}

/// How the answer of `status` ends the program. A health check is content with a relay that serves.
fn verdict(action: &Action, answer: &Value) -> Result<(), Exit> {
    match (action, &*layout::at(answer, &["verdict"])) {
        (Action::Status {}, "degraded") => Err(Exit::Degraded),
        (Action::Status {} | Action::Readiness {}, "not ready") => Err(Exit::NotReady),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kick_for_a_part_of_a_second_let_the_node_in() {
        for (ms, seconds) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (90_000, 90)] {
            assert_eq!(whole_seconds(Duration::from_millis(ms)), seconds, "{ms} ms");
        }
    }
}

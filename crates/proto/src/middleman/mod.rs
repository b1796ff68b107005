//! The broker of middleman: who subscribes to what, who may do what, who answers what.
//!
//! Sans-IO: the caller passes parsed messages and the time, and delivers what [`Output`] has, in
//! that order. Whatever one connection sends is handled in the order of its calls, so that
//! publications of one sender reach each subscriber in order.
//!
//! - A **service** may do everything; a **client** what services have granted. What is refused has
//!   no effect, and its sender is told by a `PUB ERROR`.
//! - **Subscriptions and grants** end with the connection that made them. A client gets
//!   publications only while some service grants subscriptions to the topic.
//! - A **request** goes to the responder with the fewest requests for each worker. Only that one
//!   answers it. It fails at once if there is none or if it disconnects, and at its deadline: then
//!   the requester gets a `PUB ERROR` and, if the request had an id, an answer with that id and an
//!   `Error` header.
//! - `MSG:<guid>` is the **own channel** of a connection: nobody else subscribes to it.
//!
//! In a **cluster** each relay tells the others which topics its connections subscribe to, grant
//! and respond to, so that all of this holds across relays (`cluster.rs`).
//!
//! Every table is bounded ([`Limits`]), and empty when all connections are gone.

mod cluster;
mod connections;
mod limits;
mod links;
mod messages;
mod output;
mod refusal;
#[cfg(test)]
mod relays;
mod requests;
mod shares;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod topics;
mod types;

use std::time::Instant;

use beacon_wire::middleman::{Command, Encoder, Guid, Message, PRIVATE, RelayMessage};

use connections::{CID, Connection, Connections, Share, UID};
pub use limits::{Bounds, Limits};
use links::Links;
pub use output::{Class, Output};
pub use refusal::Refusal;
use refusal::cut;
use requests::{Head, Ids, Pending, RID, Requester, Requests};
use topics::{Chosen, Grant, Remote, Responder, Subscriber, Topics};
pub use types::{ConnectionId, Counts, Ended, Handled, LinkId, Role, TopicInfo, Violation};
use types::{Slot, TopicKey};

/// A broker; `P` is what its caller knows of a connection.
#[derive(Debug)]
pub struct Broker<P> {
    limits: Limits,
    connections: Connections<P>,
    topics: Topics,
    requests: Requests,
    links: Links,
    subscriptions: usize,
    grants: usize,
    workers: usize,
}

impl<P> Broker<P> {
    /// A broker without connections.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            connections: Connections::default(),
            topics: Topics::default(),
            requests: Requests::default(),
            links: Links::default(),
            subscriptions: 0,
            grants: 0,
            workers: 0,
        }
    }

    /// Takes other limits; what exceeds them stays.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Adds a connection; `None` if there is one of this GUID.
    pub fn connect(&mut self, peer: P, role: Role, guid: Guid) -> Option<ConnectionId> {
        self.connections.add(peer, role, guid)
    }

    /// What the caller knows of a connection, if it is still there.
    #[must_use]
    pub fn peer(&self, id: ConnectionId) -> Option<&P> {
        let slot = self.connections.slot(id)?;
        self.connections.get(slot).map(|connection| &connection.peer)
    }

    /// Removes a connection with all that it has. What it was asked has failed.
    pub fn disconnect(&mut self, id: ConnectionId, out: &mut Output) -> Option<P> {
        let slot = self.connections.slot(id)?;
        let gone = self.connections.remove(slot)?;
        for rid in gone.asking {
            self.cancel(rid, out);
            self.forget(rid, out);
            out.has_ended(Ended::Abandoned);
        }
        for rid in gone.asked {
            self.fail(rid, Refusal::ResponderGone, out);
        }
        for (key, share) in gone.shares {
            self.give_back(slot, key, share, out);
        }
        Some(gone.peer)
    }

    /// Does what a message of a connection says.
    pub fn handle(
        &mut self,
        from: ConnectionId,
        message: &Message<'_>,
        now: Instant,
        out: &mut Output,
    ) -> Handled {
        let Some(slot) = self.connections.slot(from) else { return Handled::Ignored };
        let target = message.target;
        let handled = match message.command {
            Command::Sub => self.subscribe(slot, target, out),
            Command::Pub => self.publish(slot, message, out),
            Command::Req => self.request(slot, message, now, out),
            Command::Res => self.answer(slot, message, now, out),
            Command::Epub => self.grant(slot, target, Grant::Publish, out),
            Command::Esub => self.grant(slot, target, Grant::Subscribe, out),
            Command::Ereq => self.respond(slot, target, out),
            Command::Int => self.set_user(slot, message, out),
            Command::Other(_) => Ok(Handled::Ignored),
        };
        handled.unwrap_or_else(|refusal| self.refuse(from, message, refusal, out))
    }

    /// Tells a connection that its message has no effect. A request is also answered, if it has
    /// an id that is no longer than ids may be.
    pub fn refuse(
        &self,
        from: ConnectionId,
        message: &Message<'_>,
        refusal: Refusal,
        out: &mut Output,
    ) -> Handled {
        let most = self.limits.text_bytes;
        out.error(from, refusal, message.command, message.target, most);
        let ids = Ids::of(&message.headers);
        if message.command == Command::Req && !ids.are_longer_than(most) {
            let mark = out.mark();
            if ids.encode_failure(&mut out.bytes, cut(message.target, most), refusal) {
                out.deliver(from, Class::Answer, mark);
            }
        }
        Handled::Refused(refusal)
    }

    /// Fails the requests whose deadline is over.
    pub fn expire(&mut self, now: Instant, out: &mut Output) {
        while let Some(rid) = self.requests.expired(now) {
            self.cancel(rid, out);
            self.fail(rid, Refusal::TimedOut, out);
        }
    }

    /// When [`Self::expire`] is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.requests.next_deadline()
    }

    /// Fails a request that its responder's queue did not take.
    pub fn undelivered(&mut self, rid: u64, out: &mut Output) {
        self.fail(rid, Refusal::ResponderBusy, out);
    }

    /// What there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            connections: self.connections.len(),
            topics: self.topics.len(),
            subscriptions: self.subscriptions,
            grants: self.grants,
            workers: self.workers,
            requests: self.requests.len(),
            links: self.links.len(),
        }
    }

    /// What there is of each topic.
    pub fn topics(&self) -> impl Iterator<Item = TopicInfo<'_>> {
        self.topics.iter().map(|topic| TopicInfo {
            name: &topic.name,
            subscribers: topic.subscribers.len(),
            clients_publish: topic.grants(Grant::Publish),
            clients_subscribe: topic.grants(Grant::Subscribe),
            responders: topic.responders.len(),
            workers: topic.workers(),
            outstanding: topic.outstanding(),
            relays: topic.remotes.len(),
        })
    }
}

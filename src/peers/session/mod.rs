//! One connection of a peer, as everybody else sees it: something to push records to.

mod end;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::task::coop::poll_proceed;

use super::outbox::{Arrival, Backlog, Limits, Outbox, Overflow, Pushed, Record};
use super::{Capabilities, Principal, Takeover};
use crate::metrics::{Traffic, Transport, Word as _};
use crate::net::Stream;
use crate::net::tls::Certified;
use crate::proto::limit;
use crate::wire::Framing;
use crate::wire::name::Name;
use crate::wire::websocket::Opcode;

pub use end::End;

/// The bits of a session's state that say why it ends: 0, or 1 + the position in [`End::ALL`].
const ENDS: u8 = 0x3f;

/// The bit of a session that is held.
const HELD: u8 = 0x80;

/// The bit of a session that was held, until its own task has seen that it is not.
const RELEASED: u8 = 0x40;

/// What a session's own task is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Serve the peer.
    Open,
    /// Serve it, but read nothing.
    Held,
    /// Read again: what the peer sent meanwhile was not looked at.
    Released,
    /// End the session.
    Ending(End),
}

/// Chunks that one call of [`Session::flush`] writes at most: who keeps a peer's queue full
/// shall not keep another's thread busy with it.
const FLUSH_ROUNDS: usize = 4;

/// What a session sends through.
#[derive(Debug)]
pub struct Link {
    /// The stream of bytes, or of datagrams.
    pub stream: Box<dyn Stream>,
    /// Under which name its packets are counted.
    pub transport: Transport,
    /// How records are laid out.
    pub framing: Framing,
    /// The bounds of the outbox.
    pub limits: Limits,
    /// What happens to a record that does not fit into it.
    pub overflow: Overflow,
    /// Where packets are accounted for.
    pub traffic: Arc<Traffic>,
}

/// What a door keeps with a session, whatever that is.
pub type DoorData = Option<Arc<dyn Any + Send + Sync>>;

/// A peer's connection: who it is, its stream, and the outbox in front of that.
#[derive(Debug)]
pub struct Session {
    /// Who the peer has proved to be.
    pub principal: Principal,
    /// The address that the peer is seen at.
    pub observed: std::net::SocketAddr,
    /// When the session began.
    pub since: Instant,
    /// When its connection was accepted: of two sessions of one peer the one whose connection
    /// was accepted later is the newer, here and in the cluster.
    pub accepted: Instant,
    /// What happens to an older session of the same peer, here and in the cluster: the rule of
    /// the session's door, [`Takeover::Always`] until that is set.
    pub takeover: Takeover,
    /// It is the relay's own, which looks whether peers are served: found and routed to as any
    /// other, but no list, count, limit or other relay learns of it.
    pub is_hidden: bool,
    /// Whether the relay waits for the peer as long as its connection lives: see the session's door.
    pub is_patient: bool,
    /// Whose certificate its connection has proved, where the listener takes only such.
    pub certified: Option<Arc<Certified>>,
    /// What the peer may send in a second; only its own task takes from it. Locked to copy
    /// it in and out, never while something else is locked after it.
    pub inbound: Mutex<limit::Source>,
    /// What the peer may ask of the relay itself in a second, where its door bounds that.
    pub requests: Mutex<limit::Bucket>,
    /// When the peer last had packets, by a clock of its door's.
    pub stirred: AtomicU32,
    /// What its door keeps with it, from the login on.
    pub data: DoorData,
    generation: u64,
    capabilities: AtomicU32,
    link: Link,
    outbox: Mutex<Outbox>,
    task: AtomicWaker,
    /// 0 while the peer is served; see [`ENDS`], [`HELD`] and [`RELEASED`].
    state: AtomicU8,
}

impl Session {
    /// A session that nobody can find yet.
    ///
    /// `generation` tells the sessions of one peer apart, and which is the newer: see
    /// [`super::Table::generation`].
    #[must_use]
    pub fn new(
        principal: Principal,
        generation: u64,
        observed: std::net::SocketAddr,
        link: Link,
        now: Instant,
    ) -> Self {
        Self {
            principal,
            observed,
            since: now,
            accepted: now,
            takeover: Takeover::Always,
            is_hidden: false,
            is_patient: false,
            certified: None,
            inbound: Mutex::default(),
            requests: Mutex::default(),
            stirred: AtomicU32::new(0),
            data: None,
            generation,
            capabilities: AtomicU32::new(0),
            outbox: Mutex::new(Outbox::new(
                principal.name,
                link.transport,
                link.framing,
                link.overflow,
            )),
            link,
            task: AtomicWaker::new(),
            state: AtomicU8::new(0),
        }
    }

    /// The same session, of a connection that was accepted before it began.
    #[must_use]
    pub fn accepted_at(self, accepted: Instant) -> Self {
        Self { accepted, ..self }
    }

    /// The peer's id.
    #[must_use]
    pub const fn id(&self) -> Name {
        self.principal.name
    }

    /// The number that no other session of this table has.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a newer session of the same peer, by its own rule, may take this one's place.
    #[must_use]
    pub fn gives_way_to(&self, newer: &Principal, rule: Takeover, generation: u64) -> bool {
        let may = match rule {
            Takeover::Always => true,
            Takeover::SameCredential => self.principal.credential == newer.credential,
            Takeover::Refuse => false,
        };
        // Of two logins that finished out of order, that of the later connection stays.
        may && self.generation < generation
    }

    /// Whether the session has all of these.
    #[must_use]
    pub fn has(&self, wanted: Capabilities) -> bool {
        Capabilities(self.capabilities.load(Ordering::Relaxed)).contain(wanted)
    }

    /// Adds these to what the session has; its door says when.
    pub fn gain(&self, Capabilities(bits): Capabilities) {
        self.capabilities.fetch_or(bits, Ordering::Relaxed);
    }

    /// Under which name the session's packets are counted.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.link.transport
    }

    /// Where the session's packets are accounted for.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.link.traffic
    }

    /// Accounts for packets that the peer has sent, and for their bytes.
    pub fn came_in(&self, packets: usize, bytes: usize) {
        let Link { transport, traffic, .. } = &self.link;
        traffic.shard().came_in(*transport, packets as u64, bytes as u64);
    }

    /// Queues records of one source. They leave with the next [`Self::flush`], or are counted
    /// with the reason why not.
    pub fn push<'a>(&self, records: impl Iterator<Item = Record<'a>>, arrival: &Arrival) -> Pushed {
        let Link { limits, overflow, traffic, .. } = &self.link;
        let pushed = self.outbox.lock().push(records, arrival, limits, traffic.shard());
        if pushed.overflowed && *overflow == Overflow::EndSession {
            self.end(End::Overflow);
        }
        pushed
    }

    /// Queues a control frame, or the text of a login; false where that lane is full. Between
    /// datagrams it is one of them, of the payload alone.
    pub fn push_control(&self, opcode: Opcode, payload: &[u8]) -> bool {
        self.outbox.lock().push_control(opcode, payload)
    }

    /// Queues a message of the door's own that no packet pushes out, in front of packets that
    /// wait. A peer that reads so little that as many bytes of them wait as its outbox may hold is
    /// ended: it would miss one.
    pub fn push_notice(&self, message: &[u8]) {
        if !self.outbox.lock().push_notice(&self.link.limits, message) {
            self.end(End::Overflow);
        }
    }

    /// Queues a message of the door's own behind all that waits, which nothing pushes out: records
    /// before it make room. A peer that reads so little that as many bytes of such wait as its
    /// outbox may hold is ended: it would miss one.
    pub fn push_kept(&self, message: &[u8], now: Instant) -> Pushed {
        let pushed = self.offer_kept(message, now);
        if pushed.overflowed {
            self.end(End::Overflow);
        }
        pushed
    }

    /// The same, but a message for which there is no room is not queued, and the session goes on.
    pub fn offer_kept(&self, message: &[u8], now: Instant) -> Pushed {
        let Link { limits, traffic, .. } = &self.link;
        self.outbox.lock().push_kept(limits, message, now, traffic.shard())
    }

    /// Writes what the kernel takes without waiting. Anybody may call it; whoever filled an
    /// outbox does so once at the end of its batch. What is left wakes the peer's own task.
    ///
    /// No lock is held in the system call: a flag admits one flusher, and who comes in
    /// between leaves its records to that one.
    pub fn flush(&self, now: Instant) {
        for _ in 0..FLUSH_ROUNDS {
            let taken = self.outbox.lock().take(&self.link.limits, now, self.link.traffic.shard());
            let Some(mut taken) = taken else { return };
            match self.link.stream.try_write_records(&taken.rest()) {
                Ok(written) if taken.wrote(written, now) => {
                    let mut outbox = self.outbox.lock();
                    outbox.finish(taken, now, &self.link.traffic);
                    if !outbox.has_work() {
                        if outbox.is_ending() {
                            // The peer's own task waits for the last byte.
                            break;
                        }
                        return;
                    }
                }
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    let mut outbox = self.outbox.lock();
                    outbox.put_back(taken, &self.link.traffic);
                    // A broken stream counts as writable for ever: nobody may try again.
                    outbox.close(&self.link.traffic);
                    drop(outbox);
                    self.end(End::ConnectionLost);
                    break;
                }
                Ok(_) | Err(_) => {
                    match self.link.stream.longest_record() {
                        None => self.outbox.lock().put_back(taken, &self.link.traffic),
                        Some(longest) => {
                            let mut outbox = self.outbox.lock();
                            outbox.put_back_datagrams(taken, longest, now, &self.link.traffic);
                        }
                    }
                    break;
                }
            }
        }
        self.task.wake();
    }

    /// Whether records wait that are longer than what the path carries at this moment: the peer's
    /// own task comes back with [`Self::retry_aside`].
    #[must_use]
    pub fn has_aside(&self) -> bool {
        self.outbox.lock().has_aside()
    }

    /// Looks again what the path carries of them.
    pub fn retry_aside(&self, now: Instant) {
        let Some(longest) = self.link.stream.longest_record() else { return };
        let Limits { age, .. } = self.link.limits;
        self.outbox.lock().retry_aside(longest, age, now, self.link.traffic.shard());
        self.flush(now);
    }

    /// Asks the peer's own task to end the session.
    pub fn end(&self, reason: End) {
        let end = reason as u8 + 1;
        self.change(|state| (state & ENDS == 0).then_some(state | end));
    }

    /// Has the peer's own task read nothing more from it, or go on; nothing else stops. What the
    /// task has read already, it still hands over.
    pub fn hold(&self, held: bool) {
        self.change(|state| match (held, state & HELD != 0) {
            (true, false) => Some(state & ENDS | HELD),
            (false, true) => Some(state & ENDS | RELEASED),
            (true, true) | (false, false) => None,
        });
    }

    /// Notes that the peer's own task has seen that it is held no more.
    pub fn resumed(&self) {
        self.change(|state| (state & RELEASED != 0).then_some(state & !RELEASED));
    }

    /// Changes the state, and wakes the peer's own task if it is another then.
    fn change(&self, change: impl Fn(u8) -> Option<u8>) {
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok() {
            self.task.wake();
        }
    }

    /// What the peer's own task is to do.
    #[must_use]
    pub fn state(&self) -> State {
        let state = self.state.load(Ordering::Acquire);
        if state == 0 {
            return State::Open;
        }
        match end_of(state) {
            Some(end) => State::Ending(end),
            None if state & HELD != 0 => State::Held,
            None => State::Released,
        }
    }

    /// Why the session is to end, once it is.
    #[must_use]
    pub fn ending(&self) -> Option<End> {
        end_of(self.state.load(Ordering::Acquire))
    }

    /// Whether records still reach the peer through this session.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) & ENDS == 0
    }

    /// The stream, for the peer's own task.
    #[must_use]
    pub fn stream(&self) -> &dyn Stream {
        &*self.link.stream
    }

    /// Waits, in the peer's own task, until there is something to write that the kernel may
    /// take, and writes it. Pending while nothing is to be done.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        loop {
            let mut outbox = self.outbox.lock();
            if outbox.flushing || outbox.closed || !outbox.has_work() {
                return Poll::Pending;
            }
            let blocked = outbox.blocked;
            drop(outbox);
            if blocked {
                match self.link.stream.poll_writable(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => self.outbox.lock().blocked = false,
                    Poll::Ready(Err(_)) => {
                        self.end(End::ConnectionLost);
                        return Poll::Pending;
                    }
                }
            }
            outbox = self.outbox.lock();
            let work = !outbox.blocked && outbox.has_work();
            drop(outbox);
            if work {
                // Others may fill the outbox as fast as the peer reads: its task has more to do.
                let turn = std::task::ready!(poll_proceed(cx));
                self.flush(Instant::now());
                turn.made_progress();
                return Poll::Ready(());
            }
        }
    }

    /// Since when the kernel has taken nothing of what is in flight.
    #[must_use]
    pub fn stuck_since(&self) -> Option<Instant> {
        self.outbox.lock().stuck_since()
    }

    /// What waits for the peer to read.
    #[must_use]
    pub fn backlog(&self, now: Instant) -> Backlog {
        self.outbox.lock().backlog(now)
    }

    /// Whether everything that was queued has left.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let outbox = self.outbox.lock();
        outbox.closed || !(outbox.flushing || outbox.has_work())
    }

    /// Sends what the kernel takes at once, gives up the rest of the records, and queues behind
    /// what is in flight the last message, and the payload of a Close frame.
    pub fn close_with(&self, last: Option<&[u8]>, close: Option<&[u8]>, now: Instant) {
        self.flush(now);
        let mut outbox = self.outbox.lock();
        outbox.end_records(&self.link.traffic);
        if let Some(last) = last {
            outbox.push_notice(&self.link.limits, last);
        }
        if let Some(close) = close {
            outbox.push_control(Opcode::Close, close);
        }
    }

    /// Ends the outbox: what it holds is counted as lost, and what comes is refused.
    pub fn close_outbox(&self) {
        self.outbox.lock().close(&self.link.traffic);
    }
}

/// Why a session in this state is to end.
fn end_of(state: u8) -> Option<End> {
    let position = usize::from(state & ENDS).checked_sub(1)?;
    End::ALL.get(position).copied()
}

#[cfg(test)]
mod tests;

//! The connections to the registry: requests go out as their pace allows, responses come
//! back in the same order.
//!
//! The first connection is there from the start and keeps free for what somebody waits for;
//! each further one is made when requests have to wait. A connection that breaks leaves its
//! unanswered requests to the others. When the registry cannot be reached, or does not answer at
//! all, they fail together and new ones fail at once until it can.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::backoff::Backoff;
use super::dial::{Dialled, Stream, Target};
use super::health::Agreed;
use super::pace::Pace;
use super::queue::Lane;
use super::{Ask, Call, Failure, Problem, Registry, Request};
use crate::wire::registry::{self as wire, DecodeError, Mode, PREAMBLE, Response};

/// Room for each read, in bytes: about a hundred binary answers.
const READ: usize = 8 * 1024;

/// Most requests without an answer on one connection: what comes behind them has to wait for all.
const MAX_SENT: usize = 256;

/// Most of them that nobody waits for: enough for 70 a second from a registry 100 ms away.
const MAX_SENT_LATER: usize = 8;

/// Requests without an answer from which on another connection is preferred, even if it has to be
/// made first.
const SHARED: usize = 4;

/// How long a request waits for a less busy connection.
const PREFERENCE: Duration = Duration::from_millis(100);

/// How long a look-up that nobody waits for waits for a connection other than the first.
const SPARED: Duration = Duration::from_secs(1);

/// After how long the first connection is made again if it was closed while it was idle: then
/// it is known whether the registry is there.
const RENEW: Duration = Duration::from_secs(30);

/// How soon a connection looks again at requests that it leaves to others.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Everything that must run for a registry.
pub(in crate::doors::pilot::directory) struct Connections {
    connections: Vec<Connection>,
}

impl Connections {
    pub(super) fn new(registry: &Arc<Registry>, target: Target, token: Option<&str>) -> Self {
        let target = Arc::new(target);
        let connection = |index| Connection {
            registry: Arc::clone(registry),
            target: Arc::clone(&target),
            admin_token: token.map(str::to_owned),
            index,
            pace: Pace::default(),
            sent: VecDeque::new(),
            sent_later: 0,
            speaks: registry.health.agreed(),
            answered: false,
            address: None,
            backoff: Backoff::default(),
        };
        Self { connections: (0..registry.health.connections()).map(connection).collect() }
    }

    /// Serves the registry's requests; ends only when it is dropped.
    pub(in crate::doors::pilot::directory) async fn run(self) {
        let mut running = JoinSet::new();
        for connection in self.connections {
            running.spawn(connection.run());
        }
        if let Some(Err(panicked)) = running.join_next().await
            && let Ok(panic) = panicked.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Connection {
    registry: Arc<Registry>,
    target: Arc<Target>,
    admin_token: Option<String>,
    index: usize,
    pace: Pace,
    /// Awaiting a response, oldest first, with the time at which each was sent.
    sent: VecDeque<(Request, Instant)>,
    /// Those of them that nobody waits for.
    sent_later: usize,
    speaks: Agreed,
    /// The registry has answered on this connection.
    answered: bool,
    /// Where this connection, or the last one, led; none where it was not made.
    address: Option<SocketAddr>,
    backoff: Backoff,
}

impl Connection {
    async fn run(mut self) {
        if self.index > 0 {
            self.registry.queue.backlog().await;
        }
        loop {
            match self.attempt().await {
                // Closed while nobody wanted anything: dialled again when somebody does.
                Ok(()) if self.index > 0 => self.registry.queue.backlog().await,
                Ok(()) => {
                    let _waited = timeout(RENEW, self.registry.queue.waiting()).await;
                }
                Err(problem) if problem.refused_mode && self.falls_back() => {
                    debug!(error = problem.error, "no binary mode at the registry, trying JSON");
                }
                Err(problem) => self.recover(&problem).await,
            }
        }
    }

    /// Whether the registry is to be spoken to otherwise, since it refused or closed this
    /// connection. While another one is there, that says nothing of how it speaks.
    fn falls_back(&self) -> bool {
        let health = &self.registry.health;
        health.is_cut_off() && health.fall_back(self.speaks)
    }

    async fn attempt(&mut self) -> Result<(), Problem> {
        self.answered = false;
        self.address = None;
        self.speaks = self.registry.health.agreed();
        let Dialled { stream, address } = self.target.dial().await?;
        self.address = address;
        self.registry.health.connected(self.index);
        let outcome = self.converse(stream).await;
        self.registry.health.disconnected(self.index);
        self.sent_later = 0;
        self.registry.queue.give_back(self.sent.drain(..).map(|(request, _)| request));
        outcome
    }

    async fn recover(&mut self, problem: &Problem) {
        let health = &self.registry.health;
        health.report(problem.failure, &problem.error);
        // What takes connections and answers nothing, such as a proxy with nothing behind it,
        // must not keep us from the registry's other addresses.
        if let (false, Some(address)) = (self.answered, self.address) {
            self.target.demote(address);
        }
        if self.answered {
            self.backoff.reset();
        } else if health.fail() {
            self.registry.queue.clear();
            if problem.refused_mode {
                health.forget_mode();
            }
        }
        // Without randomness there is no jitter, which is no reason to stop.
        sleep(self.backoff.next(getrandom::u32().unwrap_or(u32::MAX))).await;
        if self.index > 0 {
            self.registry.queue.backlog().await;
        }
    }

    /// Carries requests and responses until the connection ends; `Ok` when it was idle.
    async fn converse(&mut self, stream: Box<dyn Stream>) -> Result<(), Problem> {
        let registry = Arc::clone(&self.registry);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (mut received, mut out) = (BytesMut::new(), BytesMut::new());
        let mut flushed = true;
        let mut heard = Instant::now();
        if self.speaks.mode == Mode::Binary {
            out.extend_from_slice(&PREAMBLE);
        }
        loop {
            let mut added = std::pin::pin!(registry.queue.added());
            added.as_mut().enable();
            flushed &= !self.encode_requests(&mut out);
            let look_again = self.look_again();
            received.reserve(READ);
            let wait = registry.health.wait();
            // Those in front were answered: a slow registry takes its time for each.
            let overdue = self.sent.front().map(|(_, at)| heard.max(*at) + wait);
            tokio::select! {
                () = added, if look_again.is_none() => {}
                () = sleep_until(look_again.unwrap_or_else(Instant::now)), if look_again.is_some() => {}
                read = reader.read_buf(&mut received) => {
                    let closed = match read {
                        Ok(0) => Some("the registry closed the connection".to_owned()),
                        Ok(_) => None,
                        Err(error) => Some(error.to_string()),
                    };
                    if let Some(error) = closed {
                        return self.closed(error, received.is_empty());
                    }
                    heard = Instant::now();
                    while let Some(message) = self.take_message(&mut received)? {
                        self.take_response(&message)?;
                    }
                }
                written = async {
                    writer.write_all_buf(&mut out).await?;
                    writer.flush().await
                }, if !flushed => {
                    if let Err(error) = written {
                        return self.closed(error.to_string(), received.is_empty());
                    }
                    flushed = true;
                }
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                    self.give_up_first();
                    registry.health.unanswered();
                    // Slow is not absent: that is no reason to speak otherwise.
                    return Err(Problem::new(Failure::Timeout, format!("no answer within {wait:?}")));
                }
            }
        }
    }

    /// Moves requests into the buffer as the pace allows; whether there was any.
    fn encode_requests(&mut self, out: &mut BytesMut) -> bool {
        let before = out.len();
        while self.pace.ready_at(Instant::now()) <= Instant::now() && self.sent.len() < MAX_SENT {
            let Some(request) = self.next_request() else { break };
            let encoded = match &request.call {
                Call::Lookup(ask) => wire::Request::Lookup(ask.node()),
                Call::RegisterBeacon { id, address, .. } => wire::Request::RegisterBeacon {
                    id: *id,
                    address,
                    admin_token: self.admin_token.as_deref(),
                },
                Call::ListBeacons { .. } => wire::Request::ListBeacons,
            };
            encoded.encode(self.speaks.mode, out);
            let now = Instant::now();
            self.pace.take(now);
            self.registry.health.asked(now);
            self.sent_later += usize::from(request.lane == Lane::Later);
            self.sent.push_back((request, now));
            self.registry.health.set_load(self.index, self.sent.len());
        }
        out.len() > before
    }

    /// The next request for this connection. One that somebody waits for goes where least is to
    /// be answered before it; the others go by the further connections, a few at a time.
    fn next_request(&self) -> Option<Request> {
        let (queue, health) = (&self.registry.queue, &self.registry.health);
        let wait = health.wait();
        let load = self.sent.len();
        let (least, all_there) = health.least_load();
        let is_least = load <= least && (load < SHARED || all_there);
        let age = if is_least { Duration::ZERO } else { PREFERENCE };
        if let Some(request) = queue.take(Lane::Urgent, age, wait) {
            return Some(request);
        }
        let alone = health.connections() == 1;
        let age = match self.index {
            0 if alone => Duration::ZERO,
            0 => SPARED,
            _ => Duration::ZERO,
        };
        let most = if self.index == 0 { 1 } else { MAX_SENT_LATER };
        if self.sent_later >= most || (self.index == 0 && load > 0) {
            return None;
        }
        queue.take(Lane::Later, age, wait)
    }

    /// When to look at the queue again, where something waits there.
    fn look_again(&self) -> Option<Instant> {
        // An answer is looked for anyway.
        if self.registry.queue.is_empty() || self.sent.len() >= MAX_SENT {
            return None;
        }
        let now = Instant::now();
        Some(self.pace.ready_at(now).max(now + LOOK_AGAIN))
    }

    fn closed(&mut self, error: String, between_messages: bool) -> Result<(), Problem> {
        if self.sent.is_empty() && between_messages {
            return Ok(());
        }
        if !between_messages {
            self.give_up_first();
        }
        let refused_mode = !self.answered && between_messages;
        Err(Problem { failure: Failure::Closed, error, refused_mode })
    }

    /// Drops the request whose answer went wrong, so that it does not cost another connection
    /// as well.
    fn give_up_first(&mut self) {
        self.take_first();
    }

    fn take_first(&mut self) -> Option<Request> {
        let (request, _) = self.sent.pop_front()?;
        self.sent_later -= usize::from(request.lane == Lane::Later);
        self.registry.health.set_load(self.index, self.sent.len());
        Some(request)
    }

    fn take_message(&mut self, received: &mut BytesMut) -> Result<Option<Bytes>, Problem> {
        wire::take_message(received).map_err(|error| {
            self.give_up_first();
            error.into()
        })
    }

    fn take_response(&mut self, message: &[u8]) -> Result<(), Problem> {
        let mode = self.speaks.mode;
        let response = match Response::decode(mode, message) {
            // What a registry says to a preamble that it takes for JSON.
            Err(error @ DecodeError::UnknownType(_)) if !self.speaks.confirmed => {
                return Err(Problem::refused_mode(Failure::Malformed, error));
            }
            response => response,
        };
        if !self.speaks.confirmed {
            self.speaks.confirmed = true;
            self.registry.health.agree(mode);
        }
        let Some(request) = self.take_first() else {
            return Err(Problem::new(Failure::Malformed, "a response that nobody asked for"));
        };
        let refused = match (request.call, response?) {
            (Call::Lookup(ask), Response::Key { node, key }) => {
                check_node(&ask, node)?;
                self.registry.settle(ask, Some(key));
                None
            }
            (Call::Lookup(ask), Response::NotFound { node }) => {
                node.map_or(Ok(()), |node| check_node(&ask, node))?;
                self.registry.settle(ask, None);
                None
            }
            (Call::RegisterBeacon { done, .. }, Response::BeaconRegistered) => {
                // Whoever asked may have given up; so below.
                let _ = done.send(Ok(()));
                None
            }
            (Call::ListBeacons { done }, Response::Beacons(beacons)) => {
                let _ = done.send(Ok(beacons));
                None
            }
            (call, Response::Failed(text)) => {
                call.refuse(&self.registry, &text);
                Some(text)
            }
            (call, Response::NotFound { .. }) => {
                call.refuse(&self.registry, "not found");
                None
            }
            _ => return Err(Problem::new(Failure::Malformed, "a response to another request")),
        };
        self.answered = true;
        self.registry.health.answered();
        match refused {
            Some(text) => self.registry.health.report(Failure::Refused, &text),
            None => self.registry.health.well(mode),
        }
        Ok(())
    }
}

/// Refuses an answer about another node: the answers have got out of step with the questions.
fn check_node(ask: &Ask, answered: u32) -> Result<(), Problem> {
    if answered == ask.node().number() {
        return Ok(());
    }
    let error = format!("asked for node {}, answered for {answered}", ask.node());
    Err(Problem::new(Failure::WrongNode, error))
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        let failure = match error {
            DecodeError::TooLong(_) => Failure::TooLong,
            DecodeError::PublicKey(_) => Failure::WrongKey,
            DecodeError::Truncated
            | DecodeError::UnknownType(_)
            | DecodeError::UnknownMessage
            | DecodeError::Missing(_)
            | DecodeError::Json(_) => Failure::Malformed,
        };
        Self::new(failure, error)
    }
}

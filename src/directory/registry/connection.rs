//! The one connection to the registry: requests go out as they come, responses come
//! back in the same order.
//!
//! A connection that breaks leaves its unanswered requests to the next one. When the
//! registry cannot be reached, or does not answer at all, they fail together and new ones
//! fail at once until it can.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::dial::{Stream, Target};
use super::{Ask, Call, DEADLINE, Failure, MAX_REQUESTS, Problem, Registry, Request};
use crate::ids::InvalidPublicKey;
use crate::wire::registry::{self as wire, DecodeError, Mode, PREAMBLE, Response};

/// How long a registry may be silent before we take it that it has no binary mode.
const TRIAL: Duration = Duration::from_secs(1);

/// Room for each read, in bytes: about a hundred binary answers.
const READ: usize = 8 * 1024;

/// How long the same failure is not worth another warning.
const QUIET: Duration = Duration::from_secs(60);

pub(in crate::directory) struct Connection {
    registry: Arc<Registry>,
    target: Target,
    admin_token: Option<String>,
    requests: mpsc::Receiver<Request>,
    /// To be sent, oldest first.
    waiting: VecDeque<Request>,
    /// Awaiting a response, oldest first, with the time at which each was sent.
    sent: VecDeque<(Request, Instant)>,
    mode: Mode,
    /// The registry has answered in `mode`.
    confirmed: bool,
    /// The registry has answered on this connection.
    answered: bool,
    backoff: Backoff,
    /// The log's last word is that the registry answers.
    well: bool,
    warned: Option<(Failure, Instant)>,
}

impl Connection {
    pub(super) fn new(
        registry: Arc<Registry>,
        target: Target,
        admin_token: Option<String>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        Self {
            registry,
            target,
            admin_token,
            requests,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            mode: Mode::Binary,
            confirmed: false,
            answered: false,
            backoff: Backoff::default(),
            well: false,
            warned: None,
        }
    }

    /// Serves the registry's requests; ends only when it is dropped.
    pub(in crate::directory) async fn run(mut self) {
        loop {
            match self.attempt().await {
                // Closed while nobody wanted anything: dialled again when somebody does.
                Ok(()) => {
                    let request = self.requests.recv().await;
                    self.waiting.extend(request);
                }
                Err(problem) if problem.silent && self.mode == Mode::Binary && !self.confirmed => {
                    debug!(error = problem.error, "no binary mode at the registry, trying JSON");
                    self.mode = Mode::Json;
                }
                Err(problem) => self.recover(&problem).await,
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Problem> {
        self.answered = false;
        let stream = self.target.dial().await?;
        self.registry.set_down(false);
        let outcome = self.converse(stream).await;
        while let Some((request, _)) = self.sent.pop_back() {
            self.waiting.push_front(request);
        }
        outcome
    }

    async fn recover(&mut self, problem: &Problem) {
        self.report(problem.failure, &problem.error);
        if self.answered {
            self.backoff.reset();
        } else {
            self.registry.set_down(true);
            self.well = false;
            self.waiting.clear();
            while self.requests.try_recv().is_ok() {}
            if problem.silent {
                (self.mode, self.confirmed) = (Mode::Binary, false);
            }
        }
        // Without randomness there is no jitter, which is no reason to stop.
        sleep(self.backoff.next(getrandom::u32().unwrap_or(u32::MAX))).await;
    }

    /// Carries requests and responses until the connection ends; `Ok` when it was idle.
    async fn converse(&mut self, stream: Box<dyn Stream>) -> Result<(), Problem> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (mut received, mut out) = (BytesMut::new(), BytesMut::new());
        let mut flushed = true;
        if self.mode == Mode::Binary {
            out.extend_from_slice(&PREAMBLE);
        }
        loop {
            flushed &= !self.encode_waiting(&mut out);
            received.reserve(READ);
            let limit = if self.mode == Mode::Binary && !self.confirmed { TRIAL } else { DEADLINE };
            let overdue = self.sent.front().map(|(_, at)| *at + limit);
            tokio::select! {
                request = self.requests.recv(), if self.sent.len() < MAX_REQUESTS => {
                    self.waiting.extend(request);
                }
                read = reader.read_buf(&mut received) => {
                    let closed = match read {
                        Ok(0) => Some("the registry closed the connection".to_owned()),
                        Ok(_) => None,
                        Err(error) => Some(error.to_string()),
                    };
                    if let Some(error) = closed {
                        return self.closed(error, received.is_empty());
                    }
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
                    return Err(self.overdue(limit, received.is_empty()));
                }
            }
        }
    }

    /// Moves what waits into the buffer; whether there was anything.
    fn encode_waiting(&mut self, out: &mut BytesMut) -> bool {
        let (before, now) = (out.len(), Instant::now());
        while let Some(request) = self.waiting.pop_front() {
            // Whoever asked has given up.
            if now >= request.asked + DEADLINE {
                continue;
            }
            let encoded = match &request.call {
                Call::Lookup(ask) => wire::Request::Lookup(ask.node()),
                Call::RegisterBeacon { id, address, .. } => wire::Request::RegisterBeacon {
                    id: *id,
                    address,
                    admin_token: self.admin_token.as_deref(),
                },
                Call::ListBeacons { .. } => wire::Request::ListBeacons,
            };
            encoded.encode(self.mode, out);
            self.sent.push_back((request, now));
        }
        out.len() > before
    }

    fn closed(&mut self, error: String, between_messages: bool) -> Result<(), Problem> {
        if self.sent.is_empty() && between_messages {
            return Ok(());
        }
        if !between_messages {
            self.give_up_first();
        }
        let silent = !self.answered && between_messages;
        Err(Problem { failure: Failure::Closed, error, silent })
    }

    fn overdue(&mut self, limit: Duration, between_messages: bool) -> Problem {
        if limit == DEADLINE {
            self.give_up_first();
        }
        let silent = !self.answered && between_messages;
        Problem { failure: Failure::Timeout, error: format!("no answer within {limit:?}"), silent }
    }

    /// Drops the request whose answer went wrong, so that it does not cost the next
    /// connection as well.
    fn give_up_first(&mut self) {
        self.sent.pop_front();
    }

    fn take_message(&mut self, received: &mut BytesMut) -> Result<Option<Bytes>, Problem> {
        wire::take_message(received).map_err(|error| {
            self.give_up_first();
            error.into()
        })
    }

    fn take_response(&mut self, message: &[u8]) -> Result<(), Problem> {
        let response = match Response::decode(self.mode, message) {
            // What a registry says to a preamble that it takes for JSON.
            Err(error @ DecodeError::UnknownType(_)) if !self.confirmed => {
                return Err(Problem::silent(Failure::Malformed, error));
            }
            response => response,
        };
        self.confirmed = true;
        let Some((request, _)) = self.sent.pop_front() else {
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
        if let Some(text) = refused {
            self.report(Failure::Refused, &text);
        } else if !self.well {
            self.well = true;
            self.warned = None;
            info!(registry = self.target.address(), mode = ?self.mode, "the registry answers");
        }
        Ok(())
    }

    /// Counts a failure, and warns of it unless the last warning said the same just now.
    fn report(&mut self, failure: Failure, error: &str) {
        self.registry.failures.of(failure).increment();
        let (registry, reason) = (self.target.address(), crate::metrics::Word::word(failure));
        let now = Instant::now();
        if self.warned.is_some_and(|(last, at)| last == failure && now < at + QUIET) {
            debug!(registry, reason, error, "the registry failed again");
        } else {
            self.warned = Some((failure, now));
            warn!(registry, reason, error, "the registry failed; known keys stay in use");
        }
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
            DecodeError::PublicKey(
                InvalidPublicKey::WrongLength(_) | InvalidPublicKey::NotBase64,
            ) => Failure::WrongKey,
            DecodeError::Truncated
            | DecodeError::UnknownType(_)
            | DecodeError::UnknownMessage
            | DecodeError::Missing(_)
            | DecodeError::Json(_) => Failure::Malformed,
        };
        Self::new(failure, error)
    }
}

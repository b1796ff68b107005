//! A STUN server: tells clients over UDP which address they come from (RFC 8489), and nothing
//! else.
//!
//! It has a thread for each of its addresses, so that a flood of requests costs the threads of
//! other datagrams no more than what it costs the machine. An answer is 12 bytes longer than the
//! smallest request, or 24 over IPv6, which the protocol wants; so many a second go to one client.

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use prometheus::proto::MetricFamily;

use crate::metrics::{Sharded, family};
use crate::net::udp::{BATCH, Datagrams, Received, Run};
use crate::proto::limit::{Bucket, Places, Rate};
use crate::proto::network::Client;
use crate::proto::translators::Translators;
use crate::udp::{DatagramSink, Threads, Turns};
use crate::wire::stun::{DecodeError, Request};
use crate::words;

/// Answers a second for each client address, and at once: an office behind one address may start
/// all of its machines in the same moment. 200 answers are 10,400 bytes.
const RATE: Rate = Rate::per_second(200).with_burst(1_000);

/// Client addresses that have a bucket at a time, at each address of the server.
const CLIENTS: usize = 16_384;

words! {
    /// What became of a datagram.
    pub enum Outcome {
        /// A request, which was answered.
        Answered => "answered",
        /// A request with attributes that must be understood and are not: that was the answer.
        UnknownAttribute => "unknown_attribute",
        /// The client has had as many answers as it may.
        RateLimited => "rate_limited",
        /// No STUN, or STUN as it was before RFC 5389.
        NotStun => "not_stun",
        /// STUN, and no Binding request.
        NoRequest => "no_request",
        /// Its attributes do not fit it.
        BadAttributes => "bad_attributes",
        /// Its fingerprint is that of another message.
        BadFingerprint => "bad_fingerprint",
        /// It comes from an address that nobody can have.
        BadSource => "bad_source",
        /// The kernel did not take the answer.
        NotSent => "not_sent",
    }
}

impl Outcome {
    const fn is_answer(self) -> bool {
        matches!(self, Self::Answered | Self::UnknownAttribute)
    }
}

impl From<DecodeError> for Outcome {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::NoRequest(_) => Self::NoRequest,
            DecodeError::Attributes => Self::BadAttributes,
            DecodeError::Fingerprint => Self::BadFingerprint,
            DecodeError::NotStun => Self::NotStun,
        }
    }
}

/// What answers, on the threads that receive.
#[derive(Debug)]
struct Answers {
    translators: Translators,
    outcomes: Sharded<Outcome>,
}

/// What one thread has.
#[derive(Debug)]
struct Worker {
    clients: Places<Bucket>,
    /// The answers of a batch, one behind the other.
    bytes: Vec<u8>,
    /// Each with its length and where it goes.
    answers: Vec<Answer>,
    /// One answer, while it is written.
    answer: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    length: usize,
    to: SocketAddr,
    from: Option<IpAddr>,
    outcome: Outcome,
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    answers: Arc<Answers>,
    threads: Vec<Threads>,
}

impl Server {
    /// Answers at each of these sockets, whose clients may come through translators.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(sockets: &[Arc<dyn Datagrams>], translators: Translators) -> io::Result<Self> {
        let answers = Arc::new(Answers { translators, outcomes: Sharded::default() });
        let start = |socket| Threads::start(std::slice::from_ref(socket), &answers);
        let threads = sockets.iter().map(start).collect::<io::Result<_>>()?;
        Ok(Self { answers, threads })
    }

    /// Where it answers.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.threads.iter().map(Threads::address)
    }

    /// How often each thread has looked for requests.
    pub fn turns(&self) -> impl Iterator<Item = &Turns> {
        self.threads.iter().map(Threads::turns)
    }

    /// Waits until a thread has ended without being told to: a failure of ours.
    pub async fn failed(&self) {
        if self.threads.is_empty() {
            return std::future::pending().await;
        }
        let ended = self.threads.iter().map(|threads| Box::pin(threads.failed()));
        futures_util::future::select_all(ended).await;
    }

    /// Stops the threads and waits for them, 100 ms at most for each.
    pub fn stop(&self) {
        self.threads.iter().for_each(Threads::stop);
    }

    /// A function that appends the families of the server to a scrape; none where it has no
    /// address.
    pub fn exporter(&self) -> impl Fn(&mut Vec<MetricFamily>) + use<> {
        let answers = Arc::clone(&self.answers);
        let is_there = !self.threads.is_empty();
        let losses: Vec<_> = self.threads.iter().map(Threads::losses).collect();
        move |families| {
            if !is_there {
                return;
            }
            let lost = |of: fn((u64, u64)) -> u64| losses.iter().map(|losses| of(losses())).sum();
            let kernel_dropped: u64 = lost(|(dropped, _)| dropped);
            let panics: u64 = lost(|(_, panics)| panics);
            let of_threads = [("kernel_dropped", kernel_dropped), ("failed", panics)];
            let all: Vec<_> = answers
                .outcomes
                .iter()
                .chain(of_threads)
                .map(|(word, count)| ([word], count))
                .collect();
            families.push(family::counts(
                "beacon_relay_stun_requests_total",
                "Datagrams that came to a STUN address, by what became of them.",
                &["outcome"],
                all.iter().map(|(words, count)| (words.as_slice(), *count)),
            ));
        }
    }
}

impl Answers {
    /// What becomes of a datagram; its answer is written.
    fn judge(
        &self,
        worker: &mut Worker,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Outcome {
        let ip = from.ip().to_canonical();
        let is_multicast = ip.is_multicast() || ip == IpAddr::from([255; 4]);
        if from.port() == 0 || ip.is_unspecified() || is_multicast {
            return Outcome::BadSource;
        }
        let request = match Request::decode(datagram) {
            Ok(request) => request,
            Err(error) => return error.into(),
        };
        let client = Client::of(ip, &self.translators);
        if !worker.clients.of(&client, now).take(RATE, 1, now) {
            return Outcome::RateLimited;
        }
        request.answer(SocketAddr::new(ip, from.port()), &mut worker.answer);
        if request.unknown.is_empty() { Outcome::Answered } else { Outcome::UnknownAttribute }
    }
}

impl DatagramSink for Answers {
    type Worker = Worker;

    fn worker(&self, _threads: usize) -> Worker {
        Worker {
            clients: Places::new(CLIENTS),
            bytes: Vec::new(),
            answers: Vec::with_capacity(BATCH),
            answer: Vec::new(),
        }
    }

    fn datagrams(
        &self,
        worker: &mut Worker,
        socket: &dyn Datagrams,
        batch: &Received,
        now: Instant,
    ) {
        worker.bytes.clear();
        worker.answers.clear();
        for (datagram, request) in batch.iter() {
            let outcome = self.judge(worker, datagram.from, request, now);
            if !outcome.is_answer() {
                self.outcomes.add(outcome, 1);
                continue;
            }
            let Worker { bytes, answers, answer, .. } = worker;
            bytes.extend_from_slice(answer);
            let length = answer.len();
            answers.push(Answer { length, to: datagram.from, from: datagram.to, outcome });
        }
        let mut rest = &*worker.bytes;
        let runs: Vec<_> = worker
            .answers
            .iter()
            .map(|Answer { length, to, from, .. }| {
                let (bytes, behind) = rest.split_at(*length);
                rest = behind;
                Run { to: *to, from: *from, bytes, segment: bytes.len() }
            })
            .collect();
        // What comes behind a packet that the kernel had no room for is not tried.
        let mut sent = vec![false; runs.len()];
        socket.send(&runs, &mut |run, _packets, result| {
            if let Some(sent) = sent.get_mut(run) {
                *sent = result.is_ok();
            }
        });
        for (answer, is_sent) in worker.answers.iter().zip(sent) {
            let outcome = if is_sent { answer.outcome } else { Outcome::NotSent };
            self.outcomes.add(outcome, 1);
        }
    }
}

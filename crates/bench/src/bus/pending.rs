//! Messages that wait for peers who are not there: what they take of memory and of a start, and
//! how soon and in which order they arrive when their peers are back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::peerbus::Peer;
use crate::subject::{Kind, Servers, Subject};

/// Bytes of a message, without what the protocol adds.
const SIZE: usize = 256;

/// Senders at work at a time.
const SENDERS: u64 = 8;

/// Messages of a sender whose receipts have yet to come.
const WINDOW: u64 = 64;

/// Peers whose return is timed.
const RETURNING: u32 = 20;

/// Longest wait for a relay that was started again.
const PATIENCE: Duration = Duration::from_mins(1);

/// What waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Peers who are not there.
    pub(crate) names: u32,
    /// Messages for all of them together.
    pub(crate) messages: u64,
    /// How many of these are for the first.
    pub(crate) drained: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) messages: u64,
    /// Anonymous resident memory of the relay that took them, in MB.
    pub(crate) memory_mb: f64,
    /// The same of one that was started again.
    pub(crate) memory_again_mb: f64,
    /// From the start of that one to the first peer who is let in, in seconds.
    pub(crate) start_s: f64,
    /// From the registration to the first message, in ms: the middle one and the longest.
    pub(crate) first_ms: [f64; 2],
    /// Messages a second that the first peer received and acknowledged, all in their order.
    pub(crate) drained_per_second: f64,
}

/// Runs it.
///
/// # Errors
/// A relay that does not start, a message that is lost or out of order.
#[allow(clippy::cast_precision_loss)] // far below 2^53
pub(crate) fn run(servers: &Servers, waiting: &Waiting) -> anyhow::Result<Figures> {
    let quota = waiting.messages.to_string();
    let further = ["--upgrade-burst", "1000000", "--bus-quota-messages", &quota];
    let further = [&further[..], &["--bus-quota-bytes", "4294967296"]].concat();
    let relay = servers.start(Kind::Peerbus, &[], &further)?;
    let sent = fill(&relay, waiting)?;
    let memory_mb = memory(&relay)?;
    let began = Instant::now();
    let relay = servers.start_again(relay, &further)?;
    drop(register(&relay, "somebody-else")?);
    let start_s = began.elapsed().as_secs_f64();
    let memory_again_mb = memory(&relay)?;
    let mut times = Vec::new();
    for number in 1..=RETURNING.min(waiting.names - 1) {
        times.push(first_message(&relay, number)?.as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let first_ms = [times.get(times.len() / 2), times.last()];
    let first_ms = first_ms.map(|ms| ms.copied().unwrap_or(f64::NAN));
    let drained = sent.first().copied().context("there is a first peer")?;
    let drained_per_second = drained as f64 / drain(&relay, drained)?.as_secs_f64();
    let messages = sent.iter().sum();
    Ok(Figures { messages, memory_mb, memory_again_mb, start_s, first_ms, drained_per_second })
}

fn name(number: u32) -> String {
    format!("receiver-{number}")
}

#[allow(clippy::cast_precision_loss)] // far below 2^53
fn memory(relay: &Subject) -> anyhow::Result<f64> {
    Ok(relay.usage()?.anonymous as f64 / 1e6)
}

/// Has all names known, and messages for each durable: how many.
fn fill(relay: &Subject, waiting: &Waiting) -> anyhow::Result<Vec<u64>> {
    let Waiting { names, messages, drained } = *waiting;
    for number in 0..names {
        drop(Peer::open(relay.wss, &name(number), number.into())?);
    }
    let others = messages.saturating_sub(drained).div_ceil(u64::from(names - 1).max(1));
    let counts: Vec<u64> =
        (0..names).map(|number| if number == 0 { drained } else { others }).collect();
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let counts = &counts;
                scope.spawn(move || send(relay, sender, counts))
            })
            .collect();
        senders.into_iter().try_for_each(|sender| sender.join().expect("a sender tells its error"))
    })?;
    Ok(counts)
}

/// What one of the senders sends: all messages for its share of the peers, numbered from 0.
fn send(relay: &Subject, sender: u64, counts: &[u64]) -> anyhow::Result<()> {
    let body = "x".repeat(SIZE);
    let mut peer = Peer::open(relay.wss, &format!("sender-{sender}"), sender)?;
    for (number, count) in (0u32..).zip(counts) {
        if u64::from(number) % SENDERS != sender {
            continue;
        }
        let to = name(number);
        let mut ids = (0..*count).map(|id| (u64::from(number) << 32) + id);
        let mut in_flight = 0;
        loop {
            for id in ids.by_ref().take(usize::try_from(WINDOW - in_flight)?) {
                peer.push_message(&to, id, &body);
                in_flight += 1;
            }
            if in_flight == 0 {
                break;
            }
            peer.flush()?;
            in_flight = in_flight.saturating_sub(peer.receipts()?.into());
        }
    }
    Ok(())
}

/// Registers a name with a relay that may not be ready yet.
fn register(relay: &Subject, name: &str) -> anyhow::Result<Peer> {
    let end = Instant::now() + PATIENCE;
    loop {
        match Peer::open(relay.wss, name, 1) {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            peer => return peer,
        }
    }
}

/// How long a peer who is back waits for its first message.
fn first_message(relay: &Subject, number: u32) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut peer = Peer::open(relay.wss, &name(number), number.into())?;
    let mut took = None;
    while took.is_none() {
        peer.take(|_, _| {
            took.get_or_insert_with(|| began.elapsed());
            Ok(())
        })?;
    }
    took.context("a message came")
}

/// How long it takes the first peer to receive and acknowledge all that waits for it, in order.
fn drain(relay: &Subject, count: u64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut peer = Peer::open(relay.wss, &name(0), 0)?;
    let mut expected = 0;
    while expected < count {
        peer.take(|key, _| {
            if key != format!("{expected:032x}") {
                bail!("message {key} comes where {expected:032x} is due");
            }
            expected += 1;
            Ok(())
        })?;
    }
    Ok(began.elapsed())
}

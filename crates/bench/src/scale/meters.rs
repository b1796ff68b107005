//! What is counted while a phase lasts.

use beacon_wire::cluster::{Frame, encode};
use beacon_wire::name::Name;

/// What a phase came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// How long it lasted, in simulated seconds.
    pub(crate) seconds: f64,
    /// Control messages of all relays, but those of look-ups.
    pub(crate) messages: u64,
    /// Control messages that a relay sent in a second, on average.
    pub(crate) messages_per_relay: f64,
    /// The most that one relay sent in one second.
    pub(crate) most_messages: u64,
    /// Bytes of control messages that a relay sent in a second, on average.
    pub(crate) bytes_per_relay: f64,
    /// The most bytes that one relay sent in one second.
    pub(crate) most_bytes: u64,
    /// Look-ups that found their node.
    pub(crate) found: u64,
    /// Look-ups of a node that was dialling.
    pub(crate) missing: u64,
    /// Look-ups that were told of no relay although the node had been at one for a second.
    pub(crate) not_found: u64,
    /// Time from the look-up to its answer in the median, in milliseconds.
    pub(crate) p50_ms: u64,
    /// The same of 99 in a hundred.
    pub(crate) p99_ms: u64,
    /// The longest.
    pub(crate) longest_ms: u64,
    /// Sampled nodes that a look-up at another relay did not find when the phase was over and
    /// nothing had happened for five seconds.
    pub(crate) lost_at_end: u64,
}

/// Counts of a second, of one relay.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    messages: u64,
    bytes: u64,
}

/// The counters of a phase.
pub(super) struct Meters {
    began: u64,
    this_second: Vec<Sent>,
    all: Sent,
    most: Sent,
    times: Vec<u64>,
    missing: u64,
    not_found: u64,
    scratch: Vec<u8>,
}

impl Meters {
    pub(super) fn new(relays: usize, now: u64) -> Self {
        Self {
            began: now,
            this_second: vec![Sent::default(); relays],
            all: Sent::default(),
            most: Sent::default(),
            times: Vec::new(),
            missing: 0,
            not_found: 0,
            scratch: Vec::new(),
        }
    }

    /// A relay sends a message.
    pub(super) fn sent(&mut self, relay: usize, frame: &Frame<'static, Name>) {
        if matches!(frame, Frame::Find { .. } | Frame::Found { .. } | Frame::Missing { .. }) {
            return;
        }
        self.scratch.clear();
        encode(frame, &mut self.scratch);
        let sent = &mut self.this_second[relay];
        sent.messages += 1;
        sent.bytes += self.scratch.len() as u64;
    }

    /// A second is over.
    pub(super) fn end_second(&mut self) {
        for sent in &mut self.this_second {
            let Sent { messages, bytes } = std::mem::take(sent);
            self.all.messages += messages;
            self.all.bytes += bytes;
            self.most.messages = self.most.messages.max(messages);
            self.most.bytes = self.most.bytes.max(bytes);
        }
    }

    /// A look-up found its node after so many milliseconds.
    pub(super) fn found(&mut self, ms: u64) {
        self.times.push(ms);
    }

    /// A look-up was told that no relay has the node, which is connected for long, or is not.
    pub(super) fn missing(&mut self, is_connected: bool) {
        if is_connected {
            self.not_found += 1;
        } else {
            self.missing += 1;
        }
    }

    pub(super) fn figures(mut self, now: u64) -> Figures {
        self.end_second();
        self.times.sort_unstable();
        let rank = |permille: usize| {
            let last = self.times.len().saturating_sub(1);
            self.times.get(last * permille / 1_000).copied().unwrap_or_default()
        };
        let seconds = (now - self.began) as f64 / 1e3;
        let relay_seconds = seconds * self.this_second.len() as f64;
        Figures {
            seconds,
            messages: self.all.messages,
            messages_per_relay: self.all.messages as f64 / relay_seconds,
            most_messages: self.most.messages,
            bytes_per_relay: self.all.bytes as f64 / relay_seconds,
            most_bytes: self.most.bytes,
            found: self.times.len() as u64,
            missing: self.missing,
            not_found: self.not_found,
            p50_ms: rank(500),
            p99_ms: rank(990),
            longest_ms: rank(1_000),
            lost_at_end: 0,
        }
    }
}

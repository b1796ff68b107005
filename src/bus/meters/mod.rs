//! What the bus counts.

mod channels;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use self::channels::Channels;
pub use self::channels::Lag;
use super::health::{Call, Failing, Trouble, Watch};
use super::syncing;
use super::{Health, Outcome};
use crate::metrics::{Counter, HALF_DECADES, Histogram, Labelled, Word as _, family};
use crate::proto::bus::{Bus, Millis, Refused, Totals};
use crate::store::{Space, StoreError};
use crate::words;

/// Places that cannot be read and are told of, each once.
const MOST_DAMAGES: usize = 64;

words! {
    /// What became of a message that a peer has sent.
    pub(super) enum Result {
        /// It was stored.
        Stored => "stored",
        /// A broadcast of which some recipients got no copy.
        Partly => "partly_stored",
        /// It had been stored before.
        Duplicate => "duplicate",
        /// Nobody has the recipient's name.
        UnknownRecipient => "unknown_recipient",
        /// The recipient's mailbox is full.
        Quota => "quota",
        /// The disk is full.
        StoreFull => "store_full",
        /// A broadcast, and nobody else was connected.
        NoRecipients => "no_recipients",
        /// A broadcast, and the mailbox of each recipient was full.
        RecipientsFull => "recipients_full",
        /// The copies of a broadcast are too much at a time.
        TooManyCopies => "too_many_copies",
        /// Other messages have all keys that it could have.
        KeyTaken => "key_taken",
        /// It waited for room for too long, or its sender left meanwhile.
        GivenUp => "given_up",
    }
}

words! {
    /// How a message left its mailbox.
    enum Way {
        /// Its recipient has acknowledged it.
        Acknowledged => "acknowledged",
        /// It was too old.
        Expired => "expired",
        /// An operator has purged it.
        Purged => "purged",
        /// It became a dead letter.
        Dead => "dead_letter",
        /// The store has lost it.
        Missing => "missing",
        /// It cannot be read any more.
        Damaged => "damaged",
    }
}

words! {
    /// The thread that has taken a turn.
    pub(super) enum Thread {
        /// The bus's.
        Bus => "bus",
        /// That of the sessions.
        Sessions => "sessions",
    }
}

impl From<Outcome> for Result {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Stored => Self::Stored,
            Outcome::Partly { .. } => Self::Partly,
            Outcome::Duplicate => Self::Duplicate,
            Outcome::Refused(Refused::UnknownRecipient) => Self::UnknownRecipient,
            Outcome::Refused(Refused::Quota) => Self::Quota,
            Outcome::Refused(Refused::StoreFull) => Self::StoreFull,
            Outcome::Refused(Refused::NoRecipients) => Self::NoRecipients,
            Outcome::Refused(Refused::RecipientsFull) => Self::RecipientsFull,
            Outcome::Refused(Refused::TooManyCopies) => Self::TooManyCopies,
            Outcome::Refused(Refused::KeyTaken) => Self::KeyTaken,
        }
    }
}

impl Outcome {
    /// The word for it in metrics, and for a refusal in receipts.
    #[must_use]
    pub fn word(self) -> &'static str {
        Result::from(self).word()
    }
}

/// What the bus counts, and what it saw last.
#[derive(Debug)]
pub(super) struct Meters {
    results: Labelled<Result>,
    taken: Labelled<Thread>,
    delivered: Counter,
    undelivered: Counter,
    unknown_acks: Counter,
    letters_dropped: Counter,
    damaged: Counter,
    failures: Counter,
    commits: Histogram,
    audit_bytes: AtomicU64,
    seen: Mutex<Seen>,
    /// The thread that has a turn.
    pub(super) turns: Watch,
    /// The thread that reads backlogs.
    pub(super) readings: Watch,
    /// Those that sync.
    pub(super) syncs: [Watch; syncing::MOST],
}

/// What the bus saw when it last looked.
#[derive(Debug, Default)]
struct Seen {
    totals: Totals,
    channels: Channels,
    names: usize,
    connected: usize,
    unacknowledged: usize,
    /// The age of the oldest message that waits, in milliseconds, at most.
    oldest: u64,
    /// By how many seconds the system's clock is ahead.
    clock: f64,
    space: Space,
    is_full: bool,
    failing: Failing,
    /// What cannot be read, once each.
    damages: Vec<String>,
}

impl Seen {
    /// Notes what cannot be read; whether that is new.
    fn damage(&mut self, error: &StoreError) -> bool {
        let text = error.to_string();
        let is_new = self.damages.len() < MOST_DAMAGES && !self.damages.contains(&text);
        if is_new {
            self.damages.push(text);
        }
        is_new
    }
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            results: Labelled::default(),
            taken: Labelled::default(),
            delivered: Counter::default(),
            undelivered: Counter::default(),
            unknown_acks: Counter::default(),
            letters_dropped: Counter::default(),
            damaged: Counter::default(),
            failures: Counter::default(),
            commits: Histogram::new(HALF_DECADES),
            audit_bytes: AtomicU64::new(0),
            seen: Mutex::default(),
            turns: Watch::new(),
            readings: Watch::new(),
            syncs: std::array::from_fn(|_| Watch::new()),
        }
    }

    pub(super) fn submitted(&self, outcome: Outcome) {
        self.results.of(outcome.into()).increment();
    }

    /// A thread has taken a turn.
    pub(super) fn taken(&self, by: Thread) {
        self.taken.of(by).increment();
    }

    #[cfg(test)]
    pub(super) fn taken_by(&self, by: Thread) -> u64 {
        self.taken.of(by).value()
    }

    pub(super) fn given_up(&self, messages: u64) {
        self.results.of(Result::GivenUp).add(messages);
    }

    pub(super) fn delivered(&self, taken: usize, of: usize) {
        self.delivered.add(taken as u64);
        self.undelivered.add(of.saturating_sub(taken) as u64);
    }

    pub(super) fn letters_dropped(&self, letters: u64) {
        self.letters_dropped.add(letters);
    }

    pub(super) fn unknown_ack(&self) {
        self.unknown_acks.increment();
    }

    /// Something cannot be read; whether that is new, so that it should be told.
    pub(super) fn damaged(&self, error: &StoreError) -> bool {
        self.damaged.increment();
        self.seen.lock().damage(error)
    }

    /// The store did not do something.
    pub(super) fn failed(&self, call: Call, error: &StoreError) {
        self.failures.increment();
        self.seen.lock().failing.failed(call, error, Instant::now());
    }

    /// The store has done something of this kind.
    pub(super) fn succeeded(&self, call: Call) {
        self.seen.lock().failing.succeeded(call);
    }

    pub(super) fn committed(&self, took: Duration) {
        self.commits.observe(took);
        self.succeeded(Call::Commit);
    }

    /// Notes what the bus has at this moment.
    pub(super) fn note(&self, bus: &Bus, now: Millis) {
        let totals = bus.totals();
        let channels = Channels::of(bus, now);
        let mut names = 0;
        let mut connected = 0;
        let mut unacknowledged = 0;
        let mut oldest = 0;
        for (_, level, presence) in bus.names() {
            names += 1;
            connected += usize::from(presence.unacknowledged.is_some());
            unacknowledged += presence.unacknowledged.unwrap_or(0);
            if level.messages > 0 {
                oldest = oldest.max(now.since(level.oldest));
            }
        }
        let mut seen = self.seen.lock();
        seen.totals = totals;
        seen.channels = channels;
        seen.names = names;
        seen.connected = connected;
        seen.unacknowledged = unacknowledged;
        seen.oldest = oldest;
    }

    /// Notes by how many seconds the system's clock is ahead.
    pub(super) fn note_clock(&self, seconds: f64) {
        self.seen.lock().clock = seconds;
    }

    pub(super) fn note_space(&self, space: Space, is_full: bool) {
        let mut seen = self.seen.lock();
        seen.space = space;
        seen.is_full = is_full;
    }

    pub(super) fn note_audit(&self, bytes: u64) {
        self.audit_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The peers that are furthest behind in channels; nothing where there is none.
    pub(super) fn behind(&self, most: usize) -> Option<Vec<Lag>> {
        self.seen.lock().channels.behind(most)
    }

    pub(super) fn health(&self) -> Health {
        let seen = self.seen.lock();
        if let Some(trouble) = self.trouble(&seen) {
            return Health::Unavailable(trouble);
        }
        if seen.is_full {
            return Health::Full;
        }
        match &seen.damages[..] {
            [] => Health::Serving,
            [one] => Health::Damaged(one.clone()),
            [first, more @ ..] => Health::Damaged(format!("{first}, and {} more", more.len())),
        }
    }

    /// Why the store cannot be used: what has lasted for longest.
    fn trouble(&self, seen: &Seen) -> Option<Trouble> {
        let now = Instant::now();
        let threads = [&self.turns, &self.readings].into_iter().chain(&self.syncs);
        let hung = threads.filter_map(|thread| thread.hung(now));
        // What a call said tells more than that its repetitions take long.
        let failed = seen.failing.longest().cloned();
        failed.or_else(|| hung.min_by_key(|trouble| trouble.since))
    }

    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let seen = self.seen.lock();
        families.push(family::labelled(
            "beacon_relay_bus_submitted_total",
            "Messages that peers have sent, by what became of them.",
            "result",
            &self.results,
        ));
        families.push(family::labelled(
            "beacon_relay_bus_turns_total",
            "Turns of the bus, by the thread that took them.",
            "thread",
            &self.taken,
        ));
        let counters = [
            ("delivered_total", "Messages handed to connected peers.", &self.delivered),
            (
                "undelivered_total",
                "Messages that a peer's full outbox did not take; they are delivered again.",
                &self.undelivered,
            ),
            (
                "unknown_acks_total",
                "Acknowledgements of what does not wait, or is another's.",
                &self.unknown_acks,
            ),
            (
                "dead_letters_dropped_total",
                "Dead letters removed since their mailbox had too many.",
                &self.letters_dropped,
            ),
            ("damaged_total", "Reads of the store that made no sense.", &self.damaged),
            ("store_failures_total", "Calls that the store did not carry out.", &self.failures),
        ];
        for (name, help, counter) in counters {
            families.push(family::counter(&format!("beacon_relay_bus_{name}"), help, counter));
        }
        let Totals { acknowledged, expired, purged, dead, missing, damaged, .. } = seen.totals;
        let ways = [
            ([Way::Acknowledged.word()], acknowledged),
            ([Way::Expired.word()], expired),
            ([Way::Purged.word()], purged),
            ([Way::Dead.word()], dead),
            ([Way::Missing.word()], missing),
            ([Way::Damaged.word()], damaged),
        ];
        families.push(family::counts(
            "beacon_relay_bus_removed_total",
            "Messages that wait no more, by the reason.",
            &["reason"],
            ways.iter().map(|(way, count)| (way.as_slice(), *count)),
        ));
        let values = [
            (
                "accepted_total",
                "Messages accepted, each copy of a broadcast.",
                seen.totals.accepted,
            ),
            (
                "redelivered_total",
                "Messages delivered again since they stayed without an acknowledgement.",
                seen.totals.redelivered,
            ),
            (
                "requeued_total",
                "Dead letters that operators have put back into their mailbox.",
                seen.totals.requeued,
            ),
        ];
        for (name, help, value) in values {
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            let value = value as f64;
            families.push(family::counter_value(&format!("beacon_relay_bus_{name}"), help, value));
        }
        let gauges = [
            ("messages", "Messages that wait.", seen.totals.waiting),
            ("bytes", "What the messages that wait count as.", seen.totals.bytes),
            ("names", "Names that belong to somebody, or are reserved.", seen.names as u64),
            ("connected", "Names whose peer is connected.", seen.connected as u64),
            (
                "unacknowledged",
                "Messages that connected peers have and have not acknowledged.",
                seen.unacknowledged as u64,
            ),
            ("store_used_bytes", "Bytes that the store takes on its disk.", seen.space.used),
            ("store_free_bytes", "Bytes that are free on the disk of the store.", seen.space.free),
            (
                "audit_bytes",
                "Bytes that the audit log takes.",
                self.audit_bytes.load(Ordering::Relaxed),
            ),
            ("store_full", "1 where new messages wait or are refused.", u64::from(seen.is_full)),
            (
                "store_unavailable",
                "1 where the store takes nothing.",
                u64::from(self.trouble(&seen).is_some()),
            ),
        ];
        for (name, help, value) in gauges {
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            let value = value as f64;
            families.push(family::gauge_value(&format!("beacon_relay_bus_{name}"), help, value));
        }
        seen.channels.families(families);
        let oldest = Duration::from_millis(seen.oldest).as_secs_f64();
        families.push(family::gauge_value(
            "beacon_relay_bus_oldest_seconds",
            "Age of the oldest message that waits, at most.",
            oldest,
        ));
        families.push(family::gauge_value(
            "beacon_relay_bus_clock_ahead_seconds",
            "Time by which the system's clock is ahead of the ages of messages.",
            seen.clock,
        ));
        families.push(
            self.commits.family("beacon_relay_bus_commit_seconds", "Time that commits take."),
        );
    }
}

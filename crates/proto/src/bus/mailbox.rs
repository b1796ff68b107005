//! One mailbox: what waits in it, and what its recipient has and has not acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::limits::Limits;
use super::live::{Live, STUCK, Sent};
use super::turn::{Effect, Load, Purpose, Turn};
use super::types::{
    Cause, Change, Damaged, Digest, Event, EventKind, Found, Level, MailboxId, Message, Millis,
    Named, Reading, Seq, Stored,
};

/// A mailbox. What waits is in `live.sent`, or in the store at `live.cursor` or behind it; with
/// nobody connected, in the store.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) named: Named,
    pub(super) level: Level,
    pub(super) live: Option<Live>,
    /// Its name stays known however long its owner is away. Nothing of it is stored.
    pub(super) is_reserved: bool,
    /// Of what the last session did not acknowledge, what it got first, and since when it is that.
    unanswered: Option<(Seq, Millis)>,
    /// How often a message was removed that is in no window: what a reading has that began before
    /// may be gone.
    pub(super) removals: u64,
    /// Messages before this position are to be removed: somebody has purged the mailbox.
    pub(super) purge_before: Seq,
    /// While old messages are being read: which were removed meanwhile.
    pub(super) sweeping: Option<BTreeSet<Seq>>,
}

impl Mailbox {
    pub(super) const fn new(named: Named, level: Level) -> Self {
        Self {
            named,
            level,
            live: None,
            is_reserved: false,
            unanswered: None,
            removals: 0,
            purge_before: Seq(0),
            sweeping: None,
        }
    }

    pub(super) const fn id(&self) -> MailboxId {
        self.named.mailbox
    }

    /// Messages that wait where no window has them.
    pub(super) fn backlog(&self) -> u64 {
        let sent = self.live.as_ref().map_or(0, |live| live.sent.len() as u64);
        self.level.messages.saturating_sub(sent)
    }

    /// A message that its recipient has and has not acknowledged.
    pub(super) fn find_sent(&self, key: Digest) -> Option<Found> {
        self.live.as_ref()?.find(key)
    }

    /// Appends a message, and hands it over if its recipient has all that came before.
    pub(super) fn append(
        &mut self,
        message: &Arc<Message>,
        limits: &Limits,
        now: Millis,
        turn: &mut Turn,
    ) -> Seq {
        let seq = self.level.next;
        let cost = message.cost();
        let was_caught_up = self.live.as_ref().is_some_and(|live| live.cursor == seq);
        self.level.next = seq.next();
        if self.level.messages == 0 {
            self.level.head = seq;
            self.level.oldest = message.accepted;
        }
        self.level.messages += 1;
        self.level.bytes += cost as u64;
        let mailbox = self.id();
        turn.touched.insert(mailbox);
        turn.appended_bytes += cost;
        turn.changes.push(Change::Append { mailbox, seq, message: Arc::clone(message) });
        turn.events.push(Event {
            kind: EventKind::Send,
            key: Arc::clone(&message.key),
            from: Arc::clone(&message.from),
            to: Arc::clone(&self.named.name),
        });
        if was_caught_up
            && let Some(live) = &self.live
            && live.has_room(cost, limits)
        {
            self.hand_over(seq, message, 0, now, turn);
        }
        seq
    }

    /// Hands a message to the recipient: it is in the window from here on.
    fn hand_over(
        &mut self,
        seq: Seq,
        message: &Arc<Message>,
        attempts: u16,
        now: Millis,
        turn: &mut Turn,
    ) {
        let live = self.live.as_mut().expect("there is a recipient to hand it to");
        live.put(seq, message, attempts, now);
        self.deliver(seq, message, turn);
    }

    /// Has a message of the window be delivered.
    fn deliver(&self, seq: Seq, message: &Arc<Message>, turn: &mut Turn) {
        let Some(live) = &self.live else { return };
        turn.events.push(Event {
            kind: EventKind::Deliver,
            key: Arc::clone(&message.key),
            from: Arc::clone(&message.from),
            to: Arc::clone(&self.named.name),
        });
        turn.effects.push(Effect::Deliver {
            mailbox: self.named.mailbox,
            generation: live.generation,
            seq,
            message: Arc::clone(message),
        });
    }

    /// Removes a message that waits, which counted as so much.
    pub(super) fn remove(&mut self, seq: Seq, key: Digest, cost: usize, turn: &mut Turn) {
        let mailbox = self.id();
        turn.changes.push(Change::Remove { mailbox, seq, key });
        self.forget(seq, cost, turn);
    }

    /// Keeps the books of a message that waits no more.
    fn forget(&mut self, seq: Seq, cost: usize, turn: &mut Turn) {
        self.level.messages = self.level.messages.saturating_sub(1);
        self.level.bytes = self.level.bytes.saturating_sub(cost as u64);
        turn.touched.insert(self.id());
        turn.removed.insert((self.id(), seq));
        let was_sent = self.live.as_mut().and_then(|live| live.take(seq)).is_some();
        if !was_sent {
            self.removals += 1;
        }
        if let Some(removed) = &mut self.sweeping {
            removed.insert(seq);
        }
        if self.level.messages == 0 {
            self.level.head = self.level.next;
            self.level.bytes = 0;
        } else if self.level.head == seq {
            self.level.head = match &self.live {
                // What the recipient does not have yet is behind what it has.
                Some(live) => live.sent.keys().next().copied().unwrap_or(live.cursor),
                None => seq.next(),
            };
        }
    }

    /// Removes what the recipient has acknowledged; false where it does not have it.
    pub(super) fn acknowledge_sent(
        &mut self,
        key: Digest,
        limits: &Limits,
        now: Millis,
        turn: &mut Turn,
    ) -> bool {
        let Some(Found { seq, cost, .. }) = self.find_sent(key) else { return false };
        let live = self.live.as_mut().expect("it was found in the window");
        live.note_ack(seq, now);
        let text = Arc::clone(&live.sent.get(&seq).expect("it was found in the window").key);
        self.remove(seq, key, cost, turn);
        self.note_ack(text, turn);
        self.load_more(limits, turn);
        true
    }

    /// Writes into the audit log that the owner has acknowledged a message.
    pub(super) fn note_ack(&self, key: Arc<str>, turn: &mut Turn) {
        let from = Arc::clone(&self.named.name);
        turn.events.push(Event { kind: EventKind::Ack, key, from, to: "".into() });
    }

    /// Asks for what the recipient gets next, if it has room and something waits for it.
    pub(super) fn load_more(&mut self, limits: &Limits, turn: &mut Turn) {
        let backlog = self.backlog();
        let Some(live) = &mut self.live else { return };
        if backlog == 0 {
            live.cursor = self.level.next;
            return;
        }
        if live.is_loading || !live.is_roomy(limits) {
            return;
        }
        live.is_loading = true;
        let counted = live.counted(limits);
        turn.effects.push(Effect::Load(Load {
            mailbox: self.named.mailbox,
            from: live.cursor,
            messages: limits.window.saturating_sub(counted.messages).max(1),
            bytes: limits.window_bytes.saturating_sub(counted.bytes),
            purpose: Purpose::Deliver { generation: live.generation },
            next: self.level.next,
            removals: self.removals,
        }));
    }

    /// A recipient is here: it gets what waits, from the first on.
    pub(super) fn open(&mut self, generation: u64, limits: &Limits, now: Millis, turn: &mut Turn) {
        self.close_live(limits, now, turn);
        self.live = Some(Live::new(generation, self.level.head));
        self.load_more(limits, turn);
    }

    /// Its recipient is gone: what it has not acknowledged waits again.
    pub(super) fn close_live(&mut self, limits: &Limits, now: Millis, turn: &mut Turn) {
        let Some(live) = self.live.take() else { return };
        self.note_unanswered(&live, limits, now, turn);
        for (seq, sent) in &live.sent {
            if live.is_late(sent, limits, now) {
                self.note_attempt(*seq, sent, limits, now, turn);
            }
        }
    }

    /// Notes with which message a session has ended. Where one after the other ends with the same,
    /// it may be what ends them: that counts as if one session had not acknowledged it for as long.
    fn note_unanswered(&mut self, live: &Live, limits: &Limits, now: Millis, turn: &mut Turn) {
        let before = self.unanswered.take();
        let Some((seq, sent)) = live.first_unanswered() else { return };
        let same = before.filter(|(of, _)| *of == seq);
        let since = same.map_or(sent.at, |(_, since)| since);
        let is_over = now.since(since) >= limits.patience(sent.attempts);
        if !is_over || live.is_late(sent, limits, now) {
            self.unanswered = Some((seq, since));
        } else if sent.attempts + 1 >= STUCK {
            self.bury(seq, sent, now, turn);
        } else {
            self.unanswered = Some((seq, now));
            self.note_attempt(seq, sent, limits, now, turn);
        }
    }

    /// A delivery stayed without an acknowledgement.
    fn note_attempt(
        &mut self,
        seq: Seq,
        sent: &Sent,
        limits: &Limits,
        now: Millis,
        turn: &mut Turn,
    ) {
        let mailbox = self.id();
        let attempts = sent.attempts.saturating_add(1);
        if attempts >= limits.attempts {
            return self.bury(seq, sent, now, turn);
        }
        turn.changes.push(Change::Attempt { mailbox, seq, attempts });
        if let Some(live) = &mut self.live {
            live.set_late(seq, attempts);
        }
    }

    /// Has a message become a dead letter.
    fn bury(&mut self, seq: Seq, sent: &Sent, now: Millis, turn: &mut Turn) {
        let mailbox = self.id();
        let key = sent.digest;
        let cause = Cause::Attempts;
        turn.changes.push(Change::Bury { mailbox, seq, key, cause, at: now });
        turn.events.push(Event {
            kind: EventKind::Expire,
            key: Arc::clone(&sent.key),
            from: Arc::clone(&self.named.name),
            to: "".into(),
        });
        turn.buried += 1;
        self.forget(seq, sent.cost, turn);
    }

    /// Has what stayed without an acknowledgement for too long be delivered again, and what is
    /// behind it for the first time; returns how many are late.
    pub(super) fn redeliver(&mut self, limits: &Limits, now: Millis, turn: &mut Turn) -> usize {
        let Some(live) = &self.live else { return 0 };
        let late = live.sent.iter().filter(|(_, sent)| live.is_late(sent, limits, now));
        let late: Vec<_> = late.map(|(seq, sent)| (*seq, sent.clone())).collect();
        for (seq, sent) in &late {
            self.note_attempt(*seq, sent, limits, now, turn);
        }
        if !late.is_empty() && self.backlog() > 0 {
            self.make_room(limits, now, turn);
        }
        self.repeat(limits, turn);
        if !late.is_empty() {
            self.load_more(limits, turn);
        }
        late.len()
    }

    /// Has late messages become dead letters early, where nothing gets past them otherwise.
    fn make_room(&mut self, limits: &Limits, now: Millis, turn: &mut Turn) {
        let Some(live) = &self.live else { return };
        let crowding = live.crowding(limits).into_iter();
        let crowding: Vec<_> =
            crowding.filter_map(|seq| Some((seq, live.sent.get(&seq)?.clone()))).collect();
        for (seq, sent) in crowding {
            self.bury(seq, &sent, now, turn);
        }
    }

    /// Asks for the messages that are to be delivered again: a window of them at a time.
    fn repeat(&mut self, limits: &Limits, turn: &mut Turn) {
        let Some(live) = &mut self.live else { return };
        let Some(from) = live.first_due().filter(|_| !live.is_repeating) else { return };
        live.is_repeating = true;
        turn.effects.push(Effect::Load(Load {
            mailbox: self.named.mailbox,
            from,
            messages: limits.window,
            bytes: limits.window_bytes,
            purpose: Purpose::Repeat { generation: live.generation },
            next: self.level.next,
            removals: self.removals,
        }));
    }

    /// Takes messages that were read to be delivered again: those that still are to be.
    pub(super) fn repeat_loaded(
        &mut self,
        generation: u64,
        reading: &Reading,
        now: Millis,
        turn: &mut Turn,
    ) -> Lost {
        let live = self.live.as_mut().filter(|live| live.generation == generation);
        let Some(live) = live else { return Lost::default() };
        live.is_repeating = false;
        let has = |damaged: &&Damaged| live.sent.contains_key(&damaged.seq);
        let damaged: Vec<_> = reading.damaged.iter().filter(has).copied().collect();
        self.remove_damaged(&damaged, turn);
        for Stored { seq, message, .. } in &reading.stored {
            if self.live.as_mut().is_some_and(|live| live.repeat(*seq, now)) {
                self.deliver(*seq, message, turn);
            }
        }
        if let Some(live) = &mut self.live {
            live.forgo(reading.last(), now);
        }
        Lost { missing: 0, damaged: damaged.len() as u64 }
    }

    /// Takes messages that were read for its recipient. Returns what the store has lost of them.
    pub(super) fn deliver_loaded(
        &mut self,
        load: &Load,
        reading: Reading,
        limits: &Limits,
        now: Millis,
        turn: &mut Turn,
    ) -> Lost {
        let Purpose::Deliver { generation } = load.purpose else { return Lost::default() };
        let is_stale = load.removals != self.removals;
        let Some(live) = self.live.as_mut().filter(|live| live.generation == generation) else {
            return Lost::default();
        };
        live.is_loading = false;
        if is_stale || live.cursor != load.from {
            self.load_more(limits, turn);
            return Lost::default();
        }
        let Some(last) = reading.last() else {
            if load.next != self.level.next {
                self.load_more(limits, turn);
                return Lost::default();
            }
            // The books say that something waits, and the store has nothing: the store is right.
            let sent = live.sent.len() as u64;
            let bytes = live.all.bytes as u64;
            let missing = self.level.messages - sent;
            self.level.messages = sent;
            self.level.bytes = bytes;
            live.cursor = self.level.next;
            turn.touched.insert(self.named.mailbox);
            return Lost { missing, damaged: 0 };
        };
        let Reading { mut stored, damaged } = reading;
        if live.is_new {
            // As the first broker of this protocol drained a queue: by sender, each in order.
            stored.sort_by(|a, b| a.message.from.cmp(&b.message.from));
        }
        self.remove_damaged(&damaged, turn);
        for Stored { seq, attempts, message } in &stored {
            self.hand_over(*seq, message, *attempts, now, turn);
        }
        if let Some(live) = &mut self.live {
            live.cursor = last.next();
        }
        self.load_more(limits, turn);
        Lost { missing: 0, damaged: damaged.len() as u64 }
    }

    /// Removes messages that nobody can read any more: each costs itself alone.
    pub(super) fn remove_damaged(&mut self, damaged: &[Damaged], turn: &mut Turn) {
        for Damaged { seq, key } in damaged {
            // Nothing is under a key that is none.
            let (digest, cost) = key.unwrap_or((Digest([0; 16]), 0));
            self.remove(*seq, digest, cost, turn);
            turn.events.push(Event {
                kind: EventKind::Expire,
                key: format!("damaged message {}", seq.0).into(),
                from: Arc::clone(&self.named.name),
                to: "".into(),
            });
        }
    }
}

/// What a store has lost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Lost {
    /// Messages that were to wait, and that it does not have.
    pub(super) missing: u64,
    /// Messages that it cannot read.
    pub(super) damaged: u64,
}

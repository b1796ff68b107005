//! A channel to another relay, and what is known of channels to one relay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::Outbox;
use crate::ids::RelayId;
use crate::wire::cluster::{self, ChannelRealms, ChannelWord, Frame};
use crate::wire::name::Realm;

/// Bytes that what may be lost leaves to what may not.
const KEPT_ROOM: usize = 8 << 20;

/// Bytes that wait for one relay.
const ROOM: usize = 16 << 20;

/// A channel to another relay.
#[derive(Debug)]
pub struct Channel {
    /// Which: the next one to the same relay has another.
    pub number: u64,
    /// The other relay.
    pub relay: RelayId,
    realm: Realm,
    outbox: Arc<Outbox>,
    out: Mutex<Out>,
}

#[derive(Debug, Default)]
struct Out {
    seq: u32,
    is_broken: bool,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Said {
    /// It waits, or the channel is over.
    Queued,
    /// It was dropped, as it may be: too much waits.
    Lost,
    /// There is no room for what must not be lost: the channel is over.
    Broken,
}

/// What is known of channels to one relay: a line for each of our doors that talk.
#[derive(Debug, Default)]
pub(super) struct Lines {
    offered: Mutex<Offered>,
    of: Mutex<BTreeMap<u8, Arc<Mutex<Line>>>>,
}

/// What the other relay has said of its doors.
#[derive(Clone, Copy, Debug, Default)]
enum Offered {
    /// None of them talks, as far as is known.
    #[default]
    Nothing,
    /// One talks, and it has not said which: it answers if it is the same.
    One,
    These(ChannelRealms),
}

impl Lines {
    /// The other relay has said that doors of it talk.
    pub(super) fn offer(&self, realms: Option<ChannelRealms>) {
        *self.offered.lock() = realms.map_or(Offered::One, Offered::These);
    }

    /// Whether the door of a realm may talk there.
    pub(super) fn offers(&self, realm: Realm) -> bool {
        match *self.offered.lock() {
            Offered::Nothing => false,
            Offered::One => true,
            Offered::These(realms) => realms.contains(realm.0),
        }
    }

    /// The line of one of our doors.
    pub(super) fn of(&self, realm: Realm) -> Arc<Mutex<Line>> {
        let mut lines = self.of.lock();
        let line = lines.entry(realm.0);
        Arc::clone(line.or_insert_with(|| Arc::new(Mutex::new(Line::new(Instant::now())))))
    }
}

/// What is known of channels of one door to one relay.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) current: Option<Current>,
    /// What the other is to end, until it opens another.
    pub(super) reset: Option<u64>,
    /// When something is due.
    pub(super) due: Instant,
}

/// The channel in use.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) channel: Arc<Channel>,
    pub(super) is_accepted: bool,
    /// The number of the part that comes next.
    pub(super) seq: u32,
    /// The beginning of a message.
    pub(super) parts: Vec<u8>,
}

impl Line {
    pub(super) fn new(now: Instant) -> Self {
        Self { current: None, reset: None, due: now }
    }

    /// The channel of this number, if it is the one in use.
    pub(super) fn is(&self, number: u64) -> bool {
        self.current.as_ref().is_some_and(|current| current.channel.number == number)
    }
}

impl Channel {
    /// Has the other door hear a message. What may be lost is dropped where too much waits.
    pub fn say(&self, message: &[u8], may_be_lost: bool, now: Instant) -> Said {
        let mut out = self.out.lock();
        if out.is_broken {
            return Said::Queued;
        }
        let room = if may_be_lost { ROOM - KEPT_ROOM } else { ROOM };
        let of = (self.realm.0, self.number);
        if self.outbox.say_in_parts(of, &mut out.seq, message, room, now) {
            Said::Queued
        } else if may_be_lost {
            Said::Lost
        } else {
            out.is_broken = true;
            Said::Broken
        }
    }

    /// It is over, whatever is said.
    pub(super) fn close(&self) {
        self.out.lock().is_broken = true;
    }
}

impl Channel {
    /// Whether it cannot go on.
    pub(super) fn is_broken(&self) -> bool {
        self.out.lock().is_broken
    }
}

impl Current {
    /// A channel over which nothing was said.
    pub(super) fn begin(
        (relay, outbox): (RelayId, &Arc<Outbox>),
        realm: Realm,
        number: u64,
        is_accepted: bool,
    ) -> Self {
        let outbox = Arc::clone(outbox);
        let channel = Channel { number, relay, realm, outbox, out: Mutex::default() };
        Self { channel: Arc::new(channel), is_accepted, seq: 0, parts: Vec::new() }
    }
}

/// Queues what is said of a channel.
pub(super) fn say(outbox: &Outbox, realm: Realm, number: u64, word: ChannelWord<'_>, now: Instant) {
    let frame = Frame::Channel(cluster::Channel { realm: realm.0, number, word });
    outbox.say_of_channel(realm.0, &frame, now);
}

//! This relay as a watcher: it has the homes of a peer tell who has it.
//!
//! Both homes are asked, and what is known under the newest epoch counts, be it that the peer is
//! there or that it was. A home that a change of members has made one knows nothing at first: that
//! it does not know of a peer counts only after the time in which all owners claim there.

use std::time::{Duration, Instant};

use beacon_wire::cluster::{Frame, Location, Name, Sight};
use beacon_wire::ids::RelayId;

use super::changes::MAX_CLAIMS;
use super::members::Slot;
use super::shards::Shards;
use super::{Denied, Event, Now, Presence};

/// How many peers a relay watches at most: 250 bytes each.
pub const MAX_WATCHED: usize = 262_144;

/// How long a new home may know nothing: twice what owners take to claim there.
const DOUBT: Duration = Duration::from_secs(2);

/// After how long a home that had no room is asked again.
const REST: Duration = Duration::from_secs(30);

/// The peers that this relay watches.
#[derive(Debug)]
pub(super) struct Watches<I> {
    of: Shards<I, Watch>,
    /// Until when new homes may know nothing.
    in_doubt: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    number: u64,
    reports: [Report; 2],
    /// The other relay that has the peer, as the caller was told.
    at: Option<Known>,
}

/// What a home has told.
#[derive(Clone, Copy, Debug)]
struct Report {
    home: Slot,
    /// That of the last watch that was said to it.
    nonce: u32,
    /// Statements before this one are late.
    version: u64,
    said: Said,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    /// It has not answered.
    Nothing,
    /// It has no room, or there is no home.
    NoSay,
    /// It does not know the peer.
    Unknown,
    /// With the owner's serial.
    At(Known, u64),
    /// Up to this serial.
    Over(Known, u64),
}

/// A statement of a home.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) nonce: u32,
    pub(super) version: u64,
    pub(super) serial: u64,
    pub(super) sight: Sight,
}

/// Of two of one peer the greater one is newer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Known {
    epoch: u64,
    owner: RelayId,
}

impl Known {
    const fn of(location: &Location) -> Self {
        Self { epoch: location.epoch, owner: location.owner }
    }
}

impl Report {
    const NONE: Self = Self { home: Slot::NONE, nonce: 0, version: 0, said: Said::NoSay };
}

impl<I: Name> Watches<I> {
    pub(super) fn new(start: Instant) -> Self {
        Self { of: Shards::new(), in_doubt: start }
    }

    pub(super) const fn len(&self) -> usize {
        self.of.len()
    }

    fn report(&mut self, id: I, home: Slot) -> Option<&mut Report> {
        let watch = self.of.get_mut(&id)?;
        watch.reports.iter_mut().find(|report| report.home == home && home != Slot::NONE)
    }
}

impl<I: Name> Presence<I> {
    /// Watches a peer from here on; events about it have this number. False where there is no
    /// room. After some of these [`Self::timeout`] is due.
    pub fn watch(&mut self, id: I, number: u64, now: Now) -> bool {
        if let Some(watch) = self.watches.of.get_mut(&id) {
            watch.number = number;
            if watch.at.is_some() {
                self.events.push_back(Event::Watched { id, number, is_elsewhere: true });
            }
            return true;
        }
        if self.watches.len() >= MAX_WATCHED {
            self.deny(Denied::WatchesFull);
            return false;
        }
        self.watches.of.insert(id, Watch { number, reports: [Report::NONE; 2], at: None });
        self.ask_homes(id, now);
        true
    }

    /// Watches a peer no longer, unless the watch has a higher number by now; [`Self::timeout`]
    /// is due as well.
    pub fn unwatch(&mut self, id: I, number: u64, now: Now) {
        if self.watches.of.get(&id).is_some_and(|watch| watch.number > number) {
            return;
        }
        let Some(watch) = self.watches.of.remove(&id) else { return };
        for Report { home, .. } in watch.reports {
            if self.members.relay(home).is_some() {
                self.statements.unwatch(home, id, now.at);
            }
        }
    }

    /// How many peers are watched.
    #[must_use]
    pub const fn watched_count(&self) -> usize {
        self.watches.len()
    }

    /// Whether another relay has a peer that is watched.
    #[must_use]
    pub fn watched(&self, id: I) -> Option<bool> {
        Some(self.watches.of.get(&id)?.at.is_some())
    }

    /// A relay answers watches, which it says once it is a member.
    pub fn answers_watches(&mut self, relay: RelayId, now: Now) {
        if self.members.answers_watches(relay) {
            self.watch_anew(now);
            self.walk_watches(now);
            self.settle(now);
        }
    }

    /// Other relays may be homes from here on.
    pub(super) fn watch_anew(&mut self, now: Now) {
        self.watches.in_doubt = now.at + DOUBT;
        self.rewatches.start(now.at);
        self.doubts.start(now.at + DOUBT);
    }

    /// Takes the steps that are due.
    pub(super) fn walk_watches(&mut self, now: Now) {
        let bounds = (MAX_CLAIMS, MAX_CLAIMS);
        for id in self.rewatches.step(&self.watches.of, bounds, now.at) {
            self.ask_homes(id, now);
        }
        for id in self.doubts.step(&self.watches.of, bounds, now.at) {
            self.judge(id, now);
        }
        self.forget_watchers(now);
    }

    /// Has those tell of a peer that are its homes, and those no more that were.
    fn ask_homes(&mut self, id: I, now: Now) {
        let homes = self.members.watching_homes(&id);
        let Some(watch) = self.watches.of.get_mut(&id) else { return };
        let before = watch.reports;
        watch.reports = homes.map(|home| {
            if home == Slot::NONE {
                return Report::NONE;
            }
            let known = before.iter().find(|report| report.home == home);
            known.copied().unwrap_or_else(|| {
                let nonce = self.statements.watch(home, id, now.at, false);
                Report { home, nonce, version: 0, said: Said::Nothing }
            })
        });
        for Report { home, .. } in before {
            if !homes.contains(&home) && self.members.relay(home).is_some() {
                self.statements.unwatch(home, id, now.at);
            }
        }
        self.judge(id, now);
    }

    pub(super) fn on_locate(&mut self, from: Slot, id: I, told: Told, now: Now) {
        let Told { nonce, version, serial, sight } = told;
        let Some(report) = self.watches.report(id, from) else {
            if sight == Sight::Ended {
                self.statements.end_watch(from, id, nonce);
            } else if !self.statements.ends_watch(from, id) {
                // Once: if that is lost, the home says it again.
                let nonce = self.statements.next_nonce();
                self.send(from, Frame::Watch { id, nonce, is_on: false });
            }
            return;
        };
        if report.nonce != nonce {
            // The home has yet to hear the last watch, and answers that.
            return;
        }
        let said = match sight {
            Sight::Ended => return,
            Sight::Full => {
                report.said = Said::NoSay;
                report.nonce = self.statements.watch(from, id, now.at + REST, true);
                self.judge(id, now);
                return;
            }
            Sight::Unknown => Said::Unknown,
            Sight::At(location) => Said::At(Known::of(&location), serial),
            Sight::Over(location) => Said::Over(Known::of(&location), serial),
        };
        let is_news = version > report.version;
        if is_news {
            report.said = said;
            report.version = version;
        }
        self.statements.end_watch(from, id, nonce);
        self.send(from, Frame::Heard { id, version });
        if is_news {
            self.judge(id, now);
        }
    }

    /// A home has taken a peer from this relay, which may watch it: until the home has told
    /// what it knows since, it is where the home said.
    pub(super) fn follow(&mut self, from: Slot, id: I, location: Location, now: Now) {
        let Some(report) = self.watches.report(id, from) else { return };
        // Of a serial that is not known, and is not over.
        report.said = Said::At(Known::of(&location), u64::MAX);
        report.nonce = self.statements.watch(from, id, now.at, false);
        self.judge(id, now);
    }

    /// Tells the caller if another relay has a peer that had none, or none that had one.
    fn judge(&mut self, id: I, now: Now) {
        let Some(watch) = self.watches.of.get(&id) else { return };
        let number = watch.number;
        let before = watch.at.is_some();
        let at = self.at(watch, now);
        if let Some(watch) = self.watches.of.get_mut(&id) {
            watch.at = at;
        }
        let is_elsewhere = at.is_some();
        if is_elsewhere != before {
            self.events.push_back(Event::Watched { id, number, is_elsewhere });
        }
    }

    /// The other relay that has a peer, by what its homes have told.
    fn at(&self, watch: &Watch, now: Now) -> Option<Known> {
        let is_member = |known: &Known| self.members.slot(known.owner).is_some();
        let before = watch.at.filter(is_member);
        let mut waits = false;
        // One home may know of a later epoch of a serial that another knows to be over.
        let is_over = |at: Known, serial| {
            watch.reports.iter().any(|report| {
                matches!(report.said, Said::Over(known, up_to)
                    if known.owner == at.owner && serial <= up_to)
            })
        };
        // A peer that is over is no longer there under the same epoch.
        let mut newest: Option<(Known, bool)> = None;
        for report in &watch.reports {
            match report.said {
                Said::Nothing => waits = true,
                Said::NoSay | Said::Unknown => {}
                Said::At(known, serial) => {
                    newest = newest.max(Some((known, is_over(known, serial))));
                }
                Said::Over(known, _) => newest = newest.max(Some((known, true))),
            }
        }
        match newest {
            Some((known, false)) => {
                Some(known).filter(|known| known.owner != self.me && is_member(known))
            }
            _ if waits => before,
            Some((over, true)) if before.is_none_or(|before| over >= before) => None,
            _ if now.at < self.watches.in_doubt => before,
            _ => None,
        }
    }
}

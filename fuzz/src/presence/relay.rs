//! One relay: its presence, its table, and the answers to its look-ups.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use beacon_proto::presence::{Event, Here, Now, Presence};
use beacon_wire::cluster::{Frame, Ownership, Takeover};
use beacon_wire::ids::RelayId;
use beacon_wire::name::Name;

use super::relay_id;

/// What one relay says to another.
pub(super) type Said = (RelayId, Frame<'static, Name>);

/// A relay of the cluster.
pub(super) struct Relay {
    pub(super) presence: Presence<Name>,
    /// Who is here, and under which serial.
    pub(super) table: BTreeMap<Name, (u64, Ownership)>,
    /// Where the last look-up of a node found it.
    pub(super) answers: BTreeMap<Name, Option<RelayId>>,
    /// Whom it watches, and whether another relay has each, as it was told.
    pub(super) watched: BTreeMap<Name, bool>,
    pub(super) drains: bool,
    pub(super) serials: u64,
    /// How far its clock is ahead, in milliseconds.
    ahead_ms: u64,
    start: Instant,
}

impl Relay {
    pub(super) fn new(index: usize, ahead_ms: u64, room: usize, start: Instant) -> Self {
        Self {
            presence: Presence::new(relay_id(index), room, start),
            table: BTreeMap::new(),
            answers: BTreeMap::new(),
            watched: BTreeMap::new(),
            drains: false,
            serials: 0,
            ahead_ms,
            start,
        }
    }

    pub(super) fn now(&self, ms: u64) -> Now {
        let at = self.start + Duration::from_millis(ms);
        Now { at, unix_ms: 1_700_000_000_000 + self.ahead_ms + ms }
    }

    /// When the presence has something to do, in milliseconds.
    pub(super) fn next(&self) -> Option<u64> {
        let at = self.presence.poll_timeout()?.saturating_duration_since(self.start);
        u64::try_from(at.as_nanos().div_ceil(1_000_000)).ok()
    }

    /// A node is here under this serial.
    pub(super) fn arrive(&mut self, id: Name, serial: u64, ownership: Ownership, ms: u64) {
        self.table.insert(id, (serial, ownership));
        let takeover = Takeover::Always;
        let here = Here { serial, ownership, takeover, credential: 0, since: None };
        self.presence.arrived(id, here, self.now(ms));
    }

    /// What presence has said; what it has decided is carried out.
    pub(super) fn drain(&mut self) -> Vec<Said> {
        while let Some(event) = self.presence.poll_event() {
            match event {
                Event::Located { id, location, asked: Some(_) } => {
                    self.answers.insert(id, Some(location.owner));
                }
                Event::Missing { id, .. } => {
                    self.answers.insert(id, None);
                }
                Event::Watched { id, is_elsewhere, .. } => {
                    let told = self.watched.get_mut(&id).expect("it is watched");
                    assert_ne!(*told, is_elsewhere, "told twice of {id}");
                    *told = is_elsewhere;
                }
                Event::Superseded { id, serial, .. } => {
                    if self.table.get(&id).is_some_and(|(known, _)| *known <= serial) {
                        self.table.remove(&id);
                    }
                }
                Event::Located { asked: None, .. }
                | Event::Gone { .. }
                | Event::RelayGone { .. } => {}
            }
        }
        std::iter::from_fn(|| self.presence.poll_transmit()).collect()
    }
}

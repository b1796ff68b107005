//! The connections of a broker.

use std::collections::{BTreeMap, BTreeSet};

use beacon_wire::middleman::Guid;
use hashbrown::HashMap;

use super::types::{ConnectionId, Role, Slot, TopicKey};

/// The header that says which connection a message is from.
pub(super) const CID: &str = "Cid";
/// The header that says which user that is.
pub(super) const UID: &str = "Uid";

/// A connection.
#[derive(Debug)]
pub(super) struct Connection<P> {
    pub(super) peer: P,
    pub(super) guid: Guid,
    pub(super) role: Role,
    /// The header lines that say who it is, for each message that it sends.
    pub(super) stamp: Box<[u8]>,
    /// What it has of each topic.
    pub(super) shares: BTreeMap<TopicKey, Share>,
    pub(super) subscriptions: usize,
    pub(super) grants: usize,
    pub(super) workers: usize,
    /// The requests whose answers it waits for.
    pub(super) asking: BTreeSet<u64>,
    /// The requests that it is to answer.
    pub(super) asked: BTreeSet<u64>,
}

/// What a connection has of a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// Where it is among the subscribers.
    pub(super) subscription: Option<usize>,
    /// Whether it grants publications, and whether subscriptions.
    pub(super) grants: [bool; 2],
    /// How many workers it is.
    pub(super) workers: usize,
}

impl<P> Connection<P> {
    /// Services call its user this from now on.
    pub(super) fn set_user(&mut self, uid: &str) {
        self.stamp = stamp(self.guid, uid);
    }
}

fn stamp(guid: Guid, uid: &str) -> Box<[u8]> {
    format!("{CID}: {guid}\r\n{UID}: {uid}\r\n").into_bytes().into()
}

#[derive(Debug)]
struct Entry<P> {
    generation: u32,
    connection: Option<Connection<P>>,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Connections<P> {
    entries: Vec<Entry<P>>,
    free: Vec<Slot>,
    guids: HashMap<Guid, Slot, foldhash::fast::RandomState>,
}

impl<P> Default for Connections<P> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), guids: HashMap::default() }
    }
}

impl<P> Connections<P> {
    /// Adds a connection; `None` if another has its GUID.
    pub(super) fn add(&mut self, peer: P, role: Role, guid: Guid) -> Option<ConnectionId> {
        if self.guids.contains_key(&guid) {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = Slot(u32::try_from(self.entries.len()).expect("sockets are fewer"));
            self.entries.push(Entry { generation: 0, connection: None });
            slot
        });
        self.guids.insert(guid, slot);
        self.entry_mut(slot).connection = Some(Connection {
            peer,
            guid,
            role,
            stamp: stamp(guid, ""),
            shares: BTreeMap::new(),
            subscriptions: 0,
            grants: 0,
            workers: 0,
            asking: BTreeSet::new(),
            asked: BTreeSet::new(),
        });
        Some(self.id(slot))
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Connection<P>> {
        let entry = self.entry_mut(slot);
        let connection = entry.connection.take()?;
        // An id of long ago means another connection only after so many in one place.
        entry.generation = entry.generation.wrapping_add(1);
        self.guids.remove(&connection.guid);
        self.free.push(slot);
        Some(connection)
    }

    pub(super) fn len(&self) -> usize {
        self.guids.len()
    }

    pub(super) fn id(&self, slot: Slot) -> ConnectionId {
        ConnectionId { slot, generation: self.entry(slot).generation }
    }

    /// Where this connection is, if it is still there.
    pub(super) fn slot(&self, id: ConnectionId) -> Option<Slot> {
        let entry = self.entries.get(id.slot.0 as usize)?;
        (entry.generation == id.generation && entry.connection.is_some()).then_some(id.slot)
    }

    pub(super) fn of_guid(&self, guid: Guid) -> Option<Slot> {
        self.guids.get(&guid).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Connection<P>> {
        self.entry(slot).connection.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Connection<P>> {
        self.entry_mut(slot).connection.as_mut()
    }

    /// The connection of a slot that is known to have one.
    pub(super) fn there(&self, slot: Slot) -> &Connection<P> {
        self.get(slot).expect("the slot has a connection")
    }

    pub(super) fn there_mut(&mut self, slot: Slot) -> &mut Connection<P> {
        self.get_mut(slot).expect("the slot has a connection")
    }

    fn entry(&self, slot: Slot) -> &Entry<P> {
        &self.entries[slot.0 as usize]
    }

    fn entry_mut(&mut self, slot: Slot) -> &mut Entry<P> {
        &mut self.entries[slot.0 as usize]
    }
}

//! The topics of a broker: those that somebody subscribes to, grants, or responds to.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Role;
use super::connections::Slot;

/// Where a topic is in the table, for as long as it has anything.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct TopicKey(u32);

/// What services let clients do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Grant {
    Publish = 0,
    Subscribe = 1,
}

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Box<str>,
    pub(super) subscribers: Vec<Subscriber>,
    /// How many connections grant publications, and how many subscriptions.
    pub(super) grants: [usize; 2],
    pub(super) responders: Vec<Responder>,
    /// The responder to begin with, so that equal ones take turns.
    next: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Subscriber {
    pub(super) slot: Slot,
    pub(super) role: Role,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Responder {
    pub(super) slot: Slot,
    pub(super) workers: usize,
    /// Requests that it has not answered.
    pub(super) outstanding: usize,
}

impl Responder {
    /// Whether it has fewer requests for each worker.
    const fn is_less_busy(&self, than: &Self) -> bool {
        self.outstanding * than.workers < than.outstanding * self.workers
    }
}

impl Topic {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            subscribers: Vec::new(),
            grants: [0; 2],
            responders: Vec::new(),
            next: 0,
        }
    }

    const fn is_unused(&self) -> bool {
        self.subscribers.is_empty() && self.responders.is_empty() && matches!(self.grants, [0, 0])
    }

    /// Whether clients may do this. Who responds to a topic lets them publish to it.
    pub(super) fn grants(&self, grant: Grant) -> bool {
        let is_granted = self.grants[grant as usize] > 0;
        is_granted || grant == Grant::Publish && !self.responders.is_empty()
    }

    /// The responder that has the fewest requests for each worker; equal ones take turns.
    pub(super) fn choose(&mut self) -> Option<&mut Responder> {
        let count = self.responders.len();
        let begin = if self.next < count { self.next } else { 0 };
        let mut best = (begin < count).then_some(begin)?;
        for index in (begin..count).chain(0..begin) {
            if self.responders[index].is_less_busy(&self.responders[best]) {
                best = index;
            }
        }
        self.next = best + 1;
        self.responders.get_mut(best)
    }

    pub(super) fn responder_mut(&mut self, slot: Slot) -> Option<&mut Responder> {
        self.responders.iter_mut().find(|responder| responder.slot == slot)
    }

    pub(super) fn workers(&self) -> usize {
        self.responders.iter().map(|responder| responder.workers).sum()
    }

    pub(super) fn outstanding(&self) -> usize {
        self.responders.iter().map(|responder| responder.outstanding).sum()
    }
}

/// All topics.
#[derive(Debug, Default)]
pub(super) struct Topics {
    hasher: RandomState,
    names: HashTable<TopicKey>,
    entries: Vec<Option<Topic>>,
    free: Vec<TopicKey>,
}

impl Topics {
    pub(super) fn find(&self, name: &str) -> Option<TopicKey> {
        let is_it = |key: &TopicKey| *self.get(*key).name == *name;
        self.names.find(self.hasher.hash_one(name), is_it).copied()
    }

    pub(super) fn find_or_add(&mut self, name: &str) -> TopicKey {
        if let Some(key) = self.find(name) {
            return key;
        }
        let topic = Some(Topic::new(name));
        let key = if let Some(key) = self.free.pop() {
            self.entries[key.0 as usize] = topic;
            key
        } else {
            let key = TopicKey(u32::try_from(self.entries.len()).expect("shares are bounded"));
            self.entries.push(topic);
            key
        };
        let entries = &self.entries;
        let hash = |key: &TopicKey| self.hasher.hash_one(name_of(entries, *key));
        self.names.insert_unique(self.hasher.hash_one(name), key, hash);
        key
    }

    /// Removes a topic that has nothing.
    pub(super) fn tidy(&mut self, key: TopicKey) {
        let topic = self.get(key);
        if !topic.is_unused() {
            return;
        }
        let hash = self.hasher.hash_one(&*topic.name);
        let found = self.names.find_entry(hash, |found| *found == key);
        found.expect("a topic is found by its name").remove();
        self.entries[key.0 as usize] = None;
        self.free.push(key);
    }

    pub(super) fn get(&self, key: TopicKey) -> &Topic {
        self.entries[key.0 as usize].as_ref().expect("who has a key has a share of the topic")
    }

    pub(super) fn get_mut(&mut self, key: TopicKey) -> &mut Topic {
        self.entries[key.0 as usize].as_mut().expect("who has a key has a share of the topic")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.entries.iter().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

fn name_of(entries: &[Option<Topic>], key: TopicKey) -> &str {
    entries[key.0 as usize].as_ref().map_or("", |topic| &topic.name)
}

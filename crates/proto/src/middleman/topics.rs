//! The topics of a broker: those that somebody subscribes to, grants, or responds to.

use std::hash::BuildHasher as _;

use beacon_wire::middleman::TopicShare;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::types::{LinkId, Role, Slot, TopicKey};

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
    /// What other relays have of it.
    pub(super) remotes: Vec<Remote>,
    /// The same of those.
    next_remote: usize,
    /// What other relays know of it.
    announced: TopicShare,
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

/// What another relay has of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    pub(super) link: LinkId,
    /// What it said last.
    pub(super) share: TopicShare,
    /// Requests of ours that it has not answered.
    pub(super) outstanding: usize,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Chosen {
    Connection(Slot),
    Relay(LinkId),
}

/// How busy a responder or a relay is.
#[derive(Clone, Copy)]
struct Load {
    outstanding: u64,
    workers: u64,
}

impl Load {
    /// Whether there are fewer requests for each worker.
    const fn is_less_than(self, other: Self) -> bool {
        self.outstanding.saturating_mul(other.workers)
            < other.outstanding.saturating_mul(self.workers)
    }
}

impl Responder {
    const fn load(&self) -> Load {
        Load { outstanding: self.outstanding as u64, workers: self.workers as u64 }
    }
}

impl Remote {
    /// What the relay said of its requests is old; ours we know.
    fn load(&self) -> Load {
        let outstanding = u64::from(self.share.outstanding).max(self.outstanding as u64);
        Load { outstanding, workers: self.share.workers.into() }
    }

    pub(super) const fn is_unused(&self) -> bool {
        let TopicShare { subscribes, grants_publications, grants_subscriptions, workers, .. } =
            self.share;
        let has_any = subscribes || grants_publications || grants_subscriptions || workers > 0;
        !has_any && self.outstanding == 0
    }

    const fn grants(&self, grant: Grant) -> bool {
        match grant {
            Grant::Publish => self.share.grants_publications || self.share.workers > 0,
            Grant::Subscribe => self.share.grants_subscriptions,
        }
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
            remotes: Vec::new(),
            next_remote: 0,
            announced: TopicShare::default(),
        }
    }

    const fn is_unused(&self) -> bool {
        self.is_unused_here() && self.remotes.is_empty()
    }

    const fn is_unused_here(&self) -> bool {
        self.subscribers.is_empty() && self.responders.is_empty() && matches!(self.grants, [0, 0])
    }

    /// Whether clients may do this. Who responds to a topic lets them publish to it.
    pub(super) fn grants(&self, grant: Grant) -> bool {
        let is_granted = self.grants[grant as usize] > 0;
        is_granted
            || grant == Grant::Publish && !self.responders.is_empty()
            || self.remotes.iter().any(|remote| remote.grants(grant))
    }

    /// Who is to be asked: a responder here that has a worker without a request, else the one
    /// with the fewest requests for each worker. It counts one more from then on.
    pub(super) fn choose(&mut self) -> Option<Chosen> {
        let here = self.least_busy();
        let there = self.least_busy_remote();
        match (here, there) {
            (Some(here), Some(there)) => {
                let responder = &self.responders[here];
                let is_free = responder.outstanding < responder.workers;
                let is_busier = self.remotes[there].load().is_less_than(responder.load());
                if is_free || !is_busier { self.take(here) } else { self.take_remote(there) }
            }
            (Some(here), None) => self.take(here),
            (None, Some(there)) => self.take_remote(there),
            (None, None) => None,
        }
    }

    /// The same among the responders here.
    pub(super) fn choose_here(&mut self) -> Option<Slot> {
        let index = self.least_busy()?;
        self.take(index)?;
        Some(self.responders[index].slot)
    }

    fn take(&mut self, index: usize) -> Option<Chosen> {
        self.next = index + 1;
        let responder = self.responders.get_mut(index)?;
        responder.outstanding += 1;
        Some(Chosen::Connection(responder.slot))
    }

    fn take_remote(&mut self, index: usize) -> Option<Chosen> {
        self.next_remote = index + 1;
        let remote = self.remotes.get_mut(index)?;
        remote.outstanding += 1;
        Some(Chosen::Relay(remote.link))
    }

    fn least_busy(&self) -> Option<usize> {
        least_busy(self.responders.iter().map(Responder::load), self.next)
    }

    fn least_busy_remote(&self) -> Option<usize> {
        least_busy(self.remotes.iter().map(Remote::load), self.next_remote)
    }

    pub(super) fn remote_mut(&mut self, link: LinkId) -> Option<&mut Remote> {
        self.remotes.iter_mut().find(|remote| remote.link == link)
    }

    /// What other relays are to know of it.
    fn share(&self) -> TopicShare {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        TopicShare {
            subscribes: !self.subscribers.is_empty(),
            grants_publications: self.grants[Grant::Publish as usize] > 0,
            grants_subscriptions: self.grants[Grant::Subscribe as usize] > 0,
            workers: number(self.workers()),
            outstanding: number(self.outstanding()),
        }
    }

    /// What other relays are to know, if it is not what they know.
    pub(super) fn news(&mut self) -> Option<TopicShare> {
        let share = self.share();
        let before = std::mem::replace(&mut self.announced, share);
        let is_news = TopicShare { outstanding: 0, ..share }
            != TopicShare { outstanding: 0, ..before }
            || is_other_load(before.outstanding, share);
        if !is_news {
            self.announced = before;
        }
        is_news.then_some(share)
    }

    /// What another relay is to know that knows nothing, if there is anything.
    pub(super) fn announcement(&mut self) -> Option<TopicShare> {
        self.announced = self.share();
        (!self.is_unused_here()).then_some(self.announced)
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

/// The least of those that have workers; equal ones take turns, from `next` on.
fn least_busy(loads: impl Iterator<Item = Load> + Clone, next: usize) -> Option<usize> {
    let with_workers = loads.enumerate().filter(|(_, load)| load.workers > 0);
    let from_next = with_workers.clone().skip_while(|(index, _)| *index < next);
    let before = with_workers.take_while(|(index, _)| *index < next);
    let least = from_next.chain(before).reduce(|best, other| {
        let is_less = other.1.is_less_than(best.1);
        if is_less { other } else { best }
    });
    least.map(|(index, _)| index)
}

/// Whether responders have so many more or fewer requests than before that other relays are to
/// know. A few requests are no news, and twice as many only once.
fn is_other_load(before: u32, share: TopicShare) -> bool {
    let has_more = share.outstanding >= before.max(share.workers).saturating_mul(2).max(1);
    let has_fewer = before >= share.workers.max(1) && share.outstanding <= before / 2;
    has_more || has_fewer
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

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Topic> {
        self.entries.iter_mut().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

fn name_of(entries: &[Option<Topic>], key: TopicKey) -> &str {
    entries[key.0 as usize].as_ref().map_or("", |topic| &topic.name)
}

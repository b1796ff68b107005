//! The links to other relays.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{LinkId, TopicKey};

/// A link to another relay.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Who makes the GUIDs of its connections, once it has said so.
    pub(super) maker: Option<[u8; 5]>,
    /// The topics that it has a share of.
    pub(super) topics: BTreeSet<TopicKey>,
    /// Requests that it is to answer.
    pub(super) asked: BTreeSet<u64>,
    /// Requests that are answered to it: what it calls them, and what they are called here.
    pub(super) asking: BTreeMap<u64, u64>,
}

/// All links; there are few.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<LinkId, Link>);

impl Links {
    pub(super) fn add(&mut self, id: LinkId) {
        self.0.insert(id, Link::default());
    }

    pub(super) fn remove(&mut self, id: LinkId) -> Option<Link> {
        self.0.remove(&id)
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.0.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.0.get_mut(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = LinkId> {
        self.0.keys().copied()
    }

    /// The links to whom makes such GUIDs: one, unless two relays chose the same number.
    pub(super) fn of_maker(&self, maker: [u8; 5]) -> impl Iterator<Item = LinkId> {
        let links = self.0.iter().filter(move |(_, link)| link.maker == Some(maker));
        links.map(|(id, _)| *id)
    }

    pub(super) fn asks(&mut self, link: LinkId, id: u64, rid: u64) {
        if let Some(link) = self.get_mut(link) {
            link.asking.insert(id, rid);
        }
    }

    pub(super) fn has_answer(&mut self, link: LinkId, id: u64) {
        if let Some(link) = self.get_mut(link) {
            link.asking.remove(&id);
        }
    }

    pub(super) fn is_asked(&mut self, link: LinkId, rid: u64) {
        if let Some(link) = self.get_mut(link) {
            link.asked.insert(rid);
        }
    }

    pub(super) fn has_answered(&mut self, link: LinkId, rid: u64) {
        if let Some(link) = self.get_mut(link) {
            link.asked.remove(&rid);
        }
    }
}

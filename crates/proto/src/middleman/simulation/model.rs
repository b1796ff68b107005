//! What must come of what connections ask for, worked out anew each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::relays::Who;
use super::{Counts, Role};

#[derive(Debug)]
struct Connection {
    role: Role,
    /// Commands with their topics, and how often.
    has: BTreeMap<(String, String), usize>,
}

#[derive(Debug)]
pub(super) struct Model {
    timeout: Duration,
    connections: BTreeMap<Who, Connection>,
    numbered: u64,
    /// The last number that one heard of another.
    heard: BTreeMap<(Who, Who), u64>,
    /// Requests without an answer: who asked, and until when.
    waiting: BTreeMap<u64, (Who, Instant)>,
    answered: BTreeSet<u64>,
}

impl Model {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            connections: BTreeMap::new(),
            numbered: 0,
            heard: BTreeMap::new(),
            waiting: BTreeMap::new(),
            answered: BTreeSet::new(),
        }
    }

    pub(super) fn connect(&mut self, name: Who, role: Role) {
        self.connections.insert(name, Connection { role, has: BTreeMap::new() });
    }

    pub(super) fn disconnect(&mut self, name: Who) {
        self.connections.remove(&name);
        self.waiting.retain(|_, (requester, _)| *requester != name);
    }

    pub(super) fn role(&self, name: Who) -> Role {
        self.connections[&name].role
    }

    /// A number that no publication or request had.
    pub(super) fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// Connections that have this of a topic.
    fn with(&self, command: &str, topic: &str) -> Vec<Who> {
        let key = (command.to_owned(), topic.to_owned());
        let with = self.connections.iter().filter(|(_, other)| other.has.contains_key(&key));
        with.map(|(name, _)| *name).collect()
    }

    pub(super) fn has(&mut self, name: Who, command: &str, topic: &str) {
        let is_own = topic == format!("MSG:{}", name.guid());
        if command == "SUB" && is_own {
            return;
        }
        let connection = self.connections.get_mut(&name).unwrap();
        *connection.has.entry((command.to_owned(), topic.to_owned())).or_default() += 1;
    }

    pub(super) fn responders(&self, topic: &str) -> Vec<Who> {
        self.with("EREQ", topic)
    }

    pub(super) fn may_publish(&self, name: Who, topic: &str) -> bool {
        let is_granted =
            !self.with("EPUB", topic).is_empty() || !self.with("EREQ", topic).is_empty();
        self.role(name) == Role::Service || is_granted
    }

    pub(super) fn may_subscribe(&self, name: Who, topic: &str) -> bool {
        if let Some(owner) = topic.strip_prefix("MSG:") {
            return owner == name.guid().to_string();
        }
        self.role(name) == Role::Service || !self.with("ESUB", topic).is_empty()
    }

    /// Who is to hear a publication, in order; `None` if it is refused.
    pub(super) fn who_hears(&self, sender: Who, topic: &str) -> Option<Vec<Who>> {
        if !self.may_publish(sender, topic) {
            return None;
        }
        if let Some(owner) = topic.strip_prefix("MSG:") {
            let is_owner = |name: &&Who| name.guid().to_string() == owner;
            return Some(self.connections.keys().filter(is_owner).copied().collect());
        }
        let subscribers = self.with("SUB", topic).into_iter();
        Some(subscribers.filter(|name| self.may_subscribe(*name, topic)).collect())
    }

    pub(super) fn hears(&mut self, sender: Who, subscriber: Who, number: u64) {
        let last = self.heard.insert((sender, subscriber), number);
        assert!(last < Some(number), "out of order, or twice");
    }

    pub(super) fn asks(&mut self, name: Who, number: u64, now: Instant) {
        self.waiting.insert(number, (name, now + self.timeout));
    }

    pub(super) fn is_waited_for(&self, number: u64) -> bool {
        self.waiting.contains_key(&number)
    }

    /// A request is answered, or has failed.
    pub(super) fn is_answered(&mut self, name: Who, number: u64, now: Instant) {
        let (requester, deadline) = self.waiting.remove(&number).expect("it is waited for");
        assert_eq!(requester, name, "an answer for somebody else");
        // Time goes in steps here: what is late by less than one is told at its end.
        assert!(now < deadline + Duration::from_secs(20), "too late");
        assert!(self.answered.insert(number), "answered twice");
    }

    /// Whether a connection subscribes to a topic, or it is its own.
    pub(super) fn subscribes(&self, name: Who, topic: &str) -> bool {
        let is_own = topic == format!("MSG:{}", name.guid());
        is_own || self.with("SUB", topic).contains(&name)
    }

    pub(super) fn check_deadlines(&self, now: Instant) {
        assert!(self.waiting.values().all(|(_, deadline)| *deadline > now), "no answer");
    }

    pub(super) fn counts(&self) -> Counts {
        let count = |commands: &[&str], is_counted_once: bool| {
            let all = self.connections.values().flat_map(|connection| &connection.has);
            let of_commands = all.filter(|((command, _), _)| commands.contains(&&**command));
            of_commands.map(|(_, times)| if is_counted_once { 1 } else { *times }).sum()
        };
        Counts {
            connections: self.connections.len(),
            topics: 0,
            subscriptions: count(&["SUB"], true),
            grants: count(&["EPUB", "ESUB"], true),
            workers: count(&["EREQ"], false),
            requests: self.waiting.len(),
            links: 0,
        }
    }
}

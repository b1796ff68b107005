//! The same across relays: links are slow, and end at any time with what is on the way.
//!
//! While links are slow a relay may not know yet what was granted or taken back elsewhere. What
//! must hold even then: publications of one sender come in order to each subscriber, and only to
//! who subscribes; each request is asked at most once, and is answered or has failed exactly once,
//! within its deadline. From
//! time to time all links stand, and all that is on the way arrives: then the relays are as one
//! broker, and the model says exactly who hears what.

use std::collections::BTreeSet;
use std::time::Duration;

use beacon_wire::middleman::{Command, Message};

use super::super::relays::{Heard, Relays, Who};
use super::super::{Class, Counts, Handled, Limits, Refusal, Role};
use super::model::Model;
use super::{NOBODY, TIMEOUT, TOPICS};
use crate::simulated::{self, Random};

const STEPS: usize = 200;

struct World {
    random: Random,
    relays: Relays,
    model: Model,
    there: Vec<Who>,
    /// What responders were asked and have not answered: whom, by which number, which request.
    asked: Vec<(Who, u64, u64)>,
    /// Which requests any responder was asked: each at most once.
    delivered: BTreeSet<u64>,
    /// What was published: who by, and on what.
    published: Vec<(Who, u64, String)>,
    /// Which topics were ever granted, by which command.
    granted: BTreeSet<(String, String)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 2 + random.index(3);
        let limits = Limits { timeout: TIMEOUT, ..Limits::default() };
        let mut relays = Relays::new(count, limits);
        relays.link_all();
        Self {
            random,
            relays,
            model: Model::new(TIMEOUT),
            there: Vec::new(),
            asked: Vec::new(),
            delivered: BTreeSet::new(),
            published: Vec::new(),
            granted: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..8 => self.connect(),
            8..12 => self.disconnect(),
            12..26 => self.command(),
            26..38 => self.publish(),
            38..52 => {
                self.request();
            }
            52..62 => self.answer(),
            62..90 => self.bring(),
            90 => self.lose(),
            91..94 => self.relink(),
            94 => self.set_user(),
            95..98 => self.pass(),
            _ => self.calm(),
        }
    }

    fn someone(&mut self) -> Option<Who> {
        let at = self.random.index(self.there.len());
        self.there.get(at).copied()
    }

    fn topic(&mut self) -> String {
        if self.random.percent(15)
            && let Some(owner) = self.someone()
        {
            return format!("MSG:{}", owner.guid());
        }
        TOPICS[self.random.index(TOPICS.len())].to_owned()
    }

    fn connect(&mut self) {
        if self.there.len() >= 12 {
            return;
        }
        let role = if self.random.percent(60) { Role::Service } else { Role::Client };
        let relay = self.random.index(self.relays.count());
        let who = self.relays.connect(relay, role);
        self.model.connect(who, role);
        self.there.push(who);
    }

    fn disconnect(&mut self) {
        let Some(who) = self.someone() else { return };
        self.leave(who);
    }

    fn leave(&mut self, who: Who) {
        self.there.retain(|other| *other != who);
        self.model.disconnect(who);
        self.asked.retain(|(responder, ..)| *responder != who);
        let heard = self.relays.disconnect(who);
        self.hear(&heard);
    }

    fn say(&mut self, who: Who, frame: &str) -> Handled {
        let (handled, heard) = self.relays.say(who, frame);
        self.hear(&heard);
        handled
    }

    fn command(&mut self) {
        let Some(who) = self.someone() else { return };
        let command = ["SUB", "SUB", "EPUB", "ESUB", "EREQ"][self.random.index(5)];
        let topic = self.topic();
        let handled = self.say(who, &format!("{command} {topic}\r\n\r\n\r\n.\r\n"));
        let is_service = self.model.role(who) == Role::Service;
        if command != "SUB" {
            let expected =
                if is_service { Handled::Granted } else { Handled::Refused(Refusal::NotTrusted) };
            assert_eq!(handled, expected);
        }
        if matches!(handled, Handled::Subscribed | Handled::Granted) {
            self.model.has(who, command, &topic);
            self.granted.insert((command.to_owned(), topic));
        }
    }

    fn publish(&mut self) {
        let Some(who) = self.someone() else { return };
        let topic = self.topic();
        let number = self.number_of_publication(who, &topic);
        self.say(who, &format!("PUB {topic}\r\n\r\n{number}\r\n.\r\n"));
    }

    fn number_of_publication(&mut self, who: Who, topic: &str) -> u64 {
        let number = self.model.number();
        self.published.push((who, number, topic.to_owned()));
        number
    }

    /// Asks; returns what is known of the request.
    fn request(&mut self) -> Option<(Handled, Who, u64, String)> {
        let who = self.someone()?;
        let topic = self.topic();
        let number = self.model.number();
        self.model.asks(who, number, self.relays.now);
        let frame = format!("REQ {topic}\r\nrid: {number}\r\n\r\n{number}\r\n.\r\n");
        let handled = self.say(who, &frame);
        Some((handled, who, number, topic))
    }

    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let at = self.random.index(self.asked.len());
        let (responder, rid, number) = self.asked[at];
        let is_other = self.random.percent(10);
        let who = if is_other { self.someone().unwrap() } else { responder };
        // Two relays may have given the same number.
        if is_other && self.asked.iter().any(|(other, theirs, _)| *other == who && *theirs == rid) {
            return;
        }
        if who == responder && self.random.percent(90) {
            self.asked.swap_remove(at);
        }
        let handled = self.say(who, &format!("RES A\r\nrid: {rid}\r\n\r\n{number}\r\n.\r\n"));
        if handled == Handled::Answered {
            assert_eq!(who, responder, "somebody else answers");
        }
    }

    fn bring(&mut self) {
        let busy = self.relays.busy();
        if busy.is_empty() {
            return;
        }
        let (from, to) = busy[self.random.index(busy.len())];
        let heard = self.relays.bring(from, to);
        self.hear(&heard);
    }

    fn lose(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let at = self.random.index(self.asked.len());
        let (responder, rid, _) = self.asked.swap_remove(at);
        let heard = self.relays.undelivered(responder.relay, rid);
        self.hear(&heard);
    }

    fn relink(&mut self) {
        let one = self.random.index(self.relays.count());
        let other = self.random.index(self.relays.count());
        if one == other {
            return;
        }
        if self.relays.is_linked(one, other) {
            let heard = self.relays.cut(one, other);
            self.hear(&heard);
        } else {
            self.relays.link(one, other);
        }
    }

    fn set_user(&mut self) {
        let Some(who) = self.someone() else { return };
        let of = if self.random.percent(50) { self.someone().unwrap() } else { NOBODY };
        self.say(who, &format!("INT UID\r\nforcid: {}\r\nsetuid: u\r\n\r\n.\r\n", of.guid()));
    }

    fn pass(&mut self) {
        self.relays.now += Duration::from_millis(self.random.below(20_000));
        for relay in 0..self.relays.count() {
            let heard = self.relays.expire(relay);
            self.hear(&heard);
        }
        self.model.check_deadlines(self.relays.now);
    }

    fn settle(&mut self) -> Vec<Heard> {
        let heard = self.relays.settle();
        self.hear(&heard);
        heard
    }

    /// All links stand, and nothing is on the way: the relays are as one.
    fn calm(&mut self) {
        for one in 0..self.relays.count() {
            for other in 0..one {
                if !self.relays.is_linked(one, other) {
                    self.relays.link(one, other);
                }
            }
        }
        self.settle();
        self.check_counts();
        for _ in 0..3 {
            self.publish_in_calm();
            self.request_in_calm();
        }
    }

    fn publish_in_calm(&mut self) {
        let Some(who) = self.someone() else { return };
        let topic = self.topic();
        let number = self.number_of_publication(who, &topic);
        let expected = self.model.who_hears(who, &topic);
        let (handled, mut heard) =
            self.relays.say(who, &format!("PUB {topic}\r\n\r\n{number}\r\n.\r\n"));
        heard.extend(self.relays.settle());
        self.hear(&heard);

        let is_refused = handled == Handled::Refused(Refusal::NotTrusted);
        assert_eq!(is_refused, expected.is_none(), "{who:?} {topic}");
        let copies = heard.iter().filter(|heard| heard.class == Class::Publication);
        let mut copies: Vec<_> = copies.map(|heard| heard.who).collect();
        copies.sort();
        assert_eq!(copies, expected.unwrap_or_default(), "{who:?} {topic}");
    }

    fn request_in_calm(&mut self) {
        let before = self.asked.len();
        let Some((handled, who, number, topic)) = self.request() else { return };
        self.settle();
        let responders = self.model.responders(&topic);
        let expected = match (self.model.may_publish(who, &topic), responders.is_empty()) {
            (false, _) => Handled::Refused(Refusal::NotTrusted),
            (true, true) => Handled::Refused(Refusal::NoResponder),
            (true, false) => Handled::Asked,
        };
        assert_eq!(handled, expected, "{who:?} {topic}");
        if handled == Handled::Asked {
            let asked = self.asked.split_off(before);
            let [(responder, rid, asked_for)] = asked[..] else { panic!("{asked:?}") };
            assert_eq!(asked_for, number);
            assert!(responders.contains(&responder));
            let frame = format!("RES A\r\nrid: {rid}\r\n\r\n{number}\r\n.\r\n");
            let handled = self.say(responder, &frame);
            assert_eq!(handled, Handled::Answered);
            self.settle();
        }
        assert!(!self.model.is_waited_for(number));
    }

    fn check_counts(&self) {
        let all = (0..self.relays.count()).map(|relay| self.relays.broker(relay).counts());
        let all: Vec<_> = all.collect();
        let sum = |count: fn(&Counts) -> usize| all.iter().map(count).sum::<usize>();
        let expected = self.model.counts();
        assert_eq!(sum(|counts| counts.connections), expected.connections);
        assert_eq!(sum(|counts| counts.subscriptions), expected.subscriptions);
        assert_eq!(sum(|counts| counts.grants), expected.grants);
        assert_eq!(sum(|counts| counts.workers), expected.workers);
        // A request is at the requester's relay, and at the responder's.
        let requests = sum(|counts| counts.requests);
        assert!(requests >= expected.requests && requests <= 2 * expected.requests);
        let brokers = (0..self.relays.count()).map(|relay| self.relays.broker(relay));
        let outstanding = brokers.flat_map(|broker| broker.topics().map(|topic| topic.outstanding));
        assert_eq!(outstanding.sum::<usize>(), expected.requests);
        // A topic is known at each relay, or at none.
        let topics: BTreeSet<_> = all.iter().map(|counts| counts.topics).collect();
        assert_eq!(topics.len(), 1);
    }

    fn hear(&mut self, heard: &[Heard]) {
        for Heard { who, class, frame } in heard {
            let message = Message::parse(frame.as_bytes()).unwrap();
            let body = message.body.text();
            match (message.command, *class) {
                (Command::Pub, Class::Error) => assert_eq!(message.target, "ERROR"),
                (Command::Pub, Class::Publication) => {
                    let number = body.parse().unwrap();
                    self.hear_publication(*who, number, &message);
                }
                (Command::Req, Class::Request { rid }) => {
                    assert!(self.model.responders(message.target).contains(who));
                    let number = body.parse().unwrap();
                    assert!(self.delivered.insert(number), "it was asked twice");
                    self.asked.push((*who, rid, number));
                }
                (Command::Res, Class::Answer) => {
                    let rid = message.headers.find("rid").unwrap();
                    let number: u64 = rid.value.parse().unwrap();
                    if message.headers.find("Error").is_none() {
                        assert_eq!(body, number.to_string(), "the answer of another request");
                    }
                    self.model.is_answered(*who, number, self.relays.now);
                }
                said => panic!("{said:?}"),
            }
        }
    }

    fn hear_publication(&mut self, who: Who, number: u64, message: &Message<'_>) {
        let published = self.published.iter().rev();
        let (sender, _, topic) =
            published.into_iter().find(|(_, other, _)| *other == number).unwrap();
        assert_eq!(message.target, topic);
        assert_eq!(message.headers.find("Cid").unwrap().value, sender.guid().to_string());
        assert!(self.model.subscribes(who, topic));
        let was = |command: &str| self.granted.contains(&(command.to_owned(), topic.clone()));
        let is_own = topic.starts_with("MSG:");
        assert!(self.model.role(who) == Role::Service || is_own || was("ESUB"));
        self.model.hears(*sender, who, number);
    }

    fn end(mut self) {
        self.calm();
        while let Some(who) = self.someone() {
            self.leave(who);
        }
        self.settle();
        for relay in 0..self.relays.count() {
            let counts = self.relays.broker(relay).counts();
            assert_eq!(counts, Counts { links: self.relays.count() - 1, ..Counts::default() });
            assert_eq!(self.relays.broker(relay).next_deadline(), None);
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.end();
}

#[test]
fn relays_are_as_one_broker_whatever_links_do() {
    simulated::run(0..2_000, run);
}

#[test]
#[ignore = "long: SEEDS=100000, from FROM=0 on"]
fn soak_relays_are_as_one_broker_whatever_links_do() {
    println!("{} seeds", simulated::run_soak(run));
}

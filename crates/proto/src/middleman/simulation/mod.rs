//! Services and clients that talk through a broker, disconnect at any time, answer late, twice, for
//! others or never, and try what was not granted.
//!
//! Everything follows from a seed. A model that knows only who has asked for what says who is to
//! hear what: nobody hears anything else. Publications of each sender come in order, each request
//! is answered or has failed exactly once within its deadline, and nothing is left when all are
//! gone.

mod cluster;
mod model;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use beacon_wire::middleman::{Command, Message};

use super::relays::Who;
use super::{Bounds, Broker, Class, ConnectionId, Counts, Handled, Limits, Output, Refusal, Role};
use crate::simulated::{self, Random};
use model::Model;

const STEPS: usize = 200;
const NOBODY: Who = Who { relay: 0, number: 0 };
const TOPICS: [&str; 4] = ["A", "B", "C", "D"];
const TIMEOUT: Duration = Duration::from_secs(30);

/// A broker, who talks through it, and what is known of them.
struct World {
    random: Random,
    now: Instant,
    broker: Broker<Who>,
    out: Output,
    model: Model,
    ids: BTreeMap<Who, ConnectionId>,
    connected: u32,
    /// What responders were asked and have not answered: whom, by which number, which request.
    asked: Vec<(Who, u64, u64)>,
    /// Requests that were accepted, and those that are over.
    accepted: usize,
    ended: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let few = Bounds { subscriptions: 3, grants: 3, workers: 3, requests: 5 };
        let each = if random.percent(30) { few } else { Limits::default().each };
        let all = match random.below(4) {
            0 => Bounds { subscriptions: 10, grants: 8, workers: 8, requests: 12 },
            _ => Limits::default().all,
        };
        let limits = Limits { each, all, timeout: TIMEOUT, ..Limits::default() };
        Self {
            random,
            now: Instant::now(),
            broker: Broker::new(limits),
            out: Output::default(),
            model: Model::new(TIMEOUT),
            ids: BTreeMap::new(),
            connected: 0,
            asked: Vec::new(),
            accepted: 0,
            ended: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..8 => self.connect(),
            8..12 => self.disconnect(),
            12..22 => self.command("SUB"),
            22..26 => self.command("EPUB"),
            26..30 => self.command("ESUB"),
            30..38 => self.command("EREQ"),
            38..60 => self.publish(),
            60..78 => self.request(),
            78..92 => self.answer(),
            92..94 => self.set_user(),
            94 => self.lose(),
            _ => self.pass(),
        }
    }

    fn someone(&mut self) -> Option<Who> {
        let count = self.ids.len();
        self.ids.keys().nth(self.random.index(count)).copied()
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
        if self.ids.len() >= 12 {
            return;
        }
        let role = if self.random.percent(50) { Role::Service } else { Role::Client };
        self.connected += 1;
        let name = Who { relay: 0, number: self.connected };
        self.model.connect(name, role);
        let id = self.broker.connect(name, role, name.guid()).unwrap();
        self.ids.insert(name, id);
    }

    fn disconnect(&mut self) {
        let Some(name) = self.someone() else { return };
        self.leave(name);
    }

    fn leave(&mut self, name: Who) {
        let id = self.ids.remove(&name).unwrap();
        assert_eq!(self.broker.disconnect(id, &mut self.out), Some(name));
        assert_eq!(self.broker.disconnect(id, &mut self.out), None);
        self.model.disconnect(name);
        // Some answer after all, when it is too late.
        self.asked.retain(|(responder, ..)| *responder != name);
        self.hear(None);
    }

    fn say(&mut self, name: Who, frame: &str) -> Handled {
        let message = Message::parse(frame.as_bytes()).unwrap();
        self.broker.handle(self.ids[&name], &message, self.now, &mut self.out)
    }

    fn command(&mut self, command: &str) {
        let Some(name) = self.someone() else { return };
        let topic = self.topic();
        let handled = self.say(name, &format!("{command} {topic}\r\n\r\n\r\n.\r\n"));
        let is_trusted = match command {
            "SUB" => self.model.may_subscribe(name, &topic),
            _ => self.model.role(name) == Role::Service,
        };
        let is_denied = handled == Handled::Refused(Refusal::NotTrusted);
        assert_eq!(is_denied, !is_trusted, "{command} {topic}");
        if matches!(handled, Handled::Subscribed | Handled::Granted) {
            self.model.has(name, command, &topic);
        }
        self.hear(None);
    }

    fn publish(&mut self) {
        let Some(name) = self.someone() else { return };
        let topic = self.topic();
        let number = self.model.number();
        let handled = self.say(name, &format!("PUB {topic}\r\n\r\n{number}\r\n.\r\n"));
        let expected = self.model.who_hears(name, &topic);
        let is_refused = handled == Handled::Refused(Refusal::NotTrusted);
        assert_eq!(is_refused, expected.is_none());
        self.hear(Some((name, number, expected.unwrap_or_default())));
    }

    fn request(&mut self) {
        let Some(name) = self.someone() else { return };
        let topic = self.topic();
        let number = self.model.number();
        let frame = format!("REQ {topic}\r\nrid: {number}\r\n\r\n{number}\r\n.\r\n");
        let may = self.model.may_publish(name, &topic);
        let responders = self.model.responders(&topic);
        self.model.asks(name, number, self.now);
        let handled = self.say(name, &frame);
        self.accepted += usize::from(handled == Handled::Asked);
        if handled == Handled::Refused(Refusal::TooManyRequests) {
            assert!(may);
        } else {
            let expected = match (may, responders.is_empty()) {
                (false, _) => Handled::Refused(Refusal::NotTrusted),
                (true, true) => Handled::Refused(Refusal::NoResponder),
                (true, false) => Handled::Asked,
            };
            assert_eq!(handled, expected);
        }
        let asked_before = self.asked.len();
        self.hear(None);
        for (responder, ..) in &self.asked[asked_before..] {
            assert!(responders.contains(responder));
        }
    }

    /// A responder answers; or it answers again, or somebody else does.
    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let at = self.random.index(self.asked.len());
        let (responder, rid, number) = self.asked[at];
        let name = match self.random.percent(10) {
            true => self.someone().unwrap(),
            false => responder,
        };
        if name == responder && self.random.percent(90) {
            self.asked.swap_remove(at);
        }
        let handled = self.say(name, &format!("RES A\r\nrid: {rid}\r\n\r\n{number}\r\n.\r\n"));
        let is_due = name == responder && self.model.is_waited_for(number);
        let is_refused =
            [Refusal::NoRequest, Refusal::NotTrusted].map(Handled::Refused).contains(&handled);
        assert_eq!(handled == Handled::Answered, is_due);
        assert_eq!(is_refused, !is_due);
        self.hear(None);
    }

    fn set_user(&mut self) {
        let Some(name) = self.someone() else { return };
        let of = if self.random.percent(50) { self.someone().unwrap() } else { NOBODY };
        let frame = format!("INT UID\r\nforcid: {}\r\nsetuid: u\r\n\r\n\r\n.\r\n", of.guid());
        let expected = match (self.model.role(name), of) {
            (Role::Client, _) => Handled::Ignored,
            (Role::Service, NOBODY) => Handled::Refused(Refusal::NoConnection),
            (Role::Service, _) => Handled::UserSet,
        };
        assert_eq!(self.say(name, &frame), expected);
        self.hear(None);
    }

    /// A responder's queue does not take a request.
    fn lose(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let at = self.random.index(self.asked.len());
        let (_, rid, _) = self.asked.swap_remove(at);
        self.broker.undelivered(rid, &mut self.out);
        self.hear(None);
    }

    fn pass(&mut self) {
        self.now += Duration::from_millis(self.random.below(20_000));
        self.broker.expire(self.now, &mut self.out);
        self.hear(None);
        self.model.check_deadlines(self.now);
        assert!(self.broker.next_deadline().is_none_or(|deadline| deadline > self.now));
    }

    /// Takes what the broker has said. A publication was made if one is given.
    fn hear(&mut self, published: Option<(Who, u64, Vec<Who>)>) {
        let mut copies = Vec::new();
        let mut asked = Vec::new();
        for (to, class, frame) in self.out.deliveries() {
            let name = *self.broker.peer(to).expect("it is there");
            let message = Message::parse(frame).unwrap();
            let body = message.body.text();
            match (message.command, class) {
                (Command::Pub, Class::Error) => assert_eq!(message.target, "ERROR"),
                (Command::Pub, Class::Publication) => {
                    let (sender, number, _) = published.as_ref().expect("somebody published");
                    assert_eq!(body, number.to_string());
                    let cid = message.headers.find("Cid").unwrap().value;
                    assert_eq!(cid, sender.guid().to_string());
                    self.model.hears(*sender, name, *number);
                    copies.push(name);
                }
                (Command::Req, Class::Request { rid }) => {
                    asked.push((name, rid, body.parse().unwrap()));
                }
                (Command::Res, Class::Answer) => {
                    let rid = message.headers.find("rid").unwrap();
                    let number: u64 = rid.value.parse().unwrap();
                    if message.headers.find("Error").is_none() {
                        assert_eq!(body, number.to_string(), "the answer of another request");
                    }
                    self.model.is_answered(name, number, self.now);
                }
                said => panic!("{said:?}"),
            }
        }
        self.asked.append(&mut asked);
        if let Some((_, _, expected)) = published {
            copies.sort();
            assert_eq!(copies, expected);
        }
        self.ended += self.out.ended().len();
        self.out.clear();
        self.check_counts();
    }

    fn check_counts(&self) {
        let counts = self.broker.counts();
        let expected = self.model.counts();
        assert_eq!(counts, Counts { topics: counts.topics, ..expected });
        let topics: Vec<_> = self.broker.topics().collect();
        assert_eq!(topics.len(), counts.topics);
        let subscribers: usize = topics.iter().map(|topic| topic.subscribers).sum();
        assert_eq!(subscribers, counts.subscriptions);
        let workers: usize = topics.iter().map(|topic| topic.workers).sum();
        assert_eq!(workers, counts.workers);
        let outstanding: usize = topics.iter().map(|topic| topic.outstanding).sum();
        assert_eq!(outstanding, counts.requests);
        assert_eq!(self.accepted, self.ended + counts.requests);
    }

    fn end(mut self) {
        while let Some(name) = self.someone() {
            self.leave(name);
        }
        assert_eq!(self.broker.counts(), Counts::default());
        assert_eq!(self.broker.next_deadline(), None);
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
fn brokers_keep_their_word_whatever_connections_do() {
    simulated::run(0..2_000, run);
}

#[test]
#[ignore = "long: SEEDS=100000, from FROM=0 on"]
fn soak_brokers_keep_their_word_whatever_connections_do() {
    println!("{} seeds", simulated::run_soak(run));
}

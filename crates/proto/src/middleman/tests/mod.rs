//! A broker, told what connections send.

mod bounds;
mod cluster;
mod defects;
mod hostile;
mod requests;
mod trust;

use std::time::{Duration, Instant};

use beacon_wire::middleman::{Guid, Message};

use super::{Broker, Class, ConnectionId, Counts, Ended, Handled, Limits, Output, Refusal, Role};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A broker, and what it said since somebody listened last.
struct Scene {
    broker: Broker<usize>,
    out: Output,
    now: Instant,
    connected: u32,
}

impl Scene {
    fn new() -> Self {
        Self::bounded(Limits::default())
    }

    fn bounded(limits: Limits) -> Self {
        Self {
            broker: Broker::new(Limits { timeout: TIMEOUT, ..limits }),
            out: Output::default(),
            now: Instant::now(),
            connected: 0,
        }
    }

    fn connect(&mut self, role: Role) -> ConnectionId {
        self.connected += 1;
        self.broker.connect(0, role, guid(self.connected)).unwrap()
    }

    /// The GUID of the connection that was the last to connect.
    fn newest(&self) -> String {
        guid(self.connected).to_string()
    }

    fn service(&mut self) -> ConnectionId {
        self.connect(Role::Service)
    }

    fn client(&mut self) -> ConnectionId {
        self.connect(Role::Client)
    }

    fn disconnect(&mut self, id: ConnectionId) {
        self.broker.disconnect(id, &mut self.out).unwrap();
    }

    fn say(&mut self, from: ConnectionId, frame: &str) -> Handled {
        let message = Message::parse(frame.as_bytes()).unwrap();
        self.broker.handle(from, &message, self.now, &mut self.out)
    }

    /// Says a command with a target, without headers and body.
    fn command(&mut self, from: ConnectionId, command: &str) -> Handled {
        self.say(from, &format!("{command}\r\n\r\n\r\n.\r\n"))
    }

    fn publish(&mut self, from: ConnectionId, topic: &str, body: &str) -> Handled {
        self.say(from, &format!("PUB {topic}\r\n\r\n{body}\r\n.\r\n"))
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.broker.expire(self.now, &mut self.out);
    }

    /// What was said, and to whom.
    fn heard(&mut self) -> Vec<(ConnectionId, String)> {
        let heard = self
            .out
            .deliveries()
            .map(|(to, _, message)| (to, str::from_utf8(message).unwrap().to_owned()));
        let heard = heard.collect();
        self.out.clear();
        heard
    }

    /// The bodies of what was said, and to whom.
    fn bodies(&mut self) -> Vec<(ConnectionId, String)> {
        let heard = self.heard().into_iter().map(|(to, text)| {
            let message = Message::parse(text.as_bytes()).unwrap();
            (to, message.body.text().into_owned())
        });
        heard.collect()
    }
}

fn guid(number: u32) -> Guid {
    Guid::new(1_700_000_000, *b"relay", number)
}

fn error(text: &str) -> String {
    format!("PUB ERROR\r\n\r\n{text}\r\n.\r\n")
}

/// The number by which the only request that was delivered is to be answered.
fn only_rid(scene: &Scene) -> u64 {
    let rids: Vec<_> = rids(scene);
    let [rid] = rids[..] else { panic!("{rids:?}") };
    rid
}

fn rids(scene: &Scene) -> Vec<u64> {
    let rids = scene.out.deliveries().filter_map(|(_, class, _)| match class {
        Class::Request { rid } => Some(rid),
        Class::Publication | Class::Answer | Class::Error => None,
    });
    rids.collect()
}

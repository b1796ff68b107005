//! A relay that is killed again and again under load: what it has receipted arrives, in order, and
//! once to a recipient that remembers ids.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use serde_json::{Value, json};

use super::jetstream::Engine;
use super::{Site, envelope, register};
use crate::harness::PATIENCE;
use crate::peer::frame;
use crate::random::Random;

/// Pairs of a sender and its recipient.
const PAIRS: usize = 4;

/// Messages of a sender that are on their way, at most.
const WINDOW: usize = 32;

/// A connection that may end at any byte.
struct Wire(TcpStream);

impl Wire {
    fn register(address: SocketAddr, name: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut wire = Self(stream);
        wire.0.write_all(
            b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(wire.byte()?);
        }
        let mut first = register("tok", name);
        first["receipts"] = true.into();
        wire.say(&first)?;
        let names = wire.hear()?.ok_or(io::ErrorKind::TimedOut)?;
        assert_eq!(names["type"], "peers", "{names}");
        Ok(wire)
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        let end = Instant::now() + PATIENCE;
        loop {
            match self.0.read(&mut byte) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(byte[0]),
                Err(error) if is_slow(&error) && Instant::now() < end => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn say(&mut self, message: &Value) -> io::Result<()> {
        self.0.write_all(&frame(0x81, message.to_string().as_bytes()))
    }

    /// The next message; none where nothing comes for a while.
    fn hear(&mut self) -> io::Result<Option<Value>> {
        loop {
            let mut first = [0];
            match self.0.read(&mut first) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if is_slow(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            let length = match self.byte()? {
                126 => usize::from(u16::from_be_bytes([self.byte()?, self.byte()?])),
                127 => panic!("a message of more than 64 KiB"),
                short => short.into(),
            };
            let payload = (0..length).map(|_| self.byte()).collect::<io::Result<Vec<_>>>()?;
            match first[0] {
                0x81 => return Ok(Some(serde_json::from_slice(&payload).unwrap())),
                0x89 => self.0.write_all(&frame(0x8a, &payload))?,
                _ => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }
}

fn is_slow(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Where the relay is, as long as there is one, and how far all are.
struct Stage {
    address: RwLock<SocketAddr>,
    is_over: AtomicBool,
    receipted: AtomicUsize,
}

impl Stage {
    fn register(&self, name: &str) -> Option<Wire> {
        let address = *self.address.read();
        let wire = Wire::register(address, name).ok();
        if wire.is_none() {
            thread::sleep(Duration::from_millis(20));
        }
        wire
    }
}

/// Sends messages until all is over, each again until it has its receipt; how many.
fn send(stage: &Stage, pair: usize) -> u64 {
    let (from, to) = (format!("sender-{pair}"), format!("recipient-{pair}"));
    let mut next = 0;
    let mut unsafe_yet: VecDeque<u64> = VecDeque::new();
    loop {
        let Some(mut wire) = stage.register(&from) else { continue };
        let id = |number: u64| format!("{from}-{number}");
        let mut session = || -> io::Result<()> {
            for number in &unsafe_yet {
                wire.say(&envelope(&id(*number), &from, &to, *number))?;
            }
            loop {
                let is_over = stage.is_over.load(Ordering::Relaxed);
                while !is_over && unsafe_yet.len() < WINDOW {
                    wire.say(&envelope(&id(next), &from, &to, next))?;
                    unsafe_yet.push_back(next);
                    next += 1;
                }
                if is_over && unsafe_yet.is_empty() {
                    return Ok(());
                }
                let Some(receipt) = wire.hear()? else { continue };
                if receipt["type"] != "receipt" {
                    continue;
                }
                assert_ne!(receipt["result"], "refused", "{receipt}");
                let oldest = unsafe_yet.pop_front().unwrap();
                assert_eq!(receipt["id"], id(oldest), "receipts come in order");
                stage.receipted.fetch_add(1, Ordering::Relaxed);
            }
        };
        if session().is_ok() {
            return next;
        }
    }
}

/// Receives until `expected` says how many there are, and those are there.
fn receive(stage: &Stage, pair: usize, expected: &RwLock<Option<u64>>) -> Vec<u64> {
    let name = format!("recipient-{pair}");
    let mut ids = HashSet::new();
    let mut received = Vec::new();
    let is_done = |received: &[u64]| {
        expected.read().is_some_and(|expected| received.len() as u64 >= expected)
    };
    let mut silent_since = Instant::now();
    loop {
        let Some(mut wire) = stage.register(&name) else { continue };
        let mut session = || -> io::Result<()> {
            while !is_done(&received) {
                let Some(message) = wire.hear()? else {
                    let is_late = silent_since.elapsed() > PATIENCE;
                    assert!(!is_late, "{name}: nothing comes after {}", received.len());
                    continue;
                };
                silent_since = Instant::now();
                if message["type"] != "deliver" {
                    continue;
                }
                if ids.insert(message["envelope"]["id"].as_str().unwrap().to_owned()) {
                    received.push(message["envelope"]["body"].as_u64().unwrap());
                }
                wire.say(&json!({"type": "ack", "id": message["delivery_key"]}))?;
            }
            Ok(())
        };
        if session().is_ok() {
            return received;
        }
    }
}

#[test]
fn what_has_a_receipt_survives_ten_kills_in_order_and_once() {
    survive(10, None);
}

#[test]
fn what_has_a_receipt_survives_kills_of_relay_and_nats_in_order_and_once() {
    survive(10, Some(Engine::start()));
}

#[test]
#[ignore = "long: KILLS=200"]
fn soak_what_has_a_receipt_survives_two_hundred_kills() {
    survive(kills(), None);
}

#[test]
#[ignore = "long: KILLS=200"]
fn soak_what_has_a_receipt_survives_two_hundred_kills_of_relay_and_nats() {
    survive(kills(), Some(Engine::start()));
}

fn kills() -> usize {
    std::env::var("KILLS").map_or(200, |kills| kills.parse().unwrap())
}

/// Kills relays under load, so often, and every other time the NATS that has the messages, where
/// that is not the disk; looks whether all that had a receipt came, in order and once.
fn survive(kills: usize, mut engine: Option<Engine>) {
    let elsewhere = tempfile::tempdir().unwrap();
    let checkpoints = elsewhere.path().join("checkpoints");
    let nats = engine.as_ref().map(Engine::flag);
    let mut flags = vec!["--audit-checkpoint-file", checkpoints.to_str().unwrap()];
    flags.extend(nats.as_deref());
    let mut site = Site::start(&flags);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let receipts = under_traffic(&mut site, 20..420, seed, |site, number| {
        if let Some(engine) = engine.as_mut().filter(|_| number % 2 == 1) {
            engine.server.kill();
            thread::sleep(Duration::from_millis(random.below(300) as u64));
            engine.server.start_again();
        }
        if engine.is_none() || random.below(3) > 0 {
            site.restart("KILL", &flags);
        }
        if number + 1 < kills { Ends::No } else { Ends::Now }
    });
    eprintln!("{receipts} receipts, {kills} kills");

    // The last relay ends in order, with a checkpoint: nothing is missing in the audit log.
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    let verified = Command::new(env!("CARGO_BIN_EXE_beacon-relay"))
        .args(["audit", "verify", "--state-dir", site.state.path().to_str().unwrap()])
        .args(["--checkpoint", checkpoints.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// Whether there is a next step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ends {
    No,
    Now,
}

/// Does something to the relay again and again, each time after so many receipts, while pairs of
/// peers go on trying; looks whether all that had a receipt came, in order and once. How many
/// receipts there were.
pub(super) fn under_traffic(
    site: &mut Site,
    between: Range<usize>,
    seed: u64,
    mut step: impl FnMut(&mut Site, usize) -> Ends,
) -> usize {
    let mut random = Random(seed ^ 1);
    let stage = Stage {
        address: RwLock::new(site.address),
        is_over: AtomicBool::new(false),
        receipted: AtomicUsize::new(0),
    };
    // Recipients have to be known before they are sent to.
    for pair in 0..PAIRS {
        site.register(&format!("recipient-{pair}"));
    }
    thread::scope(|scope| {
        let pairs: Vec<_> = (0..PAIRS)
            .map(|pair| {
                let stage = &stage;
                let expected: &RwLock<Option<u64>> = Box::leak(Box::default());
                let sending = scope.spawn(move || {
                    let sent = send(stage, pair);
                    *expected.write() = Some(sent);
                    sent
                });
                (sending, scope.spawn(move || receive(stage, pair, expected)))
            })
            .collect();
        for number in 0.. {
            let before = stage.receipted.load(Ordering::Relaxed);
            let some = between.start + random.below(between.end - between.start);
            let end = Instant::now() + PATIENCE;
            while stage.receipted.load(Ordering::Relaxed) < before + some {
                assert!(Instant::now() < end, "no receipts come");
                thread::sleep(Duration::from_millis(5));
            }
            let ends = step(site, number);
            *stage.address.write() = site.address;
            if ends == Ends::Now {
                break;
            }
        }
        stage.is_over.store(true, Ordering::Relaxed);
        for (sending, receiving) in pairs {
            let sent = sending.join().unwrap();
            let received = receiving.join().unwrap();
            assert!(sent > 0 && received.iter().copied().eq(0..sent), "{sent}: {received:?}");
        }
    });
    stage.receipted.into_inner()
}

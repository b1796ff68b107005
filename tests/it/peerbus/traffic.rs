//! Pairs of peers that go on trying, whatever becomes of their relays: what had a receipt arrives,
//! in order, and once at a recipient that remembers ids.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde_json::{Value, json};

use super::{UPGRADE, envelope, register};
use crate::harness::PATIENCE;
use crate::peer::frame;
use crate::random::Random;

/// Pairs of a sender and its recipient.
const PAIRS: usize = 4;

/// Messages of a sender that are on their way, at most.
const WINDOW: usize = 32;

/// Silences of 100 ms that a registration may take.
const REGISTERED_AFTER: usize = 20;

/// A connection that may end at any byte.
struct Wire(TcpStream);

impl Wire {
    fn register(address: SocketAddr, name: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut wire = Self(stream);
        wire.0.write_all(UPGRADE.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(wire.byte()?);
        }
        let mut first = register("tok", name);
        first["receipts"] = true.into();
        wire.say(&first)?;
        // While no relay leads, another one is no better.
        let mut answers = (0..REGISTERED_AFTER).filter_map(|_| wire.hear().transpose());
        let names = answers.next().ok_or(io::ErrorKind::TimedOut)??;
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

/// Where the relays are, as long as there are some, and how far all are.
struct Stage<'a> {
    addresses: &'a RwLock<Vec<SocketAddr>>,
    is_over: AtomicBool,
    has_failed: AtomicBool,
    receipted: AtomicUsize,
}

/// Has all end who go on trying, or a test that fails would wait for them.
struct Failing<'a>(&'a AtomicBool);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.0.store(thread::panicking(), Ordering::Relaxed);
    }
}

impl Stage<'_> {
    /// Registers at a relay: at the next one with each attempt.
    fn register(&self, name: &str, attempt: &mut usize) -> Option<Wire> {
        assert!(!self.has_failed.load(Ordering::Relaxed), "{name} has nobody to talk to");
        let address = {
            let addresses = self.addresses.read();
            addresses[*attempt % addresses.len()]
        };
        *attempt += 1;
        let wire = Wire::register(address, name).ok();
        if wire.is_none() {
            thread::sleep(Duration::from_millis(20));
        }
        wire
    }
}

/// Sends messages until all is over, each again until it has its receipt; how many.
fn send(stage: &Stage<'_>, pair: usize) -> u64 {
    let (from, to) = (format!("sender-{pair}"), format!("recipient-{pair}"));
    let mut attempt = pair;
    let mut next = 0;
    let mut unsafe_yet: VecDeque<u64> = VecDeque::new();
    loop {
        let Some(mut wire) = stage.register(&from, &mut attempt) else { continue };
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
fn receive(stage: &Stage<'_>, pair: usize, expected: &RwLock<Option<u64>>) -> Vec<u64> {
    let name = format!("recipient-{pair}");
    // Not at its sender's relay, where there are several.
    let mut attempt = pair + 1;
    let mut ids = HashSet::new();
    let mut received = Vec::new();
    let is_done = |received: &[u64]| {
        expected.read().is_some_and(|expected| received.len() as u64 >= expected)
    };
    let mut silent_since = Instant::now();
    loop {
        let Some(mut wire) = stage.register(&name, &mut attempt) else { continue };
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

/// Whether there is a next step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ends {
    No,
    Now,
}

/// Does something to the relays again and again, each time after so many receipts, while pairs of
/// peers go on trying; looks whether all that had a receipt came, in order and once. How many
/// receipts there were.
pub(super) fn under(
    addresses: &RwLock<Vec<SocketAddr>>,
    between: Range<usize>,
    seed: u64,
    mut step: impl FnMut(usize) -> Ends,
) -> usize {
    let mut random = Random(seed ^ 1);
    let (is_over, receipted) = (AtomicBool::new(false), AtomicUsize::new(0));
    let has_failed = AtomicBool::new(false);
    let stage = Stage { addresses, is_over, has_failed, receipted };
    // Recipients have to be known before they are sent to.
    for pair in 0..PAIRS {
        let address = addresses.read()[0];
        Wire::register(address, &format!("recipient-{pair}")).unwrap();
    }
    thread::scope(|scope| {
        let _failing = Failing(&stage.has_failed);
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
            if step(number) == Ends::Now {
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

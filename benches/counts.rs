//! Instructions that the hot paths take, counted by Callgrind: `make counts` compares them with
//! benches/counts.toml. A count does not depend on the machine's load, and hardly on its
//! processor: see docs/PERFORMANCE.md.
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(unused_qualifications)] // what the macros make of functions

mod fixtures;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use beacon_relay::ids::{NodeId, PublicKey};
use beacon_relay::metrics::Traffic;
use beacon_relay::peers::{Neighbour, Registration, Table};
use beacon_relay::proto::login;
use beacon_relay::wire::auth::{AUTH_OK, Challenge, Generation, MaxMessage, Nonce, Reply};
use beacon_relay::wire::websocket::Opcode;
use ed25519_dalek::{Signer as _, SigningKey};
use gungraun::prelude::*;

use fixtures::{
    BATCH, Dest, Peer, Udp, Wss, claim, moment, node, push, register, session, session_of, table,
};

/// Times that each path is taken: a thousand packets in batches.
const ROUNDS: usize = 1_000 / BATCH;

/// Times that it was taken before, so that buffers are there.
const WARM_UP: usize = 4;

/// A small packet's payload, and one of a full-sized packet, in bytes.
const SMALL: usize = 64;
const LARGE: usize = 1_200;

fn wss(dest: Dest, size: usize) -> Box<Wss> {
    let mut cell = Wss::new(dest, size);
    (0..WARM_UP).for_each(|_| cell.batch());
    assert_eq!(cell.delivered(), (WARM_UP * BATCH) as u64);
    cell
}

#[library_benchmark]
#[bench::to_wss_small(wss(Dest::Session, SMALL))]
#[bench::to_wss_large(wss(Dest::Session, LARGE))]
#[bench::to_50_wss_small(wss(Dest::Sessions, SMALL))]
#[bench::to_udp_small(wss(Dest::Endpoint, SMALL))]
#[bench::to_udp_large(wss(Dest::Endpoint, LARGE))]
fn from_wss(mut cell: Box<Wss>) -> Box<Wss> {
    (0..ROUNDS).for_each(|_| cell.batch());
    cell
}

fn udp(dest: Dest, size: usize) -> Box<Udp> {
    let mut cell = Udp::new(dest, size);
    (0..WARM_UP).for_each(|_| cell.batch());
    assert_eq!(cell.delivered(), (WARM_UP * BATCH) as u64);
    cell
}

#[library_benchmark]
#[bench::to_wss_small(udp(Dest::Session, SMALL))]
#[bench::to_wss_large(udp(Dest::Session, LARGE))]
#[bench::to_udp_small(udp(Dest::Endpoint, SMALL))]
#[bench::to_udp_large(udp(Dest::Endpoint, LARGE))]
fn from_udp(mut cell: Box<Udp>) -> Box<Udp> {
    (0..ROUNDS).for_each(|_| cell.batch());
    cell
}

/// An outbox that was filled before as often as a batch takes.
fn outbox(peer: Peer, warm_up: usize) -> (Registration, Arc<Table>, Instant) {
    let (table, now) = (table(10), moment());
    let registration = session(&table, 7, peer);
    let session = table.session(node(7).into()).unwrap();
    for _ in 0..warm_up {
        push(&session, &[0x5a; SMALL], BATCH, now);
        session.flush(now);
    }
    (registration, table, now)
}

#[library_benchmark]
#[bench::empty(outbox(Peer::Reads, WARM_UP))]
#[bench::full(outbox(Peer::IsStuck, 100))]
fn outbox_push(outbox: (Registration, Arc<Table>, Instant)) -> (Registration, Arc<Table>, Instant) {
    let session = outbox.1.session(node(7).into()).unwrap();
    for _ in 0..ROUNDS {
        push(&session, &[0x5a; SMALL], BATCH, outbox.2);
    }
    outbox
}

/// A table of 5,000 sessions and 5,000 endpoints, and a thousand ids.
struct LookUps {
    table: Arc<Table>,
    _registrations: Vec<Registration>,
    ids: Vec<NodeId>,
    now: Instant,
}

fn look_ups(first: u32) -> Box<LookUps> {
    let (table, now) = (table(10_000), moment());
    let traffic = Arc::<Traffic>::default();
    let enter = |number| register(&table, session_of(&table, &traffic, number, Peer::Reads, now));
    let registrations = (1..=5_000).map(enter).collect();
    (5_001..=10_000).for_each(|number| claim(&table, number, now));
    let ids = (0..1_000).map(|index| node(first + index * 5)).collect();
    Box::new(LookUps { table, _registrations: registrations, ids, now })
}

#[library_benchmark]
#[bench::session(look_ups(1))]
#[bench::endpoint(look_ups(5_001))]
#[bench::miss(look_ups(10_001))]
fn look_up(look_ups: Box<LookUps>) -> Box<LookUps> {
    for id in &look_ups.ids {
        black_box(look_ups.table.route((*id).into(), Neighbour::Peer, look_ups.now));
    }
    look_ups
}

/// Nodes that have been here before, and their replies to challenges.
struct Logins {
    table: Arc<Table>,
    traffic: Arc<Traffic>,
    key: PublicKey,
    replies: Vec<String>,
    now: Instant,
    registrations: Vec<Registration>,
}

/// How many log in.
const LOGINS: u32 = 10;

/// The relay's clock as it challenges.
const TIME: u64 = 1_767_225_600;

fn challenge(number: u32) -> Challenge {
    let nonce = Nonce([u8::try_from(number).unwrap(); 32]).to_string();
    Challenge { nonce, ts: TIME, relay: None }
}

fn logins() -> Box<Logins> {
    let signing = SigningKey::from_bytes(&[7; 32]);
    let key = PublicKey(signing.verifying_key().to_bytes());
    let reply = |number| {
        let text = challenge(number).signed_text(node(number), Generation::Second);
        let signature = signing.sign(text.as_bytes()).to_bytes();
        let (node, max_message) = (node(number), MaxMessage::default());
        Reply { node, public_key: key, signature, generation: None, max_message }.encode()
    };
    let replies = (1..=LOGINS).map(reply).collect();
    let (table, traffic) = (table(1_000), Arc::default());
    let registrations = Vec::with_capacity(LOGINS as usize);
    let mut logins =
        Box::new(Logins { table, traffic, key, replies, now: moment(), registrations });
    // So that they come back, and the table need not grow for them.
    (1..=LOGINS).for_each(|number| log_in(&mut logins, number, Check::Signature));
    logins.registrations.clear();
    logins
}

/// Whether to verify the signature, which is nine tenths of a login and not our code.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Check {
    Signature,
    Nothing,
}

/// What the relay does of a login, but for its reads and writes.
fn log_in(logins: &mut Logins, number: u32, check: Check) {
    let challenge = challenge(number);
    black_box(challenge.encode());
    let reply = Reply::decode(logins.replies[number as usize - 1].as_bytes()).unwrap();
    if check == Check::Signature {
        login::check(&challenge, &reply, &logins.key, Generation::First, TIME).unwrap();
    }
    let session =
        session_of(&logins.table, &logins.traffic, reply.node.number(), Peer::Reads, logins.now);
    session.push_control(Opcode::Text, AUTH_OK.as_bytes());
    logins.registrations.push(register(&logins.table, Arc::clone(&session)));
    session.flush(session.since);
}

#[library_benchmark]
#[bench::verified(logins(), Check::Signature)]
#[bench::unverified(logins(), Check::Nothing)]
fn log_in_again(mut logins: Box<Logins>, check: Check) -> Box<Logins> {
    (1..=LOGINS).for_each(|number| log_in(&mut logins, number, check));
    logins
}

library_benchmark_group!(
    name = counts,
    benchmarks = [from_wss, from_udp, outbox_push, look_up, log_in_again]
);

/// Has glibc copy and compare with SSE2, which every x86-64 has, whatever this one has besides.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,\
    -BMI2,-ERMS,-FSRM,-RTM,-SSSE3,-SSE4_1,-SSE4_2";

main!(
    config = LibraryBenchmarkConfig::default().env("GLIBC_TUNABLES", TUNABLES),
    library_benchmark_groups = counts
);

//! Three costs that steer decisions on the packet path: framing, routing into an outbox,
//! and the table under contention. For comparisons before and after a change, not for
//! absolute times.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use beacon_relay::ids::{NodeId, PublicKey};
use beacon_relay::metrics::{Origin, Traffic, Whose};
use beacon_relay::net::Stream;
use beacon_relay::peers::{
    Arrival, Destination, Limits, Link, Principal, Realm, Record, Session, Source, Table, Takeover,
};
use beacon_relay::proto::route::From;
use beacon_relay::wire::websocket::{Decoder, Opcode, Role, apply_mask, frame_header};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// A stream that takes everything.
#[derive(Debug)]
struct Sink;

impl Stream for Sink {
    fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn shutdown_write(&self) {}
}

fn session(table: &Table<NodeId>, number: u32) -> Arc<Session<NodeId>> {
    let name = NodeId::new(number).unwrap();
    let principal = Principal { realm: Realm::Node, name, credential: PublicKey([1; 32]) };
    let limits = Limits { bytes: 262_144, age: Duration::from_secs(2), message: 65_536 };
    let traffic = Arc::<Traffic>::default();
    let link = Link { stream: Box::new(Sink), framing: Opcode::Binary, limits, traffic };
    let observed = SocketAddr::from(([127, 0, 0, 1], 1));
    Arc::new(Session::new(principal, table.generation(), observed, link, Instant::now()))
}

/// One read of 64 KiB: find and unmask its frames.
fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    for size in [73usize, 1_209] {
        let mut read = Vec::new();
        while read.len() < 65_536 - size - 8 {
            let (mut header, used) = frame_header(Opcode::Binary, size);
            header[1] |= 0x80;
            read.extend_from_slice(&header[..used]);
            read.extend_from_slice(&[1, 2, 3, 4]);
            let start = read.len();
            read.resize(start + size, 0x5a);
            apply_mask(&mut read[start..], [1, 2, 3, 4]);
        }
        group.throughput(Throughput::Bytes(read.len() as u64));
        group.bench_function(format!("decode {size} B frames"), |bencher| {
            let mut decoder = Decoder::new(Role::Server, 65_536);
            bencher.iter(|| {
                let mut at = 0;
                // Unmasking is its own inverse: every other round sees masked payloads, which
                // costs the same.
                while let Ok(Some(message)) = decoder.next(&mut read, &mut at) {
                    black_box(message);
                }
            });
        });
    }
    group.finish();
}

/// A run of 50 packets of 1,200 bytes: one look-up, one lock, one flush.
fn route_and_outbox(criterion: &mut Criterion) {
    let table = Arc::new(Table::new(1_000, 1_000));
    let session = session(&table, 7);
    let _registration = table.register(Arc::clone(&session), Takeover::Always).unwrap();
    let body = [0x5a; 1_200];
    let sender = NodeId::new(1).unwrap();
    let mut group = criterion.benchmark_group("route and outbox");
    for run in [1u64, 50] {
        group.throughput(Throughput::Elements(run));
        group.bench_function(format!("runs of {run}"), |bencher| {
            bencher.iter(|| {
                let now = Instant::now();
                let id = NodeId::new(7).unwrap();
                let Destination::Session(session) = table.route(id, From::Peer, now) else {
                    panic!("7 has a session");
                };
                let record = Record { head: &[6, 0, 0, 0, 1], body: &body };
                let arrival = Arrival {
                    source: Source::Session(1),
                    origin: Origin::Relayed,
                    whose: Whose::packet(sender, id),
                    at: now,
                };
                session.push((0..run).map(|_| record), &arrival);
                session.flush(now);
            });
        });
    }
    group.finish();
}

/// Look-ups while another thread registers sessions and claims endpoints.
fn table_under_contention(criterion: &mut Criterion) {
    let table = Arc::new(Table::new(100_000, 100_000));
    let now = Instant::now();
    let at = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 9));
    for number in 1..=50_000 {
        table.claim(NodeId::new(number).unwrap(), at(number), None, false, || false, now);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (table, stop) = (Arc::clone(&table), Arc::clone(&stop));
        move || {
            for number in (60_000..90_000).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                drop(table.register(session(&table, number), Takeover::Always).unwrap());
                table.claim(
                    NodeId::new(number % 50_000 + 1).unwrap(),
                    at(number % 50_000 + 1),
                    None,
                    false,
                    || false,
                    now,
                );
            }
        }
    });
    let mut number = 0u32;
    criterion.bench_function("table/look-up beside a writer", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let id = NodeId::new(number % 50_000 + 1).unwrap();
            black_box(table.route(id, From::Peer, now))
        });
    });
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

criterion_group!(benches, framing, route_and_outbox, table_under_contention);
criterion_main!(benches);

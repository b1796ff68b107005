//! Three costs that steer decisions on the packet path: framing, routing into an outbox,
//! and the table under contention. For comparisons before and after a change, not for
//! absolute times.
#![allow(missing_docs, clippy::unwrap_used)]

mod fixtures;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use beacon_relay::peers::{Destination, Neighbour, Table};
use beacon_relay::wire::websocket::{Decoder, Role};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use fixtures::{Peer, claim, node, push, push_frame, session};

/// One read of 64 KiB: find and unmask its frames.
fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    for size in [73usize, 1_209] {
        let mut read = Vec::new();
        while read.len() < 65_536 - size - 8 {
            push_frame(&vec![0x5a; size], &mut read);
        }
        group.throughput(Throughput::Bytes(read.len() as u64));
        group.bench_function(format!("decode {size} B frames"), |bencher| {
            let mut decoder = Decoder::new(Role::Server, 65_536);
            bencher.iter(|| {
                let mut at = 0;
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
    let _registration = session(&table, 7, Peer::Reads);
    let body = [0x5a; 1_200];
    let mut group = criterion.benchmark_group("route and outbox");
    for run in [1, 50] {
        group.throughput(Throughput::Elements(run as u64));
        group.bench_function(format!("runs of {run}"), |bencher| {
            bencher.iter(|| {
                let now = Instant::now();
                let Destination::Session(session) =
                    table.route(node(7).into(), Neighbour::Peer, now)
                else {
                    panic!("7 has a session");
                };
                push(&session, &body, run, now);
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
    (1..=50_000).for_each(|number| claim(&table, number, now));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (table, stop) = (Arc::clone(&table), Arc::clone(&stop));
        move || {
            for number in (60_000..90_000).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                drop(session(&table, number, Peer::Reads));
                claim(&table, number % 50_000 + 1, now);
            }
        }
    });
    let mut number = 0u32;
    criterion.bench_function("table/look-up beside a writer", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            black_box(table.route(node(number % 50_000 + 1).into(), Neighbour::Peer, now))
        });
    });
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

criterion_group!(benches, framing, route_and_outbox, table_under_contention);
criterion_main!(benches);

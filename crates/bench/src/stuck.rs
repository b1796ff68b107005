//! Readers that never read, flooded: what is left for healthy pairs, compared with the same
//! flood to nodes that are absent.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use beacon_wire::beacon::encode_relay;
use beacon_wire::websocket::Opcode;

use crate::peer::{Node, Random, log_in, push_frame};
use crate::process::kernel_tcp_memory;
use crate::subject::{Kind, Servers};
use crate::throughput::{self, Load};

/// Readers that never read; each is flooded by a sender of its own.
const READERS: u32 = 8;

/// Packets of one write of the flood: 64 KiB at 1,200 bytes.
const BURST: usize = 50;

/// The flood's rate for each sender in bursts a second: 20,000 packets a second.
const BURSTS_PER_SECOND: u32 = 400;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stuck {
    /// Packets a second of the healthy pairs next to stuck readers.
    pub(super) with_stuck: f64,
    /// The same next to a flood to absent nodes.
    pub(super) with_absent: f64,
    /// The first of the second, of a hundred.
    pub(super) left_percent: f64,
    /// Anonymous memory of the server, in MB.
    pub(super) memory_mb: f64,
    /// What TCP sockets hold in the kernel beyond what they held before, in MB.
    pub(super) kernel_mb: f64,
}

/// Runs both floods, each against a fresh relay.
pub(super) fn run(servers: &Servers, load: &Load) -> anyhow::Result<Stuck> {
    let absent = flooded(servers, load, false)?;
    let stuck = flooded(servers, load, true)?;
    Ok(Stuck {
        with_stuck: stuck.healthy,
        with_absent: absent.healthy,
        left_percent: 100.0 * stuck.healthy / absent.healthy,
        memory_mb: stuck.memory_mb,
        kernel_mb: stuck.kernel_bytes as f64 / 1e6,
    })
}

struct Flooded {
    healthy: f64,
    memory_mb: f64,
    kernel_bytes: u64,
}

fn flooded(servers: &Servers, load: &Load, present: bool) -> anyhow::Result<Flooded> {
    let healthy: Vec<_> = (1..=2 * load.pairs).map(Node::new).collect();
    let first = 2 * load.pairs + 1;
    let senders: Vec<_> = (first..first + READERS).map(Node::new).collect();
    let readers: Vec<_> = (first + READERS..first + 2 * READERS).map(Node::new).collect();
    let known: Vec<_> = [&*healthy, &*senders, &*readers].concat();
    // A stuck reader stays for the whole measurement instead of being ended after 5 s.
    let server = servers.start(Kind::Relay, &known, &["--write-timeout", "10m"])?;
    let kernel_before = kernel_tcp_memory()?;
    let (stop, bursts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (mut held, mut threads) = (Vec::<TcpStream>::new(), Vec::new());
    for (sender, reader) in senders.iter().zip(&readers) {
        if present {
            held.push(log_in(server.wss, reader)?);
        }
        let stream = log_in(server.wss, sender)?;
        let mut packet = Vec::new();
        encode_relay(sender.id, reader.id, &vec![0xa5; load.size], &mut packet);
        let mut random = Random::new(u64::from(sender.id.number()));
        let mut burst = Vec::new();
        (0..BURST).for_each(|_| push_frame(Opcode::Binary, &packet, random.mask(), &mut burst));
        let (stop, bursts) = (Arc::clone(&stop), Arc::clone(&bursts));
        threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed)
                && std::io::Write::write_all(&mut &stream, &burst).is_ok()
            {
                bursts.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_secs(1) / BURSTS_PER_SECOND);
            }
        }));
    }
    let figures = throughput::measure(&server, &healthy, load)?;
    let kernel_bytes = kernel_tcp_memory()?.saturating_sub(kernel_before);
    stop.store(true, Ordering::Relaxed);
    drop(held);
    for thread in threads {
        // A sender that was cut off has flooded less; its bursts say so.
        let _cut_off = thread.join();
    }
    anyhow::ensure!(bursts.load(Ordering::Relaxed) > 0, "the flood never began");
    Ok(Flooded { healthy: figures.packets_per_second, memory_mb: figures.memory_mb, kernel_bytes })
}

//! Latency: pairs in an open loop at a fixed rate, whatever the server does meanwhile.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use beacon_relay::net::udp::{Datagrams as _, Run};
use beacon_wire::beacon::encode_relay;
use beacon_wire::websocket::Opcode;
use parking_lot::Mutex;

use crate::options::Cell;
use crate::peer::{Node, Random, push_frame};
use crate::subject::{Joined, Kind, Servers, Subject};
use crate::throughput::{Closer, End};

/// Packets that are not counted, while everything wakes up.
const WARM_UP: Duration = Duration::from_millis(500);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) cell: Cell,
    pub(super) pairs: u32,
    pub(super) size: usize,
    /// Packets a second of each pair.
    pub(super) per_second: u32,
    pub(super) time: Duration,
}

/// What was measured, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) max_us: f64,
    /// Packets that were sent more than a millisecond behind their time, of a hundred.
    pub(super) late_percent: f64,
    pub(super) loss_percent: f64,
}

/// Runs the load against a fresh server.
pub(super) fn run(servers: &Servers, kind: Kind, rate: &Rate) -> anyhow::Result<Latency> {
    let nodes = nodes(rate);
    let server = servers.start(kind, &nodes, &[])?;
    between(&nodes, &server, &server, rate)
}

/// Runs the load from peers of one relay to peers of another in its cluster.
pub(super) fn across(servers: &Servers, rate: &Rate) -> anyhow::Result<Latency> {
    let nodes = nodes(rate);
    let joined = servers.joined(Joined::Mesh, &nodes)?;
    between(&nodes, &joined.near, &joined.far, rate)
}

fn nodes(rate: &Rate) -> Vec<Node> {
    (1..=2 * rate.pairs).map(Node::new).collect()
}

/// Runs the load from peers of `near` to peers of `far`.
fn between(nodes: &[Node], near: &Subject, far: &Subject, rate: &Rate) -> anyhow::Result<Latency> {
    let stop = Arc::new(AtomicBool::new(false));
    let samples = Arc::new(Mutex::new(Vec::new()));
    let epoch = Instant::now();
    let (mut senders, mut closers, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    for pair in nodes.chunks(2) {
        let [from, to] = pair else { continue };
        let (way_in, way_out) = rate.cell.ways();
        let receiver = End::open(way_out, far, to)?;
        let sender = End::open(way_in, near, from)?;
        closers.extend([receiver.closer()?, sender.closer()?]);
        let (stop, samples) = (Arc::clone(&stop), Arc::clone(&samples));
        threads.push(thread::spawn(move || {
            receiver.receive(&stop, |packet| {
                let now = epoch.elapsed();
                if let Some(sent) = timestamp(packet)
                    && sent > WARM_UP
                {
                    samples.lock().push(now.saturating_sub(sent));
                }
            });
        }));
        senders.push((sender, from.id, to.id));
    }
    // One thread sends for all pairs, each at its own phase, so that no two wake each other.
    let interval = Duration::from_secs(1) / rate.per_second;
    let step = interval / rate.pairs;
    let mut random = Random::new(1);
    let (mut sent, mut late) = (0u64, 0u64);
    let mut due = epoch.elapsed();
    while due < WARM_UP + rate.time {
        for (sender, from, to) in &mut senders {
            let wait = due.saturating_sub(epoch.elapsed());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            // Stamped when it leaves: the send never waits for the server, so a late start is
            // this process's own and is reported apart.
            let now = epoch.elapsed();
            if due > WARM_UP {
                sent += 1;
                late += u64::from(now > due + Duration::from_millis(1));
            }
            due += step;
            let mut payload = vec![0xa5; rate.size.max(8)];
            let ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            payload[..8].copy_from_slice(&ns.to_be_bytes());
            let mut packet = Vec::new();
            encode_relay(*from, *to, &payload, &mut packet);
            let mut frame = Vec::new();
            match sender {
                End::Wss(stream) => {
                    push_frame(Opcode::Binary, &packet, random.mask(), &mut frame);
                    stream.write_all(&frame)?;
                }
                End::Tls(stream) => {
                    push_frame(Opcode::Binary, &packet, random.mask(), &mut frame);
                    stream.write_all(&frame)?;
                }
                End::Udp(socket) => {
                    let (bytes, segment) = (&*packet, packet.len());
                    let run = Run { to: near.udp, from: None, bytes, segment };
                    socket.send(&[run], &mut |_, _, _| {});
                }
                End::Quic(_) => anyhow::bail!("the time under way is measured without QUIC"),
            }
        }
    }
    thread::sleep(Duration::from_millis(100));
    stop.store(true, Ordering::Relaxed);
    closers.iter().for_each(Closer::close);
    for thread in threads {
        // A peer that failed has delivered less, which shows as loss.
        let _failed = thread.join();
    }
    let mut samples = std::mem::take(&mut *samples.lock());
    samples.sort_unstable();
    let at = |percent: usize| {
        let index = (samples.len() * percent / 100).min(samples.len().saturating_sub(1));
        samples.get(index).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e6)
    };
    #[allow(clippy::cast_precision_loss)] // far below 2^53
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    Ok(Latency {
        p50_us: at(50),
        p99_us: at(99),
        max_us: at(100),
        late_percent: percent(late, sent),
        loss_percent: percent(sent.saturating_sub(samples.len() as u64), sent),
    })
}

/// The time that a delivery was sent at, behind its header of 5 bytes.
fn timestamp(packet: &[u8]) -> Option<Duration> {
    let stamp = packet.get(5..)?.first_chunk()?;
    Some(Duration::from_nanos(u64::from_be_bytes(*stamp)))
}

//! Throughput: pairs in a closed loop, with a window of packets in flight.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::peer::{FrameReader, Node, Random, log_in, push_frame, register};
use super::subject::{Kind, Subject};
use super::{Cell, Way};
use crate::net::udp::{
    BatchSocket, Datagrams as _, MAX_RUN, MAX_RUN_PACKETS, MAX_SEGMENT, Received, Run,
};
use crate::wire::beacon::encode_relay;
use crate::wire::websocket::Opcode;

/// Before the measurement, so that buffers and caches are as they will be.
const WARM_UP: Duration = Duration::from_millis(500);

/// A window that makes no progress for so long has lost its packets.
const LOST_AFTER: Duration = Duration::from_millis(200);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) cell: Cell,
    pub(super) pairs: u32,
    pub(super) size: usize,
    pub(super) window: u64,
    pub(super) time: Duration,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    /// Packets delivered a second.
    pub(super) packets_per_second: f64,
    /// CPU time of the server for each delivered packet, in microseconds.
    pub(super) cpu_us_per_packet: f64,
    /// Context switches of the server for each delivered packet.
    pub(super) switches_per_packet: f64,
    /// Packets sent and not delivered, of a hundred.
    pub(super) loss_percent: f64,
    /// Anonymous resident memory of the server at the end, in bytes.
    pub(super) anonymous_bytes: u64,
}

/// The window of one pair: the sender takes from it, the receiver gives back.
#[derive(Debug)]
struct Window {
    free: Mutex<u64>,
    freed: Condvar,
    size: u64,
    sent: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
}

impl Window {
    fn new(size: u64) -> Self {
        Self {
            free: Mutex::new(size),
            freed: Condvar::new(),
            size,
            sent: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Takes at most `most` places, waiting for one.
    fn take(&self, most: u64) -> u64 {
        let mut free = self.free.lock();
        let end = Instant::now() + LOST_AFTER;
        while *free == 0 {
            if self.freed.wait_until(&mut free, end).timed_out() {
                self.lost.fetch_add(self.size, Ordering::Relaxed);
                *free = self.size;
            }
        }
        let taken = (*free).min(most);
        *free -= taken;
        self.sent.fetch_add(taken, Ordering::Relaxed);
        taken
    }

    fn give(&self, places: u64) {
        self.delivered.fetch_add(places, Ordering::Relaxed);
        let mut free = self.free.lock();
        // What was taken for lost may still come.
        *free = (*free + places).min(self.size);
        self.freed.notify_one();
    }
}

/// Runs the load against a fresh server.
pub(super) fn run(kind: Kind, load: &Load) -> anyhow::Result<Figures> {
    let nodes: Vec<_> = (1..=2 * load.pairs).map(Node::new).collect();
    let server = Subject::start(kind, &nodes, &[])?;
    measure(&server, &nodes, load)
}

/// Runs the load, whose nodes the server knows, beside whatever else the server has to do.
pub(super) fn measure(server: &Subject, nodes: &[Node], load: &Load) -> anyhow::Result<Figures> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut windows = Vec::new();
    let mut ends: Vec<Closer> = Vec::new();
    let mut threads = Vec::new();
    for pair in nodes.chunks(2) {
        let [from, to] = pair else { continue };
        let window = Arc::new(Window::new(load.window));
        let (way_in, way_out) = load.cell.ways();
        let receiver = End::open(way_out, server, to)?;
        let sender = End::open(way_in, server, from)?;
        ends.extend([receiver.closer()?, sender.closer()?]);
        let mut packet = Vec::new();
        encode_relay(from.id, to.id, &vec![0xa5; load.size], &mut packet);
        for end in [(receiver, None), (sender, Some(packet))] {
            let (window, stop) = (Arc::clone(&window), Arc::clone(&stop));
            let seed = u64::from(from.id.number());
            let udp = server.udp;
            threads.push(thread::spawn(move || match end {
                (receiver, None) => {
                    receiver.receive_batches(&stop, |packets| window.give(packets), &mut |_| {});
                }
                (sender, Some(packet)) => sender.send(udp, &packet, &window, &stop, seed),
            }));
        }
        windows.push(window);
    }
    let count = |counter: fn(&Window) -> &AtomicU64| -> u64 {
        windows.iter().map(|window| counter(window).load(Ordering::Relaxed)).sum()
    };
    thread::sleep(WARM_UP);
    let (began, before) = (Instant::now(), server.usage()?);
    let (delivered_before, lost_before) = (count(|w| &w.delivered), count(|w| &w.lost));
    thread::sleep(load.time);
    let (time, after) = (began.elapsed(), server.usage()?);
    let delivered = count(|w| &w.delivered) - delivered_before;
    let lost = count(|w| &w.lost) - lost_before;
    stop.store(true, Ordering::Relaxed);
    ends.iter().for_each(Closer::close);
    for thread in threads {
        // A peer that failed has delivered less, which is what is measured.
        let _failed = thread.join();
    }
    #[allow(clippy::cast_precision_loss)] // far below 2^53
    let each = |value: f64| value / delivered.max(1) as f64;
    #[allow(clippy::cast_precision_loss)]
    Ok(Figures {
        packets_per_second: delivered as f64 / time.as_secs_f64(),
        cpu_us_per_packet: each((after.cpu - before.cpu).as_secs_f64() * 1e6),
        switches_per_packet: each(after.switches.saturating_sub(before.switches) as f64),
        loss_percent: 100.0 * lost as f64 / (delivered + lost).max(1) as f64,
        anonymous_bytes: after.anonymous,
    })
}

/// One side of a pair.
pub(super) enum End {
    Wss(TcpStream),
    Udp(BatchSocket),
}

/// Ends the waiting of one side.
pub(super) enum Closer {
    Wss(TcpStream),
    Udp,
}

impl Closer {
    pub(super) fn close(&self) {
        if let Self::Wss(stream) = self {
            // The server may have closed it before.
            let _closed = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl End {
    pub(super) fn open(way: Way, server: &Subject, node: &Node) -> anyhow::Result<Self> {
        Ok(match way {
            Way::Wss => Self::Wss(log_in(server.wss, node)?),
            Way::Udp => Self::Udp(register(server.udp, node.id)?),
        })
    }

    pub(super) fn closer(&self) -> anyhow::Result<Closer> {
        Ok(match self {
            Self::Wss(stream) => Closer::Wss(stream.try_clone()?),
            // Its waits are short.
            Self::Udp(_) => Closer::Udp,
        })
    }

    /// Receives until it is closed or told to stop, and tells of each packet.
    pub(super) fn receive(self, stop: &AtomicBool, mut each: impl FnMut(&[u8])) {
        self.receive_batches(stop, |_| {}, &mut each);
    }

    fn receive_batches(
        self,
        stop: &AtomicBool,
        mut batch: impl FnMut(u64),
        each: &mut impl FnMut(&[u8]),
    ) {
        match self {
            Self::Wss(stream) => {
                let mut reader = FrameReader::new();
                loop {
                    let mut frames = 0;
                    let read = reader.read(&stream, |packet| {
                        frames += 1;
                        each(packet);
                    });
                    match read {
                        Ok(1..) => batch(frames),
                        Ok(0) | Err(_) => return,
                    }
                }
            }
            Self::Udp(socket) => {
                let mut received = Received::new();
                while !stop.load(Ordering::Relaxed) && socket.receive(&mut received).is_ok() {
                    received.iter().for_each(|(_, packet)| each(packet));
                    batch(received.iter().count() as u64);
                }
            }
        }
    }

    fn send(self, udp: SocketAddr, packet: &[u8], window: &Window, stop: &AtomicBool, seed: u64) {
        match self {
            Self::Wss(stream) => {
                let mut random = Random::new(seed);
                let mut frames = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    frames.clear();
                    for _ in 0..window.take(window.size) {
                        push_frame(Opcode::Binary, packet, random.mask(), &mut frames);
                    }
                    if std::io::Write::write_all(&mut &stream, &frames).is_err() {
                        return;
                    }
                }
            }
            Self::Udp(socket) => {
                let most = if packet.len() > MAX_SEGMENT { 1 } else { MAX_RUN / packet.len() };
                let most = most.min(MAX_RUN_PACKETS);
                let run = packet.repeat(most);
                while !stop.load(Ordering::Relaxed) {
                    let count = usize::try_from(window.take(most as u64)).unwrap_or(most);
                    let bytes = run.get(..count * packet.len()).unwrap_or_default();
                    let run = Run { to: udp, from: None, bytes, segment: packet.len() };
                    socket.send(&[run], &mut |_, _, _| {});
                }
            }
        }
    }
}

//! Throughput: pairs in a closed loop, with a window of packets in flight.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use beacon_relay::net::udp::{
    BatchSocket, Datagrams as _, MAX_RUN, MAX_RUN_PACKETS, MAX_SEGMENT, Received, Run,
};
use beacon_wire::beacon::encode_relay;
use beacon_wire::websocket::Opcode;

use crate::bus::{middleman, peerbus};
use crate::closed_loop::{self, Figures, Window};
use crate::netbird;
use crate::options::{Cell, Way};
use crate::peer::{FrameReader, Node, Random, log_in, log_in_with_tls, push_frame, register};
use crate::process::Usage;
use crate::subject::{Joined, Kind, Protocol, Servers, Subject};
use crate::tls::TlsStream;

/// Bytes that a sender hands to the kernel at once, about.
const MAX_WRITE: usize = 1_048_576;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) cell: Cell,
    pub(super) pairs: u32,
    pub(super) size: usize,
    pub(super) window: u64,
    pub(super) time: Duration,
}

/// Runs the load against a fresh server.
pub(super) fn run(servers: &Servers, kind: Kind, load: &Load) -> anyhow::Result<Figures> {
    let nodes: Vec<_> = (1..=2 * load.pairs).map(Node::new).collect();
    let server = servers.start(kind, &nodes, &[])?;
    measure(&server, &nodes, load)
}

/// Runs the load, whose nodes the server knows, whatever else the server has to do meanwhile.
pub(super) fn measure(server: &Subject, nodes: &[Node], load: &Load) -> anyhow::Result<Figures> {
    between(server, server, || server.usage(), nodes, load)
}

/// Runs the load from peers of one of two servers that are joined to peers of the other; the cost
/// is that of all servers.
pub(super) fn across(servers: &Servers, join: Joined, load: &Load) -> anyhow::Result<Figures> {
    let nodes: Vec<_> = (1..=2 * load.pairs).map(Node::new).collect();
    let joined = servers.joined(join, &nodes)?;
    between(&joined.near, &joined.far, || joined.usage(), &nodes, load)
}

/// Runs the load from peers of `near` to peers of `far`.
fn between(
    near: &Subject,
    far: &Subject,
    usage: impl Fn() -> anyhow::Result<Usage>,
    nodes: &[Node],
    load: &Load,
) -> anyhow::Result<Figures> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut windows = Vec::new();
    let mut ends: Vec<Closer> = Vec::new();
    let mut threads = Vec::new();
    for pair in nodes.chunks(2) {
        let [from, to] = pair else { continue };
        let window = Arc::new(Window::new(load.window));
        let (way_in, way_out) = load.cell.ways();
        let receiver = End::open(way_out, far, to)?;
        let sender = End::open(way_in, near, from)?;
        ends.extend([receiver.closer()?, sender.closer()?]);
        let packet = packet(near.protocol, [from, to], load.size)?;
        for end in [(receiver, None), (sender, Some(packet))] {
            let (window, stop) = (Arc::clone(&window), Arc::clone(&stop));
            let seed = u64::from(from.id.number());
            let udp = near.udp;
            threads.push(thread::spawn(move || match end {
                (receiver, None) => {
                    receiver.receive_batches(&stop, |packets| window.give(packets), &mut |_| {});
                }
                (sender, Some(packet)) => sender.send(udp, &packet, &window, &stop, seed),
            }));
        }
        windows.push(window);
    }
    let figures = closed_loop::watch(&windows, usage, load.time)?;
    stop.store(true, Ordering::Relaxed);
    ends.iter().for_each(Closer::close);
    for thread in threads {
        // A peer that failed has delivered less, which is what is measured.
        let _failed = thread.join();
    }
    Ok(figures)
}

/// What a sender says to have `size` bytes delivered.
fn packet(protocol: Protocol, [from, to]: [&Node; 2], size: usize) -> anyhow::Result<Vec<u8>> {
    Ok(match protocol {
        Protocol::Pilot => {
            let mut packet = Vec::new();
            encode_relay(from.id, to.id, &vec![0xa5; size], &mut packet);
            packet
        }
        Protocol::Netbird => netbird::packet(to, size),
        Protocol::Peerbus | Protocol::Middleman | Protocol::Keyop => {
            anyhow::bail!("messages have a loop of their own")
        }
    })
}

/// One side of a pair.
pub(super) enum End {
    Wss(TcpStream),
    Tls(Box<TlsStream>),
    Udp(BatchSocket),
    Quic(netbird::QuicPeer),
}

/// Ends the waiting of one side.
pub(super) enum Closer {
    Wss(TcpStream),
    Udp,
    Quic(quinn::Connection),
}

impl Closer {
    pub(super) fn close(&self) {
        match self {
            Self::Wss(stream) => {
                // The server may have closed it before.
                let _closed = stream.shutdown(std::net::Shutdown::Both);
            }
            Self::Quic(connection) => netbird::close(connection),
            // Its waits are short.
            Self::Udp => {}
        }
    }
}

impl End {
    pub(super) fn open(way: Way, server: &Subject, node: &Node) -> anyhow::Result<Self> {
        Ok(match way {
            Way::Wss => match (server.protocol, &server.tls) {
                (Protocol::Netbird, _) => Self::Wss(netbird::log_in(server.wss, node)?),
                (Protocol::Middleman, _) => Self::Wss(middleman::log_in(server.wss)?),
                (Protocol::Peerbus, _) => {
                    let (stream, _) = peerbus::log_in(server.wss, &node.id.to_string())?;
                    Self::Wss(stream)
                }
                (Protocol::Keyop, _) => anyhow::bail!("its peers show certificates"),
                (Protocol::Pilot, None) => Self::Wss(log_in(server.wss, node)?),
                (Protocol::Pilot, Some(tls)) => {
                    Self::Tls(Box::new(log_in_with_tls(server.wss, tls, node)?))
                }
            },
            Way::Udp => match (server.protocol, &server.tls) {
                (Protocol::Netbird, Some(tls)) => {
                    Self::Quic(netbird::QuicPeer::log_in(server.wss, tls, node)?)
                }
                (Protocol::Netbird, None) => anyhow::bail!("no QUIC without TLS"),
                (Protocol::Peerbus | Protocol::Middleman | Protocol::Keyop, _) => {
                    anyhow::bail!("only packets come as datagrams")
                }
                (Protocol::Pilot, _) => Self::Udp(register(server.udp, node.id)?),
            },
        })
    }

    pub(super) fn closer(&self) -> anyhow::Result<Closer> {
        Ok(match self {
            Self::Wss(stream) => Closer::Wss(stream.try_clone()?),
            Self::Tls(stream) => Closer::Wss(stream.socket().try_clone()?),
            Self::Udp(_) => Closer::Udp,
            Self::Quic(peer) => Closer::Quic(peer.connection()),
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
            Self::Wss(stream) => receive_frames(&stream, batch, each),
            Self::Quic(peer) => peer.receive(|packet| {
                each(packet);
                batch(1);
            }),
            Self::Tls(stream) => receive_frames(stream, batch, each),
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
            Self::Wss(stream) => send_frames(&stream, packet, window, stop, seed),
            Self::Quic(peer) => peer.send(packet, window, stop),
            Self::Tls(stream) => send_frames(stream, packet, window, stop, seed),
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

fn receive_frames(mut stream: impl Read, mut batch: impl FnMut(u64), each: &mut impl FnMut(&[u8])) {
    let mut reader = FrameReader::new();
    loop {
        let mut frames = 0;
        let read = reader.read(&mut stream, |packet| {
            frames += 1;
            each(packet);
        });
        match read {
            Ok(1..) => batch(frames),
            Ok(0) | Err(_) => return,
        }
    }
}

fn send_frames(
    mut stream: impl Write,
    packet: &[u8],
    window: &Window,
    stop: &AtomicBool,
    seed: u64,
) {
    let mut random = Random::new(seed);
    let mut frames = Vec::new();
    let most = (MAX_WRITE / packet.len()).max(1) as u64;
    while !stop.load(Ordering::Relaxed) {
        frames.clear();
        for _ in 0..window.take(most) {
            push_frame(Opcode::Binary, packet, random.mask(), &mut frames);
        }
        if stream.write_all(&frames).is_err() {
            return;
        }
    }
}

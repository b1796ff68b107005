//! The floor: the cheapest server that still relays, as the limit to compare with.
//!
//! It reads, unmasks, and writes once a batch; it receives and sends datagrams in batches,
//! with segmentation for runs to one destination. It verifies nobody, limits nothing,
//! counts nothing, and a reader that does not read stops it.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use beacon_relay::net::bind::FreeBind;
use beacon_relay::net::udp::{
    BATCH, Datagrams, MAX_RUN, MAX_RUN_PACKETS, MAX_SEGMENT, Received, Run,
};
use beacon_wire::auth::{AUTH_OK, Challenge, Reply};
use beacon_wire::beacon::{self, Discover, Packet, RELAY_HEADER, deliver_header};
use beacon_wire::websocket::{Decoder, MAX_HEADER, Message, Opcode, Role, frame_header};
use foldhash::fast::RandomState;
use parking_lot::RwLock;
use rustix::event::{PollFd, PollFlags, epoll, poll};

/// What RFC 6455 says to its own example of a key, which the load sends.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Bytes of one read.
const READ: usize = 65_536;

/// Where a node is.
#[derive(Clone)]
enum Place {
    Wss(Arc<TcpStream>),
    Udp(SocketAddr),
}

type Places = Arc<RwLock<HashMap<u32, Place, RandomState>>>;

/// Runs the floor; prints its two addresses as the relay logs them, and serves until it is
/// ended.
///
/// # Errors
/// What the system says.
pub(super) fn run() -> io::Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let places = Places::default();
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let sockets =
        beacon_relay::udp::open(SocketAddr::from(([127, 0, 0, 1], 0)), cores, FreeBind::Off)?;
    let address = sockets.first().expect("at least one was opened").address();
    let mut readers: Vec<Sender<(TcpStream, u32)>> = Vec::new();
    for socket in sockets {
        let (new, connections) = channel();
        readers.push(new);
        let (for_streams, for_datagrams) = (places.clone(), places.clone());
        let sending = socket.clone();
        thread::spawn(move || streams(&connections, &for_streams, &*sending));
        thread::spawn(move || datagrams(&*socket, &for_datagrams));
    }
    let wss = listener.local_addr()?;
    writeln!(io::stderr(), "listening wss={wss} udp={address}")?;
    for (stream, turn) in listener.incoming().zip(0..) {
        let Ok((stream, node)) = stream.and_then(accept) else { continue };
        places.write().insert(node, Place::Wss(Arc::new(stream.try_clone()?)));
        // The relay says auth_ok when packets reach the node, and so does the floor.
        write(&stream, &text(AUTH_OK))?;
        stream.set_nonblocking(true)?;
        // The two sides of a pair come one after the other: each core gets whole pairs.
        let reader = readers.get(turn / 2 % cores).expect("one for each core");
        if reader.send((stream, node)).is_err() {
            break;
        }
    }
    Ok(())
}

/// The upgrade and the login, of which only the form is there.
fn accept(mut stream: TcpStream) -> io::Result<(TcpStream, u32)> {
    stream.set_nodelay(true)?;
    let mut request = vec![0; 4_096];
    let mut length = 0;
    while !request.get(..length).unwrap_or_default().ends_with(b"\r\n\r\n") {
        let read = stream.read(request.get_mut(length..).unwrap_or_default())?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        length += read;
    }
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: pilot.v1\r\n\r\n"
    );
    stream.write_all(response.as_bytes())?;
    let challenge = Challenge { nonce: "00".repeat(32), ts: 0, relay: None };
    stream.write_all(&text(&challenge.encode()))?;
    let mut decoder = Decoder::new(Role::Server, 1_024);
    let mut reply = Vec::new();
    loop {
        let mut piece = [0; 1_024];
        let read = stream.read(&mut piece)?;
        reply.extend_from_slice(piece.get(..read).unwrap_or_default());
        if let Ok(Some(Message::Text(range))) = decoder.next(&mut reply, &mut 0) {
            let reply = Reply::decode(reply.get(range).unwrap_or_default());
            let reply = reply.map_err(|_| ErrorKind::InvalidData)?;
            return Ok((stream, reply.node.number()));
        }
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    let (header, used) = frame_header(Opcode::Text, text.len());
    [header.get(..used).unwrap_or_default(), text.as_bytes()].concat()
}

/// One connection and the piece of a frame that it waits for.
struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    carry: Vec<u8>,
    /// Where its packets go: the load has one destination for each sender.
    place: Option<(u32, Place)>,
}

fn streams(new: &Receiver<(TcpStream, u32)>, places: &Places, socket: &dyn Datagrams) {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("the floor may poll");
    let mut connections: Vec<Connection> = Vec::new();
    let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
    let mut buffer = vec![0; READ + beacon::MAX_WSS_PACKET + MAX_HEADER];
    let mut out = Vec::new();
    loop {
        while let Ok((stream, _)) = new.try_recv() {
            let index = epoll::EventData::new_u64(connections.len() as u64);
            let added = epoll::add(&poll, stream.as_fd(), index, epoll::EventFlags::IN);
            added.expect("the floor may poll its streams");
            let decoder = Decoder::new(Role::Server, beacon::MAX_WSS_PACKET);
            connections.push(Connection { stream, decoder, carry: Vec::new(), place: None });
        }
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let filled = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&poll, filled, Some(&wait)).is_err() {
            continue;
        }
        for event in events.drain(..) {
            let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let Some(connection) = connections.get_mut(index) else { continue };
            if !connection.read(&mut buffer, &mut out, places, socket) {
                // Its place stays, so that the numbers of the others do not change.
                let _gone = epoll::delete(&poll, connection.stream.as_fd());
            }
        }
    }
}

impl Connection {
    /// Reads once and passes on what came; false at the end of the stream.
    fn read(
        &mut self,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
        places: &Places,
        socket: &dyn Datagrams,
    ) -> bool {
        let carried = self.carry.len();
        buffer.get_mut(..carried).unwrap_or_default().copy_from_slice(&self.carry);
        let room = buffer.get_mut(carried..carried + READ).unwrap_or_default();
        let read = match (&self.stream).read(room) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        self.carry.clear();
        let Some(filled) = buffer.get_mut(..carried + read) else { return false };
        out.clear();
        let mut at = 0;
        let mut segment = 0;
        while let Ok(Some(message)) = self.decoder.next(filled, &mut at) {
            let Message::Binary(range) = message else { continue };
            let packet = filled.get(range).unwrap_or_default();
            let Ok(Packet::Relay(relay)) = beacon::decode(packet) else { continue };
            let dest = relay.dest.number();
            if self.place.as_ref().is_none_or(|(known, _)| *known != dest) {
                self.place = places.read().get(&dest).map(|place| (dest, place.clone()));
            }
            let head = deliver_header(relay.sender);
            let length = head.len() + relay.payload.len();
            match &self.place {
                Some((_, Place::Wss(_))) => {
                    let (header, used) = frame_header(Opcode::Binary, length);
                    out.extend_from_slice(header.get(..used).unwrap_or_default());
                }
                Some((_, Place::Udp(to))) => {
                    let full = out.len() + length > MAX_RUN
                        || out.len() >= segment * MAX_RUN_PACKETS
                        || length != segment
                        || segment > MAX_SEGMENT;
                    if full && !out.is_empty() {
                        send_run(socket, *to, out, segment);
                        out.clear();
                    }
                    segment = length;
                }
                None => continue,
            }
            out.extend_from_slice(&head);
            out.extend_from_slice(relay.payload);
        }
        self.carry.extend_from_slice(filled.get(at..).unwrap_or_default());
        match &self.place {
            Some((_, Place::Wss(stream))) if !out.is_empty() => write(stream, out).is_ok(),
            Some((_, Place::Udp(to))) if !out.is_empty() => {
                send_run(socket, *to, out, segment);
                true
            }
            _ => true,
        }
    }
}

fn send_run(socket: &dyn Datagrams, to: SocketAddr, bytes: &[u8], segment: usize) {
    socket.send(&[Run { to, from: None, bytes, segment }], &mut |_, _, _| {});
}

/// Writes everything, waiting where it must.
fn write(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(stream, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn datagrams(socket: &dyn Datagrams, places: &Places) {
    let mut received = Received::new();
    let mut lanes: Vec<Lane> = Vec::new();
    loop {
        if socket.receive(&mut received).is_err() {
            continue;
        }
        {
            let places = places.read();
            for (_, packet) in received.iter() {
                let Ok(Packet::Relay(relay)) = beacon::decode(packet) else { continue };
                let dest = relay.dest.number();
                let lane = match lanes.iter_mut().position(|lane| lane.dest == dest) {
                    Some(lane) => lane,
                    None => {
                        let Some(place) = places.get(&dest) else { continue };
                        lanes.push(Lane::new(dest, place.clone()));
                        lanes.len() - 1
                    }
                };
                let payload = packet.get(RELAY_HEADER..).unwrap_or_default();
                if let Some(lane) = lanes.get_mut(lane) {
                    lane.push(&deliver_header(relay.sender), payload);
                }
            }
        }
        for (datagram, packet) in received.iter() {
            if let Ok(Packet::Discover(Discover { node: Some(node), .. })) = beacon::decode(packet)
            {
                places.write().insert(node.number(), Place::Udp(datagram.from));
                lanes.clear();
                let mut reply = Vec::new();
                beacon::encode_discover_reply(datagram.from, &mut reply);
                send_run(socket, datagram.from, &reply, reply.len());
            }
        }
        flush(socket, &mut lanes);
    }
}

/// What a batch has for one destination.
struct Lane {
    dest: u32,
    place: Place,
    bytes: Vec<u8>,
    /// Where each run ends, and the size of its packets.
    runs: Vec<(usize, usize)>,
}

impl Lane {
    const fn new(dest: u32, place: Place) -> Self {
        Self { dest, place, bytes: Vec::new(), runs: Vec::new() }
    }

    fn push(&mut self, head: &[u8], payload: &[u8]) {
        let length = head.len() + payload.len();
        match &self.place {
            Place::Wss(_) => {
                let (header, used) = frame_header(Opcode::Binary, length);
                self.bytes.extend_from_slice(header.get(..used).unwrap_or_default());
            }
            Place::Udp(_) => {
                let start = self.bytes.len();
                let before = self.runs.len().checked_sub(2).and_then(|i| self.runs.get(i));
                let begin = before.map_or(0, |(end, _)| *end);
                match self.runs.last_mut() {
                    Some((end, segment))
                        if *segment == length
                            && length <= MAX_SEGMENT
                            && start + length - begin <= MAX_RUN
                            && start - begin < length * MAX_RUN_PACKETS =>
                    {
                        *end = start + length;
                    }
                    _ => self.runs.push((start + length, length)),
                }
            }
        }
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(payload);
    }
}

fn flush(socket: &dyn Datagrams, lanes: &mut [Lane]) {
    let mut runs: Vec<Run<'_>> = Vec::with_capacity(BATCH);
    for lane in &*lanes {
        match &lane.place {
            Place::Wss(stream) if !lane.bytes.is_empty() => {
                // A peer of the load that is gone ends the run soon.
                let _gone = write(stream, &lane.bytes);
            }
            Place::Udp(to) => {
                let mut begin = 0;
                for (end, segment) in &lane.runs {
                    let bytes = lane.bytes.get(begin..*end).unwrap_or_default();
                    runs.push(Run { to: *to, from: None, bytes, segment: *segment });
                    begin = *end;
                }
            }
            Place::Wss(_) => {}
        }
    }
    if !runs.is_empty() {
        socket.send(&runs, &mut |_, _, _| {});
    }
    for lane in lanes {
        lane.bytes.clear();
        lane.runs.clear();
    }
}

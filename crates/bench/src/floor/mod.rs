//! The floor: the cheapest server that still relays, as the limit to compare with.
//!
//! It reads, unmasks, and writes once a batch; it receives and sends datagrams in batches,
//! with segmentation for runs to one destination. It verifies nobody, limits nothing,
//! counts nothing, and a reader that does not read stops it. With TLS it decrypts what a read
//! brought and encrypts what a batch made, by the library of the relay. Two of them can be joined:
//! what is for a node that the one does not know goes to the other.

mod datagrams;
mod keyop;
mod lanes;
mod link;
mod netbird;
mod netbird_quic;
mod peerbus;
mod streams;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use anyhow::Context as _;
use beacon_relay::net::bind::FreeBind;
use beacon_relay::net::udp::{Datagrams, Run};
use beacon_wire::auth::{AUTH_OK, Challenge, Reply};
use beacon_wire::websocket::{Decoder, Message, Opcode, Role, frame_header};
use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use rustix::event::{PollFd, PollFlags, poll};

pub(super) use self::link::Transport;
use self::link::{Join, Link};
use crate::tls::{Certificate, Tls, TlsStream};

/// What RFC 6455 says to its own example of a key, which the load sends.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How the benchmark starts a floor.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Options {
    /// Be the floor
    #[arg(long, hide = true)]
    pub(super) serve_floor: bool,
    /// The folder with its certificate
    #[arg(long, hide = true)]
    floor_certificate: Option<PathBuf>,
    /// Speak TLS with its peers
    #[arg(long, hide = true)]
    floor_tls: bool,
    /// Serve NetBird's clients
    #[arg(long, hide = true)]
    floor_netbird: bool,
    /// Serve peers of peerbus, with what comes on the disk then
    #[arg(long, hide = true)]
    floor_peerbus: Option<peerbus::Sync>,
    /// Serve peers of keyop-messenger
    #[arg(long, hide = true)]
    floor_keyop: bool,
    /// Be joined with another floor
    #[arg(long, hide = true)]
    floor_link: Option<Transport>,
    /// Where the other floor is that waits for this one
    #[arg(long, hide = true)]
    floor_link_to: Option<SocketAddr>,
}

/// A peer of a stream.
pub(super) struct Peer {
    stream: TcpStream,
    tls: Option<Mutex<Tls>>,
}

impl Peer {
    pub(super) fn welcome(&self) -> io::Result<()> {
        self.write(&text(AUTH_OK))
    }

    /// Writes everything, waiting where it must.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.tls {
            None => write(&self.stream, bytes),
            Some(tls) => tls.lock().sealed(bytes, |sealed| write(&self.stream, sealed)),
        }
    }
}

/// Where a node is.
#[derive(Clone)]
enum Place {
    Wss(Arc<Peer>),
    Udp(SocketAddr),
    /// At the other floor.
    Link(Arc<Link>),
}

/// Where all nodes are.
#[derive(Default)]
struct Places {
    here: RwLock<HashMap<u32, Place, RandomState>>,
    link: OnceLock<Arc<Link>>,
}

impl Places {
    fn find(&self, node: u32) -> Option<Place> {
        let here = self.here.read().get(&node).cloned();
        here.or_else(|| self.link.get().map(|link| Place::Link(Arc::clone(link))))
    }

    fn insert(&self, node: u32, place: Place) {
        self.here.write().insert(node, place);
    }
}

/// Runs the floor; prints its addresses as the relay logs them, and serves until it is ended.
///
/// # Errors
/// What the system says.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(sync) = options.floor_peerbus {
        return peerbus::run(sync);
    }
    if let Some(folder) = options.floor_certificate.as_deref().filter(|_| options.floor_keyop) {
        return keyop::run(folder);
    }
    if options.floor_netbird {
        let folder = options.floor_certificate.as_deref().filter(|_| options.floor_tls);
        return match folder {
            Some(folder) => netbird_quic::run(&Certificate::in_folder(folder)),
            None => netbird::run(),
        };
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let places = Arc::<Places>::default();
    let certificate = options.floor_certificate.as_deref().map(Certificate::in_folder);
    let tls = match &certificate {
        Some(certificate) if options.floor_tls => Some(Arc::new(certificate.server()?)),
        _ => None,
    };
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let sockets =
        beacon_relay::udp::open(SocketAddr::from(([127, 0, 0, 1], 0)), cores, FreeBind::Off)?;
    let first = sockets.first().context("at least one was opened")?.clone();
    let address = first.address();
    let mut readers: Vec<Sender<(Arc<Peer>, u32)>> = Vec::new();
    for socket in sockets {
        let (new, connections) = channel();
        readers.push(new);
        let for_streams = Arc::clone(&places);
        let for_datagrams = Arc::clone(&places);
        let sending = socket.clone();
        thread::spawn(move || streams::serve(&connections, &for_streams, &*sending));
        thread::spawn(move || datagrams::serve(&*socket, &for_datagrams));
    }
    let mut link_address = String::new();
    if let Some(transport) = options.floor_link {
        let certificate = certificate.context("two floors are joined with a certificate")?;
        let join = Join { certificate, places: Arc::clone(&places), socket: first };
        match options.floor_link_to {
            Some(to) => join.dial(transport, to)?,
            None => link_address = format!(" link={}", join.wait(transport)?),
        }
    }
    let wss = listener.local_addr()?;
    writeln!(io::stderr(), "listening wss={wss} udp={address}{link_address}")?;
    for (stream, turn) in listener.incoming().zip(0..) {
        let accepted = stream.map_err(Into::into).and_then(|stream| accept(stream, tls.as_ref()));
        let Ok((peer, node)) = accepted else { continue };
        let peer = Arc::new(peer);
        places.insert(node, Place::Wss(Arc::clone(&peer)));
        // The relay says auth_ok when packets reach the node, and so does the floor.
        peer.welcome()?;
        peer.stream.set_nonblocking(true)?;
        // The two sides of a pair come one after the other: each core gets whole pairs.
        let reader = readers.get(turn / 2 % cores).context("one for each core")?;
        if reader.send((peer, node)).is_err() {
            break;
        }
    }
    Ok(())
}

/// The handshake, and the upgrade and the login, of which only the form is there.
pub(super) fn accept(
    stream: TcpStream,
    tls: Option<&Arc<rustls::ServerConfig>>,
) -> anyhow::Result<(Peer, u32)> {
    stream.set_nodelay(true)?;
    let Some(config) = tls else {
        let node = log_in(&mut &stream)?;
        return Ok((Peer { stream, tls: None }, node));
    };
    let mut stream = TlsStream::new(stream, Tls::server(Arc::clone(config))?)?;
    let node = log_in(&mut stream)?;
    let (stream, tls) = stream.into_parts()?;
    Ok((Peer { stream, tls: Some(Mutex::new(tls)) }, node))
}

/// Reads up to the end of the head of the upgrade's request.
fn read_request(stream: &mut impl Read) -> io::Result<()> {
    let mut request = vec![0; 4_096];
    let mut length = 0;
    while !request.get(..length).unwrap_or_default().ends_with(b"\r\n\r\n") {
        let read = stream.read(request.get_mut(length..).unwrap_or_default())?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        length += read;
    }
    Ok(())
}

fn log_in(stream: &mut (impl Read + Write)) -> io::Result<u32> {
    read_request(stream)?;
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
            return Ok(reply.map_err(|_| ErrorKind::InvalidData)?.node.number());
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

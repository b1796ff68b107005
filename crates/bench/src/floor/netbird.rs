//! The floor for peers of NetBird's protocol: it writes the source over the destination, and the
//! whole of a read at once. Whoever logs in is let in.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use beacon_wire::netbird::{
    MAX_MESSAGE, Message as Spoken, PeerId, TRANSPORT_HEADER, auth_response, transport_header,
};
use beacon_wire::websocket::{Decoder, MAX_HEADER, Message, Opcode, Role, frame_header};
use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::{ACCEPT, read_request, write};
use crate::netbird::EXPOSED;
use crate::readiness::Readiness;

/// Bytes of one read.
const READ: usize = 65_536;

/// How long a thread waits before it may see new connections.
const WAIT: Duration = Duration::from_millis(10);

/// Where all peers are.
type Places = RwLock<HashMap<PeerId, Arc<TcpStream>, RandomState>>;

/// A peer that has come.
type Arrival = (Arc<TcpStream>, PeerId);

/// Serves until it is ended; prints its address as the relay logs its own.
pub(super) fn run() -> anyhow::Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let places = Arc::<Places>::default();
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut readers: Vec<Sender<Arrival>> = Vec::new();
    for _ in 0..cores {
        let (new, arrivals) = channel();
        readers.push(new);
        let places = Arc::clone(&places);
        thread::spawn(move || serve(&arrivals, &places));
    }
    let address = listener.local_addr()?;
    writeln!(io::stderr(), "listening wss={address} udp={address}")?;
    for (stream, turn) in listener.incoming().zip(0..) {
        let Ok((stream, peer)) = stream.and_then(log_in) else { continue };
        let stream = Arc::new(stream);
        places.write().insert(peer, Arc::clone(&stream));
        // The relay says so when packets reach the peer, and so does the floor.
        let response = auth_response(EXPOSED);
        let (header, used) = frame_header(Opcode::Binary, response.len());
        let header = header.get(..used).unwrap_or_default();
        write(&stream, &[header, &response].concat())?;
        stream.set_nonblocking(true)?;
        // The two sides of a pair come one after the other: each core gets whole pairs.
        let reader = readers.get(turn / 2 % cores).context("one for each core")?;
        if reader.send((stream, peer)).is_err() {
            break;
        }
    }
    Ok(())
}

/// The upgrade, and the login, of which only the form is there.
fn log_in(mut stream: TcpStream) -> io::Result<(TcpStream, PeerId)> {
    stream.set_nodelay(true)?;
    read_request(&mut stream)?;
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(response.as_bytes())?;
    let mut decoder = Decoder::new(Role::Server, 1_024);
    let mut login = Vec::new();
    loop {
        let mut piece = [0; 1_024];
        let read = stream.read(&mut piece)?;
        login.extend_from_slice(piece.get(..read).unwrap_or_default());
        if let Ok(Some(Message::Binary(range))) = decoder.next(&mut login, &mut 0) {
            return match Spoken::decode(login.get(range).unwrap_or_default()) {
                Ok(Spoken::Auth(auth)) => Ok((stream, auth.peer)),
                Ok(_) | Err(_) => Err(ErrorKind::InvalidData.into()),
            };
        }
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

/// One connection and the piece of a frame that it waits for.
struct Connection {
    stream: Arc<TcpStream>,
    decoder: Decoder,
    carry: Vec<u8>,
    head: [u8; TRANSPORT_HEADER],
    /// Where its packets go: the load has one destination for each sender.
    place: Option<(PeerId, Arc<TcpStream>)>,
}

fn serve(arrivals: &Receiver<Arrival>, places: &Places) {
    let mut readiness = Readiness::new().expect("the floor may poll");
    let mut connections: Vec<Connection> = Vec::new();
    let mut filled = vec![0; READ + MAX_MESSAGE + MAX_HEADER];
    let mut out = Vec::new();
    loop {
        while let Ok((stream, peer)) = arrivals.try_recv() {
            readiness.add(&*stream, connections.len()).expect("the floor may poll its streams");
            let decoder = Decoder::new(Role::Server, MAX_MESSAGE);
            let head = transport_header(peer);
            connections.push(Connection { stream, decoder, carry: Vec::new(), head, place: None });
        }
        for number in readiness.wait(WAIT) {
            let Some(connection) = connections.get_mut(number) else { continue };
            if !connection.read(&mut filled, &mut out, places) {
                // Its place stays, so that the numbers of the others do not change.
                readiness.remove(&*connection.stream);
            }
        }
    }
}

impl Connection {
    /// Reads once and passes on what came; false at the end of the stream.
    fn read(&mut self, buffer: &mut [u8], out: &mut Vec<u8>, places: &Places) -> bool {
        let carried = self.carry.len();
        let (begun, room) = buffer.split_at_mut(carried);
        begun.copy_from_slice(&self.carry);
        let read = match (&*self.stream).read(room) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        self.carry.clear();
        out.clear();
        let Some(filled) = buffer.get_mut(..carried + read) else { return false };
        let mut at = 0;
        while let Ok(Some(message)) = self.decoder.next(filled, &mut at) {
            let Message::Binary(range) = message else { continue };
            let message = filled.get(range).unwrap_or_default();
            let Ok(Spoken::Transport { dest, payload }) = Spoken::decode(message) else { continue };
            if self.place.as_ref().is_none_or(|(known, _)| *known != dest) {
                self.place = places.read().get(&dest).map(|place| (dest, Arc::clone(place)));
            }
            let (header, used) = frame_header(Opcode::Binary, message.len());
            out.extend_from_slice(header.get(..used).unwrap_or_default());
            out.extend_from_slice(&self.head);
            out.extend_from_slice(payload);
        }
        self.carry.extend_from_slice(filled.get(at..).unwrap_or_default());
        match &self.place {
            Some((_, place)) if !out.is_empty() => write(place, out).is_ok(),
            _ => true,
        }
    }
}

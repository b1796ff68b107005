//! The floor for peers of peerbus with receipts: it appends what comes to a file, and writes it to
//! whom it is for. Nothing waits for who is not there, nothing is looked up but a name, and an
//! acknowledgement is only written down.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use beacon_wire::websocket::{Decoder, Message, Opcode, Role, frame_header};

use super::{ACCEPT, read_request, text, write};
use crate::readiness::Readiness;

/// Longest message, in bytes.
const MAX_MESSAGE: usize = 65_536;

/// How long the thread waits before it looks again.
const WAIT: Duration = Duration::from_millis(100);

/// What `interval` means here and with the others.
const INTERVAL: Duration = Duration::from_millis(200);

/// When what is appended is on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Sync {
    /// After each batch, before anybody learns of it.
    Always,
    /// Every 200 ms.
    Interval,
}

/// One connection, what it read of a frame that is not whole, and what is to be written.
struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

/// All of it, on one thread.
struct Floor {
    peers: Vec<Peer>,
    names: HashMap<Vec<u8>, usize>,
    /// What the file gets at the end of the batch.
    log: Vec<u8>,
}

/// Serves until it is ended; prints its address as the relay logs its own.
pub(super) fn run(sync: Sync) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let file = log_file(sync)?;
    writeln!(io::stderr(), "listening wss={address} udp={address}")?;
    let mut readiness = Readiness::new()?;
    readiness.add(&listener, usize::MAX)?;
    let mut floor = Floor { peers: Vec::new(), names: HashMap::new(), log: Vec::new() };
    loop {
        let numbers = readiness.wait(WAIT);
        for number in numbers {
            if number == usize::MAX {
                let Ok((peer, name)) = listener.accept().and_then(|(stream, _)| log_in(stream))
                else {
                    continue;
                };
                readiness.add(&peer.stream, floor.peers.len())?;
                floor.names.insert(name, floor.peers.len());
                floor.peers.push(peer);
            } else if !floor.read(number) {
                // Its place stays, so that the numbers of the others do not change.
                readiness.remove(&floor.peers[number].stream);
            }
        }
        floor.finish(&file, sync)?;
    }
}

/// A file for what comes.
pub(super) fn log_file(sync: Sync) -> io::Result<Arc<File>> {
    let file = Arc::new(tempfile::tempfile()?);
    if sync == Sync::Interval {
        let file = Arc::clone(&file);
        thread::spawn(move || {
            loop {
                thread::sleep(INTERVAL);
                // A disk that fails is seen by who appends.
                let _failed = file.sync_data();
            }
        });
    }
    Ok(file)
}

/// The upgrade, and the registration, of which only the name is looked at.
fn log_in(mut stream: TcpStream) -> io::Result<(Peer, Vec<u8>)> {
    stream.set_nodelay(true)?;
    read_request(&mut stream)?;
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(response.as_bytes())?;
    let mut peer = Peer {
        stream,
        decoder: Decoder::new(Role::Server, MAX_MESSAGE),
        buffer: Vec::new(),
        out: Vec::new(),
    };
    let mut name = None;
    while name.is_none() {
        let is_open =
            peer.read(|register| name = field(register, b"\"name\":\"").map(<[u8]>::to_vec))?;
        if !is_open {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    write(&peer.stream, &text("{\"protocol_version\":\"v1\",\"type\":\"peers\",\"names\":[]}"))?;
    peer.stream.set_nonblocking(true)?;
    Ok((peer, name.unwrap_or_default()))
}

impl Peer {
    /// Reads once, and tells each text message; false at the end of the stream.
    fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut piece = [0; 16_384];
        let read = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(piece.get(..read).unwrap_or_default());
        let mut at = 0;
        while let Ok(Some(message)) = self.decoder.next(&mut self.buffer, &mut at) {
            if let Message::Text(range) = message {
                each(self.buffer.get(range).unwrap_or_default());
            }
        }
        self.buffer.drain(..at);
        Ok(read > 0)
    }
}

impl Floor {
    /// Reads once from a peer, and has everything wait for the end of the batch; false at the end
    /// of the stream.
    fn read(&mut self, number: usize) -> bool {
        let Self { peers, names, log } = self;
        let mut batch = Vec::new();
        let read = peers[number].read(|message| {
            log.extend_from_slice(message);
            if !message.starts_with(b"{\"protocol_version\":\"v1\",\"type\":\"ack\"") {
                batch.push(message.to_vec());
            }
        });
        for envelope in batch {
            let id = field(&envelope, b"\"id\":\"").unwrap_or_default();
            let id = String::from_utf8_lossy(id);
            let receipt = format!("{{\"type\":\"receipt\",\"id\":\"{id}\",\"result\":\"stored\"}}");
            peers[number].out.extend_from_slice(&text(&receipt));
            let to = field(&envelope, b"\"to\":\"").and_then(|to| names.get(to));
            let Some(to) = to.and_then(|to| peers.get_mut(*to)) else { continue };
            let head = format!(
                "{{\"protocol_version\":\"v1\",\"type\":\"deliver\",\"delivery_key\":\"{id}\",\"envelope\":"
            );
            let length = head.len() + envelope.len() + 1;
            let (header, used) = frame_header(Opcode::Text, length);
            to.out.extend_from_slice(header.get(..used).unwrap_or_default());
            to.out.extend_from_slice(head.as_bytes());
            to.out.extend_from_slice(&envelope);
            to.out.push(b'}');
        }
        match read {
            Ok(is_open) => is_open,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Appends what the batch brought, and then tells everybody.
    fn finish(&mut self, mut file: &File, sync: Sync) -> io::Result<()> {
        if self.log.is_empty() {
            return Ok(());
        }
        file.write_all(&self.log)?;
        self.log.clear();
        if sync == Sync::Always {
            file.sync_data()?;
        }
        for peer in self.peers.iter_mut().filter(|peer| !peer.out.is_empty()) {
            // One that has gone gets nothing.
            let _gone = write(&peer.stream, &peer.out);
            peer.out.clear();
        }
        Ok(())
    }
}

/// The text of a member that stands behind this, and has nothing escaped.
pub(super) fn field<'a>(message: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = message.windows(name.len()).position(|window| window == name)? + name.len();
    let rest = message.get(at..)?;
    rest.get(..rest.iter().position(|byte| *byte == b'"')?)
}

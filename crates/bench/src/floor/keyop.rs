//! The floor for peers of keyop-messenger over gRPC with certificates on both sides: it appends what
//! comes to a file, acknowledges it, and writes it to who has subscribed the channel last. Nothing
//! waits for who is not there, and an acknowledgement is only written down.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use beacon_wire::keyop::grpc::{
    self, SubscribeFrame, hub_batch, publish_ack, read_publish_batch, take_message,
};
use bytes::BytesMut;
use rustls::ServerConfig;

use super::peerbus::{Sync, field, log_file};
use crate::bus::keyop::frame::{
    ACK, DATA, END_HEADERS, Frame, HEADERS, PING, PREFACE, SETTINGS, open_windows, push_frame,
};
use crate::bus::keyop::{MAX_MESSAGE, PUBLISH, SUBSCRIBE, hub_config};
use crate::readiness::Readiness;
use crate::tls::{Tls, TlsStream};

/// How long the thread waits before it looks again.
const WAIT: Duration = Duration::from_millis(100);

/// What one read brings at most, in bytes.
const READ: usize = 65_536;

/// The headers of an answer: status 200, and the content type, neither indexed nor compressed.
const ANSWER: &[u8] = b"\x88\x0f\x10\x10application/grpc";

/// One connection, and what it read of frames and messages that are not whole.
struct Peer {
    stream: TlsStream,
    incoming: Vec<u8>,
    publish: BytesMut,
    subscribe: BytesMut,
    out: Vec<u8>,
}

/// All of it, on one thread.
struct Floor {
    peers: Vec<Peer>,
    channels: HashMap<Vec<u8>, usize>,
    /// What the file gets at the end of the batch.
    log: Vec<u8>,
    piece: Vec<u8>,
}

/// Serves until it is ended; prints its address as the relay logs its own.
pub(super) fn run(folder: &Path) -> anyhow::Result<()> {
    let config = Arc::new(hub_config(folder)?);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let file = log_file(Sync::Interval)?;
    writeln!(io::stderr(), "listening wss={address} udp={address}")?;
    let mut readiness = Readiness::new()?;
    readiness.add(&listener, usize::MAX)?;
    let (peers, channels) = (Vec::new(), HashMap::new());
    let mut floor = Floor { peers, channels, log: Vec::new(), piece: vec![0; READ] };
    loop {
        let numbers = readiness.wait(WAIT);
        for number in numbers {
            if number == usize::MAX {
                let Ok(peer) = Peer::accept(&listener, &config) else { continue };
                readiness.add(peer.stream.socket(), floor.peers.len())?;
                floor.peers.push(peer);
            } else if !floor.read(number).unwrap_or(false) {
                // Its place stays, so that the numbers of the others do not change.
                readiness.remove(floor.peers[number].stream.socket());
            }
        }
        floor.finish(&file)?;
    }
}

impl Peer {
    fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> anyhow::Result<Self> {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut stream = TlsStream::new(stream, Tls::server(Arc::clone(config))?)?;
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface)?;
        let (publish, subscribe) = (BytesMut::new(), BytesMut::new());
        let mut peer = Self { stream, incoming: Vec::new(), publish, subscribe, out: Vec::new() };
        open_windows(&mut peer.out, &[]);
        peer.take_frames();
        Ok(peer)
    }

    /// Takes the frames that are whole.
    fn take_frames(&mut self) {
        let Self { incoming, publish, subscribe, out, .. } = self;
        let mut at = 0;
        while let Some(frame) = Frame::first(incoming.get(at..).unwrap_or_default()) {
            at += frame.length();
            match (frame.kind, frame.flags & ACK) {
                (DATA, _) if frame.stream == PUBLISH => publish.extend_from_slice(frame.payload),
                (DATA, _) => subscribe.extend_from_slice(frame.payload),
                (HEADERS, _) => push_frame(out, HEADERS, END_HEADERS, frame.stream, ANSWER),
                (SETTINGS, 0) => push_frame(out, SETTINGS, ACK, 0, b""),
                (PING, 0) => push_frame(out, PING, ACK, 0, frame.payload),
                _ => {}
            }
        }
        incoming.drain(..at);
    }
}

impl Floor {
    /// Reads what a peer has sent, and has everything wait for the end of the batch; false at the
    /// end of the stream.
    fn read(&mut self, number: usize) -> anyhow::Result<bool> {
        let Self { peers, channels, log, piece } = self;
        let peer = &mut peers[number];
        loop {
            let read = peer.stream.read(piece)?;
            if read == 0 {
                return Ok(false);
            }
            peer.incoming.extend_from_slice(piece.get(..read).unwrap_or_default());
            if !peer.stream.has_more() {
                break;
            }
        }
        peer.take_frames();
        let refused = |refusal: grpc::Refusal<'_>| anyhow::anyhow!(refusal.message());
        while let Some(message) = take_message(&mut peer.subscribe, MAX_MESSAGE).map_err(refused)? {
            match SubscribeFrame::parse(&message)? {
                SubscribeFrame::Request(request) => {
                    let names = request.channels.iter().map(|name| name.as_bytes().to_vec());
                    channels.extend(names.map(|name| (name, number)));
                }
                SubscribeFrame::Ack(last_id) => log.extend_from_slice(last_id.as_bytes()),
                SubscribeFrame::Empty => {}
            }
        }
        while let Some(message) =
            take_message(&mut peers[number].publish, MAX_MESSAGE).map_err(refused)?
        {
            let mut last_id = "";
            for record in read_publish_batch(&message)?.iter() {
                log.extend_from_slice(record);
                last_id = str::from_utf8(field(record, b"\"id\":\"").unwrap_or_default())?;
                let to = field(record, b"\"channel\":\"").and_then(|to| channels.get(to));
                let Some(to) = to.and_then(|to| peers.get_mut(*to)) else { continue };
                let batch = hub_batch([record].into_iter());
                push_frame(&mut to.out, DATA, 0, SUBSCRIBE, &batch);
            }
            push_frame(&mut peers[number].out, DATA, 0, PUBLISH, &publish_ack(last_id));
        }
        Ok(true)
    }

    /// Appends what the batch brought, and then tells everybody.
    fn finish(&mut self, mut file: &File) -> io::Result<()> {
        if !self.log.is_empty() {
            file.write_all(&self.log)?;
            self.log.clear();
        }
        for peer in self.peers.iter_mut().filter(|peer| !peer.out.is_empty()) {
            // One that has gone gets nothing.
            let _gone = peer.stream.write_all(&peer.out);
            peer.out.clear();
        }
        Ok(())
    }
}

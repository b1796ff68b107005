//! As much of HTTP/2 (RFC 9113) as the calls of a peer need, over TLS: what a client of a library would
//! add to the load, nobody measures.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::ClientConfig;

use super::frame::{
    ACK, DATA, END_HEADERS, Frame, GOAWAY, HEADERS, MAX_FRAME, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, push_frame,
};
use super::{frame, over};
use crate::peer::connect;
use crate::tls::{NAME, Tls, TlsStream};

/// What windows are before either side says anything.
const INITIAL_WINDOW: i64 = 65_535;

/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Room for what comes, in bytes, at first: it is kept from read to read, or clearing it would be most
/// of the load.
const ROOM: usize = 16 << 10;

/// A connection whose calls have begun.
pub(super) struct Connection {
    stream: TlsStream,
    incoming: Vec<u8>,
    filled: usize,
    out: Vec<u8>,
    has_pong: bool,
    /// What the hub lets in, over all calls, and of each at its beginning.
    window: i64,
    initial_window: i64,
    calls: Vec<Call>,
}

/// What is sent in a call.
struct Call {
    stream: u32,
    window: i64,
    /// What the windows have no room for.
    waiting: Vec<u8>,
}

impl Connection {
    pub(super) fn open(server: SocketAddr, config: Arc<ClientConfig>) -> anyhow::Result<Self> {
        let stream = TlsStream::new(connect(server)?, Tls::client(config)?)?;
        let incoming = vec![0; ROOM];
        let mut made = Self {
            stream,
            incoming,
            filled: 0,
            out: Vec::new(),
            has_pong: false,
            window: INITIAL_WINDOW,
            initial_window: INITIAL_WINDOW,
            calls: Vec::new(),
        };
        made.out.extend_from_slice(PREFACE);
        // SETTINGS_ENABLE_PUSH 0.
        frame::open_windows(&mut made.out, &[0, 2, 0, 0, 0, 0]);
        Ok(made)
    }

    pub(super) const fn socket(&self) -> &TcpStream {
        self.stream.socket()
    }

    /// Begins a call with its headers, none of which is indexed or compressed (RFC 7541 §6.2.2).
    pub(super) fn begin_call(&mut self, stream: u32, path: &str) {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", path),
            (":authority", NAME),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).expect("below 127, so that it is one byte"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.push_frame(HEADERS, END_HEADERS, stream, &block);
        self.calls.push(Call { stream, window: self.initial_window, waiting: Vec::new() });
    }

    /// Has a message of a call leave as soon as the hub lets it in.
    pub(super) fn push_data(&mut self, stream: u32, message: &[u8]) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.stream == stream) {
            call.waiting.extend_from_slice(message);
        }
        self.fill_windows();
    }

    fn fill_windows(&mut self) {
        for call in &mut self.calls {
            let room = call.window.min(self.window).max(0);
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(call.waiting.len());
            for piece in call.waiting.get(..room).unwrap_or_default().chunks(MAX_FRAME) {
                push_frame(&mut self.out, DATA, 0, call.stream, piece);
            }
            call.waiting.drain(..room);
            let sent = i64::try_from(room).expect("a window is that large");
            call.window -= sent;
            self.window -= sent;
        }
    }

    /// The hub has more room.
    fn widen(&mut self, stream: u32, by: i64) {
        match self.calls.iter_mut().find(|call| call.stream == stream) {
            Some(call) => call.window += by,
            None => self.window += by,
        }
    }

    fn settle(&mut self, settings: &[u8]) {
        for setting in settings.chunks_exact(6) {
            let (name, value) = setting.split_at(2);
            let value = value.try_into().map(u32::from_be_bytes).unwrap_or_default();
            if name == INITIAL_WINDOW_SIZE.to_be_bytes() {
                let change = i64::from(value) - self.initial_window;
                self.initial_window += change;
                self.calls.iter_mut().for_each(|call| call.window += change);
            }
        }
        push_frame(&mut self.out, SETTINGS, ACK, 0, b"");
    }

    pub(super) fn push_ping(&mut self) {
        self.push_frame(PING, 0, 0, b"are you?");
    }

    /// Whether a ping was answered, once.
    pub(super) fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.has_pong)
    }

    fn push_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        push_frame(&mut self.out, kind, flags, stream, payload);
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Reads once, and hands over the data of calls.
    pub(super) fn read(&mut self, mut data: impl FnMut(u32, &[u8])) -> anyhow::Result<()> {
        loop {
            let room = self.incoming.get_mut(self.filled..).unwrap_or_default();
            let read = self.stream.read(room)?;
            if read == 0 {
                return Err(over());
            }
            self.filled += read;
            if self.filled == self.incoming.len() {
                self.incoming.resize(2 * self.filled, 0);
            }
            // Nobody is told of what is decrypted and was not taken.
            if !self.stream.has_more() {
                break;
            }
        }
        let incoming = std::mem::take(&mut self.incoming);
        let mut at = 0;
        while let Some(frame) = Frame::first(incoming.get(at..self.filled).unwrap_or_default()) {
            at += frame.length();
            match (frame.kind, frame.flags & ACK) {
                (DATA, _) => data(frame.stream, frame.payload),
                (SETTINGS, 0) => self.settle(frame.payload),
                (PING, 0) => self.push_frame(PING, ACK, 0, frame.payload),
                (PING, _) => self.has_pong = true,
                (WINDOW_UPDATE, _) => {
                    let by = frame.payload.try_into().map(u32::from_be_bytes).unwrap_or_default();
                    self.widen(frame.stream, by.into());
                }
                (RST_STREAM | GOAWAY, _) => anyhow::bail!("the hub ends a call"),
                // The headers of an answer.
                _ => {}
            }
        }
        self.incoming = incoming;
        self.fill_windows();
        self.incoming.copy_within(at..self.filled, 0);
        self.filled -= at;
        self.flush()
    }
}

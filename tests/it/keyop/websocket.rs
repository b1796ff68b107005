//! A peer over WebSocket, frame by frame, written from the protocol's description.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConnection, StreamOwned};

use super::HUB;
use super::pki::{Authority, Identity};
use crate::harness::PATIENCE;
use crate::peer::{Frame, frame};

/// A connection.
pub(crate) struct Ws {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Ws {
    /// Makes the handshake of TLS, as the original's client does: no protocol is offered.
    pub(crate) fn connect(
        address: SocketAddr,
        authority: &Authority,
        identity: &Identity,
    ) -> io::Result<Self> {
        let config = authority.client(Some(identity), &TLS13, &[]);
        let name = ServerName::try_from(HUB).unwrap();
        let connection = ClientConnection::new(config, name).unwrap();
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream })
    }

    /// Asks for the upgrade; the status that came.
    pub(crate) fn upgrade(&mut self, path: &str) -> u16 {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:7740\r\nUser-Agent: Go-http-client/1.1\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n"
        );
        self.ask(&request)
    }

    pub(crate) fn ask(&mut self, request: &str) -> u16 {
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn say(&mut self, opcode: u8, payload: &[u8]) {
        // The relay may have closed before.
        let _gone = self.stream.write_all(&frame(0x80 | opcode, payload));
    }

    /// Sends a message as the original's clients do: in continuation frames of 4,096 bytes.
    pub(crate) fn say_in_fragments(&mut self, opcode: u8, payload: &[u8]) {
        let mut pieces = payload.chunks(4_096).peekable();
        let mut opcode = opcode;
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { 0x80 } else { 0 };
            self.stream.write_all(&frame(last | opcode, piece)).unwrap();
            opcode = 0;
        }
    }

    /// Says hello, and hears it.
    pub(crate) fn hello(&mut self, name: &str, channels: &[&str], is_ephemeral: bool) {
        let mut hello =
            serde_json::json!({"instance_name": name, "role": "client", "version": "1"});
        if !channels.is_empty() {
            hello["subscribe"] = channels.into();
        }
        if is_ephemeral {
            hello["ephemeral"] = true.into();
        }
        self.say(1, hello.to_string().as_bytes());
        let answer = r#"{"instance_name":"localhost","role":"hub","version":"1"}"#;
        assert_eq!(self.text(), answer);
    }

    /// Publishes records, and returns the id that they are acknowledged by.
    pub(crate) fn publish(&mut self, records: &[Vec<u8>]) -> String {
        self.say(2, &batch(records));
        let ack: serde_json::Value = serde_json::from_str(&self.text()).unwrap();
        ack["last_id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn acknowledge(&mut self, last_id: &str) {
        self.say(1, format!("{{\"last_id\":\"{last_id}\"}}").as_bytes());
    }

    /// The next frame; none at the end of the connection.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 2];
        if self.stream.read_exact(&mut head).is_err() {
            return None;
        }
        assert_eq!(head[0] & 0x80, 0x80, "the relay sends whole messages");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length).unwrap();
                usize::try_from(u64::from_be_bytes(length)).unwrap()
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        Some((head[0] & 0x0f, payload))
    }

    /// The next message, which is text.
    pub(crate) fn text(&mut self) -> String {
        let (opcode, text) = self.read().expect("a message comes");
        assert_eq!(opcode, 1, "{text:?}");
        String::from_utf8(text).unwrap()
    }

    /// The records of the next message.
    pub(crate) fn records(&mut self) -> Vec<Vec<u8>> {
        let (opcode, message) = self.read().expect("a message comes");
        assert_eq!(opcode, 2, "{}", String::from_utf8_lossy(&message));
        let mut rest = &message[..];
        let mut records = Vec::new();
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let (record, more) = more.split_at(u32::from_be_bytes(*length) as usize);
            records.push(record.to_vec());
            rest = more;
        }
        records
    }

    /// Receives so many records, and acknowledges each batch.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let records = self.records();
            self.acknowledge(&super::ids(&records).pop().unwrap());
            taken.extend(records);
        }
        assert_eq!(taken.len(), count);
        taken
    }

    /// The code and the reason of the close frame that comes.
    pub(crate) fn close(&mut self) -> (u16, String) {
        let (opcode, payload) = self.read().expect("a close frame comes");
        assert_eq!(opcode, 8, "{}", String::from_utf8_lossy(&payload));
        let code = u16::from_be_bytes([payload[0], payload[1]]);
        (code, String::from_utf8(payload[2..].to_vec()).unwrap())
    }

    /// Whether nothing comes for a while.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream.sock.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut byte = [0];
        let read = self.stream.read(&mut byte);
        self.stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        read.is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        })
    }
}

/// The message that has these records.
pub(crate) fn batch(records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = Vec::new();
    for record in records {
        message.extend_from_slice(&u32::try_from(record.len()).unwrap().to_be_bytes());
        message.extend_from_slice(record);
    }
    message
}

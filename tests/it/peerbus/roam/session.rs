//! A session of the door, from its specification, that does not occupy a thread.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{UPGRADE, register};
use crate::harness::PATIENCE;
use crate::peer::{Frame, frame};

/// An open session of a name, which gets receipts.
pub(super) struct Session {
    stream: TcpStream,
    /// What came and was not read.
    buffer: Vec<u8>,
}

impl Session {
    pub(super) async fn open(address: SocketAddr, name: &str) -> Self {
        let stream = soon(TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut session = Self { stream, buffer: Vec::new() };
        session.stream.write_all(UPGRADE.as_bytes()).await.unwrap();
        let end = loop {
            let end = session.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            assert!(session.fill().await, "{name}: {:?}", String::from_utf8_lossy(&session.buffer));
        };
        session.buffer.drain(..end);
        let mut first = register("tok", name);
        first["receipts"] = true.into();
        session.say(&first).await;
        let names = session.hear().await.expect("a registration is answered");
        assert_eq!(names["type"], "peers", "{names}");
        session
    }

    pub(super) async fn say(&mut self, message: &Value) {
        let frame = frame(0x81, message.to_string().as_bytes());
        soon(self.stream.write_all(&frame)).await.unwrap();
    }

    /// The next message; none at the end of the session.
    pub(super) async fn hear(&mut self) -> Option<Value> {
        loop {
            if let Some(came) = take_frame(&mut self.buffer) {
                match came {
                    (1, text) => return Some(serde_json::from_slice(&text).unwrap()),
                    // A sign of life.
                    (9, payload) => {
                        let pong = frame(0x8a, &payload);
                        soon(self.stream.write_all(&pong)).await.unwrap();
                    }
                    _ => return None,
                }
            } else if !self.fill().await {
                return None;
            }
        }
    }

    /// Leaves in order: all that was said before is taken.
    pub(super) async fn leave(mut self) {
        let close = frame(0x88, &1000_u16.to_be_bytes());
        soon(self.stream.write_all(&close)).await.unwrap();
        while self.hear().await.is_some() {}
    }

    /// Reads more; false at the end of the connection.
    async fn fill(&mut self) -> bool {
        let read = soon(self.stream.read_buf(&mut self.buffer)).await;
        read.is_ok_and(|length| length > 0)
    }
}

async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    timeout(PATIENCE, awaited).await.expect("it comes")
}

/// The first frame of what came, once it is whole.
fn take_frame(buffer: &mut Vec<u8>) -> Option<Frame> {
    let (head, length) = match *buffer.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().unwrap()))),
        127 => panic!("a message of more than 64 KiB"),
        short => (2, usize::from(short)),
    };
    let payload = buffer.get(head..head + length)?.to_vec();
    let opcode = buffer[0] & 0x0f;
    buffer.drain(..head + length);
    Some((opcode, payload))
}

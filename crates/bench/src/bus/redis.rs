//! Pairs over a stream of Redis, in its protocol (RESP): XADD, XREADGROUP, XACK.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, bail};

use super::{Lines, Pair, line};

/// A pair with a stream of its own.
pub(crate) struct RedisPair {
    sender: Lines,
    receiver: Lines,
    add: Vec<u8>,
    stream: String,
}

impl RedisPair {
    pub(crate) fn open(server: SocketAddr, number: u32, size: usize) -> anyhow::Result<Self> {
        let stream = format!("stream-{number}");
        let payload = "x".repeat(size);
        let mut pair = Self {
            sender: Lines::connect(server)?,
            receiver: Lines::connect(server)?,
            add: command(&["XADD", &stream, "*", "body", &payload]),
            stream,
        };
        let group = command(&["XGROUP", "CREATE", &pair.stream, "group", "$", "MKSTREAM"]);
        pair.receiver.stream.write_all(&group)?;
        let mut answer = None;
        while answer.is_none() {
            pair.receiver.read(|bytes| {
                let Some((text, taken)) = line(bytes) else { return Ok(0) };
                answer = Some(text.to_owned());
                Ok(taken)
            })?;
        }
        anyhow::ensure!(answer.as_deref() == Some("+OK"), "Redis makes no group: {answer:?}");
        let read = pair.next();
        pair.receiver.stream.write_all(&read)?;
        Ok(pair)
    }

    /// Asks for the next message, and waits for it.
    fn next(&self) -> Vec<u8> {
        let words = ["XREADGROUP", "GROUP", "group", "receiver", "COUNT", "1", "BLOCK", "0"];
        command(&[&words[..], &["STREAMS", &self.stream, ">"]].concat())
    }
}

impl Pair for RedisPair {
    fn sockets(&self) -> [&TcpStream; 2] {
        [&self.sender.stream, &self.receiver.stream]
    }

    fn send(&mut self) -> anyhow::Result<()> {
        Ok(self.sender.stream.write_all(&self.add)?)
    }

    fn read_receipts(&mut self) -> anyhow::Result<u32> {
        let mut receipts = 0;
        self.sender.read(|bytes| {
            let taken = reply(bytes)?;
            if taken > 0 {
                anyhow::ensure!(bytes.starts_with(b"$"), "Redis refuses a message");
                receipts += 1;
            }
            Ok(taken)
        })?;
        Ok(receipts)
    }

    fn read_deliveries(&mut self) -> anyhow::Result<u32> {
        let mut ids = Vec::new();
        self.receiver.read(|bytes| {
            let taken = reply(bytes)?;
            // What else comes is the answer to an acknowledgement.
            if taken > 0 && bytes.starts_with(b"*") {
                ids.push(id(bytes).context("a message has an id")?);
            }
            Ok(taken)
        })?;
        let mut count = 0;
        for id in ids {
            let mut answer = command(&["XACK", &self.stream, "group", &id]);
            answer.extend_from_slice(&self.next());
            self.receiver.stream.write_all(&answer)?;
            count += 1;
        }
        Ok(count)
    }
}

/// A command as an array of bulk strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    text.into_bytes()
}

/// The length of the reply that begins here; 0 if it is not whole.
fn reply(bytes: &[u8]) -> anyhow::Result<usize> {
    let Some((head, mut at)) = line(bytes) else { return Ok(0) };
    let (kind, rest) = head.split_at_checked(1).context("a reply has a kind")?;
    match kind {
        "+" | ":" => Ok(at),
        "$" => match rest.parse::<usize>() {
            Ok(length) if bytes.len() >= at + length + 2 => Ok(at + length + 2),
            Ok(_) => Ok(0),
            // No string.
            Err(_) => Ok(at),
        },
        "*" => {
            for _ in 0..rest.parse::<u32>().unwrap_or_default() {
                let taken = reply(bytes.get(at..).unwrap_or_default())?;
                if taken == 0 {
                    return Ok(0);
                }
                at += taken;
            }
            Ok(at)
        }
        _ => bail!("Redis says {head}"),
    }
}

/// The id of the one message that XREADGROUP answers: the second string, behind that of the stream.
fn id(bytes: &[u8]) -> Option<String> {
    let mut lines = str::from_utf8(bytes).ok()?.split("\r\n");
    let strings = lines.by_ref().filter(|line| line.starts_with('$'));
    strings.take(2).for_each(drop);
    lines.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str =
        "*1\r\n*2\r\n$8\r\nstream-1\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$4\r\nbody\r\n$1\r\nx\r\n";

    #[test]
    fn reply_is_taken_when_it_is_whole() {
        for length in 0..MESSAGE.len() {
            assert_eq!(reply(&MESSAGE.as_bytes()[..length]).ok(), Some(0), "{length}");
        }
        assert_eq!(reply(MESSAGE.as_bytes()).ok(), Some(MESSAGE.len()));
        assert!(reply(b"-ERR no\r\n").is_err());
    }

    #[test]
    fn message_is_acknowledged_by_its_id() {
        assert_eq!(id(MESSAGE.as_bytes()).as_deref(), Some("1-0"));
    }
}

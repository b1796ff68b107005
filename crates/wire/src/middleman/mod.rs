//! The text protocol of middleman: publications, requests and answers between services and
//! clients.
//!
//! A message is one WebSocket text frame: a line of command and target, header lines, an empty
//! line, and a body up to a line that is a dot. The grammar is that of Go's `net/textproto`, with
//! three differences: a header line does not continue on the next, a body line that begins with a
//! single dot keeps it, and the end of a body's last line is not part of the body. So a message
//! that was parsed and encoded parses to the same.
//!
//! What commands mean, and who may send them, is decided elsewhere.

mod body;
mod encode;
mod guid;
mod headers;
mod relay;
#[cfg(test)]
mod tests;

pub use body::Body;
pub use encode::Encoder;
pub use guid::{Guid, InvalidGuid};
pub use headers::{Header, Headers};
pub use relay::{Failure, InvalidRelayMessage, RelayMessage, TopicShare};

/// The first answer to a key that is accepted.
pub const WELCOME: &str = "MM OK";

/// What the target of a connection's own channel begins with, before its [`Guid`].
pub const PRIVATE: &str = "MSG:";

/// The target of messages that tell of errors.
pub const ERROR: &str = "ERROR";

/// What a message is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Command<'a> {
    /// Subscribe to a topic.
    Sub,
    /// Publish to a topic.
    Pub,
    /// Ask one responder of a topic.
    Req,
    /// Answer a request.
    Res,
    /// Let clients publish to a topic.
    Epub,
    /// Let clients subscribe to a topic.
    Esub,
    /// Become a responder of a topic, and let clients ask.
    Ereq,
    /// Set something of the broker itself; the target says what.
    Int,
    /// Another text, which no broker acts on. Commands are in upper case.
    Other(&'a str),
}

impl<'a> Command<'a> {
    /// The command that this text stands for.
    #[must_use]
    pub const fn of(text: &'a str) -> Self {
        match text.as_bytes() {
            b"SUB" => Self::Sub,
            b"PUB" => Self::Pub,
            b"REQ" => Self::Req,
            b"RES" => Self::Res,
            b"EPUB" => Self::Epub,
            b"ESUB" => Self::Esub,
            b"EREQ" => Self::Ereq,
            b"INT" => Self::Int,
            _ => Self::Other(text),
        }
    }

    /// The text that stands for it.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        match self {
            Self::Sub => "SUB",
            Self::Pub => "PUB",
            Self::Req => "REQ",
            Self::Res => "RES",
            Self::Epub => "EPUB",
            Self::Esub => "ESUB",
            Self::Ereq => "EREQ",
            Self::Int => "INT",
            Self::Other(text) => text,
        }
    }
}

/// A message, borrowed from its frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    /// What the message is for.
    pub command: Command<'a>,
    /// What follows the first space of the first line: mostly a topic. It may be empty.
    pub target: &'a str,
    /// The headers, in order.
    pub headers: Headers<'a>,
    /// The body.
    pub body: Body<'a>,
}

/// Why a frame is no message. The original closes the connection of its sender.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It is not UTF-8.
    #[error("a message that is not UTF-8")]
    NotText,
    /// It is empty, or ends in its first line.
    #[error("a message without a whole first line")]
    NoTopLine,
    /// The first line has no space.
    #[error("a first line without a target")]
    NoTarget,
    /// It ends in its headers.
    #[error("headers without an empty line at the end")]
    NoBlankLine,
    /// A header line has no colon.
    #[error("a header without a colon")]
    NoColon,
    /// A header line begins with a space or a tab.
    #[error("a header line that begins with a space")]
    LeadingSpace,
    /// The name of a header is empty, or has a character that names do not have.
    #[error("a header whose name is none")]
    HeaderName,
    /// The value of a header has a control character other than a tab.
    #[error("a control character in the value of a header")]
    HeaderValue,
    /// There are more than [`Headers::MOST`] headers.
    #[error("more than {} headers", Headers::MOST)]
    TooManyHeaders,
    /// The headers take more than [`Headers::MOST_BYTES`].
    #[error("headers of more than {} bytes", Headers::MOST_BYTES)]
    HeadersTooLong,
    /// No line that is a dot ends the body.
    #[error("a body without a dot at the end")]
    NoDot,
}

impl<'a> Message<'a> {
    /// Reads a message. What follows the line that is a dot is ignored.
    ///
    /// # Errors
    /// Why the frame is no message.
    pub fn parse(frame: &'a [u8]) -> Result<Self, Malformed> {
        let text = str::from_utf8(frame).map_err(|_| Malformed::NotText)?;
        let (top, rest) = split_line(text).ok_or(Malformed::NoTopLine)?;
        let (command, target) = top.split_once(' ').ok_or(Malformed::NoTarget)?;
        let (headers, rest) = Headers::parse(rest)?;
        let body = Body::parse(rest).ok_or(Malformed::NoDot)?;
        Ok(Self { command: Command::of(command), target, headers, body })
    }

    /// Appends the message as brokers write it, with the names of headers in canonical case.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut encoder = Encoder::begin(out, self.command, self.target);
        self.headers.iter().for_each(|header| encoder.forward(header));
        encoder.finish(self.body);
    }
}

/// The first line without its end, which is LF or CRLF, and what follows it.
fn split_line(text: &str) -> Option<(&str, &str)> {
    let (line, rest) = text.split_once('\n')?;
    Some((line.strip_suffix('\r').unwrap_or(line), rest))
}

//! What messages hold, and how they are written.

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::MAX_MESSAGE;
use super::error::SendError;
use crate::wire::middleman::{Body, Command, Encoder, Message};

/// A header with the id of a request.
pub(super) const RID: &str = "rid";

/// The header of an answer that tells that there is none.
pub(super) const ERROR: &str = "Error";

/// What a message holds besides its topic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Content {
    /// Names and values, in order. Names that differ in case alone are one name.
    pub headers: Vec<(String, String)>,
    /// The body: lines, the last without its end.
    pub body: String,
}

impl Content {
    /// A body without headers.
    #[must_use]
    pub fn text(body: impl Into<String>) -> Self {
        Self { headers: Vec::new(), body: body.into() }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn of(message: &Message<'_>) -> Self {
        let headers = message.headers.iter();
        let headers =
            headers.map(|header| (header.name.to_owned(), header.value.to_owned())).collect();
        Self { headers, body: message.body.text().into_owned() }
    }
}

impl<T: Into<String>> From<T> for Content {
    fn from(body: T) -> Self {
        Self::text(body)
    }
}

/// A message as it is sent, with the id of a request.
pub(super) fn write(
    command: Command<'_>,
    topic: &str,
    rid: Option<&str>,
    content: &Content,
) -> Result<Utf8Bytes, SendError> {
    let is_line = |text: &str| !text.contains(['\r', '\n']);
    let is_name = |name: &str| {
        let is_of_names = |c: char| c.is_ascii_graphic() && c != ':';
        !name.is_empty() && name.chars().all(is_of_names)
    };
    if topic.is_empty() || !is_line(topic) {
        return Err(SendError::Form(topic.to_owned()));
    }
    let mut out = Vec::new();
    let mut encoder = Encoder::begin(&mut out, command, topic);
    for (name, value) in &content.headers {
        if !is_name(name) || !is_line(value) {
            return Err(SendError::Form(name.clone()));
        }
        // The broker gives these to the sender itself.
        if rid.is_none() || !name.eq_ignore_ascii_case(RID) {
            encoder.header(name, value);
        }
    }
    if let Some(rid) = rid {
        encoder.header(RID, rid);
    }
    encoder.finish(Body::of(&content.body));
    if out.len() > MAX_MESSAGE {
        return Err(SendError::TooLarge { bytes: out.len(), most: MAX_MESSAGE });
    }
    Ok(String::from_utf8(out).expect("made of strings").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_has_its_headers_its_id_and_its_body() {
        let content = Content::text("one\n.\n..two").with("Cmd", "Do").with("RID", "mine");
        let text = write(Command::Req, "Svc", Some("7"), &content).unwrap();
        assert_eq!(&*text, "REQ Svc\r\nCmd: Do\r\nrid: 7\r\n\r\none\n..\n...two\r\n.\r\n");
        let message = Message::parse(text.as_bytes()).unwrap();
        let read = Content::of(&message);
        assert_eq!((read.body.as_str(), read.header("cmd")), ("one\n.\n..two", Some("Do")));
        assert_eq!(read.header("rid"), Some("7"));
    }

    #[test]
    fn what_no_message_can_have_is_refused() {
        let plain = Content::text("x");
        for topic in ["", "a\nb"] {
            assert!(matches!(write(Command::Pub, topic, None, &plain), Err(SendError::Form(_))));
        }
        for (name, value) in [("", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\ny")] {
            let content = plain.clone().with(name, value);
            assert!(matches!(write(Command::Pub, "t", None, &content), Err(SendError::Form(_))));
        }
        let long = Content::text("x".repeat(MAX_MESSAGE));
        assert!(matches!(write(Command::Pub, "t", None, &long), Err(SendError::TooLarge { .. })));
    }
}

//! Messages as they are written and signed, and how their senders hear of them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Sent;
use super::error::SendError;
use super::options::Options;
use crate::wire::peerbus::{
    BROADCAST, Body, DIRECT, EVERYBODY, Envelope, MAX_MESSAGE, VERSION, deliver_length,
};

/// A message that was checked and signed.
#[derive(Clone, Debug)]
pub struct Draft {
    id: String,
    /// The envelope as it is sent, each time the same.
    text: Utf8Bytes,
}

impl Draft {
    /// What the bus will know it by.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Length of what is sent, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.as_str().len()
    }

    pub(super) fn text(&self) -> Utf8Bytes {
        self.text.clone()
    }
}

/// A message on its way to the broker.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) draft: Draft,
    pub(super) answer: oneshot::Sender<Result<Sent, SendError>>,
    /// Its part of what may wait.
    pub(super) _room: OwnedSemaphorePermit,
}

impl Letter {
    /// Tells the sender, who may have given up.
    pub(super) fn answer(self, outcome: Result<Sent, SendError>) {
        let _ = self.answer.send(outcome);
    }
}

/// A message that is queued, and will be sent whether anybody waits for it or not.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Sent, SendError>>);

impl Pending {
    pub(super) const fn new(answer: oneshot::Receiver<Result<Sent, SendError>>) -> Self {
        Self(answer)
    }

    /// Waits until the broker has the message.
    ///
    /// # Errors
    /// The broker refuses it; the client ends before.
    pub async fn sent(self) -> Result<Sent, SendError> {
        self.0.await.unwrap_or(Err(SendError::Ended))
    }
}

/// Writes and signs messages, and checks the signatures of others.
pub(super) struct Pen {
    name: String,
    source: String,
    key: Option<hmac::Key>,
}

impl std::fmt::Debug for Pen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, source, key: _ } = self;
        f.debug_struct("Pen").field("name", name).field("source", source).finish_non_exhaustive()
    }
}

impl Pen {
    pub(super) fn of(options: &Options) -> Self {
        let secret = options.secret.as_ref();
        let key = secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        Self { name: options.name.clone(), source: options.source.clone(), key }
    }

    /// A new message, with an id of its own.
    pub(super) fn write(&self, to: &str, body: &[u8]) -> Result<Draft, SendError> {
        if to.is_empty() {
            return Err(SendError::NoRecipient);
        }
        let not_json = |error: &dyn std::fmt::Display| SendError::Body(error.to_string());
        let body = Body::parse(body).map_err(|error| not_json(&error))?;
        let id = hex(&random().ok_or(SendError::NoRandomness)?);
        let mut envelope = Envelope {
            protocol_version: VERSION.into(),
            id: id.as_str().into(),
            from: self.name.as_str().into(),
            to: to.into(),
            ts: rfc3339(SystemTime::now()).into(),
            source: self.source.as_str().into(),
            kind: if to == EVERYBODY { BROADCAST } else { DIRECT }.into(),
            body,
            hmac: "".into(),
        };
        if let Some(key) = &self.key {
            envelope.hmac = hex(hmac::sign(key, &envelope.canonical()).as_ref()).into();
        }
        let json = envelope.encode();
        let bytes = deliver_length(&id, json.len());
        if bytes > MAX_MESSAGE {
            let most = MAX_MESSAGE - (bytes - json.len());
            return Err(SendError::TooLarge { bytes: json.len(), most });
        }
        let text = String::from_utf8(json).map_err(|error| not_json(&error))?;
        Ok(Draft { id, text: text.into() })
    }

    /// Whether a message is signed by a peer of this bus; without a secret, all pass.
    pub(super) fn is_genuine(&self, envelope: &Envelope<'_>) -> bool {
        let Some(key) = &self.key else { return true };
        let Some(code) = bytes(&envelope.hmac) else { return false };
        hmac::verify(key, &envelope.canonical(), &code).is_ok()
    }
}

fn random() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// The bytes of a code in lower-case hexadecimal, as peers of the original want it.
fn bytes(code: &str) -> Option<Vec<u8>> {
    let is_lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let (pairs, []) = code.as_bytes().as_chunks::<2>() else { return None };
    pairs
        .iter()
        .map(|pair| {
            let digits = str::from_utf8(pair).ok().filter(|_| pair.iter().all(is_lower_hex))?;
            u8::from_str_radix(digits, 16).ok()
        })
        .collect()
}

/// A time as RFC 3339 has it, in UTC, to the nanosecond.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs();
    let (days, second) = (second / 86_400, second % 86_400);
    // Of a calendar whose years begin in March, and its cycles of 400 years with year 0.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * era + year + next_year;
    let [hour, minute, second] = [second / 3_600, second / 60 % 60, second % 60];
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Secret;
    use super::*;

    fn pen() -> Pen {
        let mut options = Options::new("ws://bus.test", "bob", "tok");
        options.secret = Some(Secret::new("peerbus-test-peerbus-test-peerbu").unwrap());
        Pen::of(&options)
    }

    #[test]
    fn signature_of_the_original_is_good_and_another_is_not() {
        let json = br#"{"protocol_version":"v1","id":"m1","from":"bob","to":"alice","ts":"t","source":"peer-bus","kind":"msg","body":{"hi":1},"hmac":"a0625dd3949ec949ab29f1e7a771308b7c8ed0d60c1e01f08af287e0323a8e32"}"#;
        let good = Envelope::parse(json).unwrap();
        assert!(pen().is_genuine(&good));
        let forged = Envelope { from: "mallory".into(), ..good.clone() };
        assert!(!pen().is_genuine(&forged));
        for hmac in ["", "a0", "A0625DD3", "zz", "a"] {
            assert!(!pen().is_genuine(&Envelope { hmac: hmac.into(), ..good.clone() }), "{hmac}");
        }
    }

    #[test]
    fn message_is_signed_and_short_enough_for_its_recipient() {
        let Draft { id, text } = pen().write("alice", b"{ \"a\" : \"<\" }").unwrap();
        let envelope = Envelope::parse(text.as_bytes()).unwrap();
        assert!(pen().is_genuine(&envelope));
        assert_eq!((&*envelope.id, &*envelope.from, &*envelope.kind), (&*id, "bob", "msg"));
        assert_eq!(envelope.body.as_bytes(), br#"{"a":"\u003c"}"#);
        assert_eq!(id.len(), 32);

        let largest =
            |body: usize| pen().write("alice", format!("\"{}\"", "x".repeat(body)).as_bytes());
        let empty = largest(0).unwrap().bytes();
        let most = MAX_MESSAGE - 72 - 32;
        assert_eq!(largest(most - empty).unwrap().bytes(), most);
        let error = largest(most - empty + 1).unwrap_err();
        assert_eq!(error, SendError::TooLarge { bytes: most + 1, most });
    }

    #[test]
    fn message_without_a_recipient_or_a_body_is_refused() {
        assert_eq!(pen().write("", b"1").unwrap_err(), SendError::NoRecipient);
        for body in [&b""[..], b"{", b"1 2", b"\"\xff\""] {
            assert!(matches!(pen().write("a", body), Err(SendError::Body(_))), "{body:?}");
        }
    }

    #[test]
    fn time_is_that_of_the_calendar() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_827_696, "2000-02-29T12:34:56.000000000Z"),
            (1_796_083_200, "2026-12-01T00:00:00.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(second)), text);
        }
    }
}

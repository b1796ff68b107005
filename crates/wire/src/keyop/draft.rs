//! Records as their publisher writes them.

use crate::json::{Body, push_text};

/// A record that is not written yet.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// What names the record: [`id_at`].
    pub id: &'a str,
    /// When it was made: [`timestamp`](super::timestamp).
    pub ts: &'a str,
    /// The channel.
    pub channel: &'a str,
    /// Who publishes it.
    pub origin: &'a str,
    /// What reads the payload.
    pub payload_type: &'a str,
    /// What it belongs to; left out where empty.
    pub correlation_id: &'a str,
    /// The service that publishes it; left out where empty.
    pub service_name: &'a str,
    /// The hubs that it passed; left out where empty.
    pub route: &'a [&'a str],
    /// What it carries.
    pub payload: Body<'a>,
}

/// What a record takes beyond its values, in bytes, where none needs an escape.
const FRAME: usize = br#"{"v":1,"id":"","ts":"","channel":"","origin":"","payload_type":"","correlation_id":"","service_name":"","route":[],"payload":}"#
    .len();

impl Draft<'_> {
    /// The record as the original writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let texts = [
            (&b"{\"v\":1,\"id\":"[..], self.id),
            (b",\"ts\":", self.ts),
            (b",\"channel\":", self.channel),
            (b",\"origin\":", self.origin),
            (b",\"payload_type\":", self.payload_type),
            (b",\"correlation_id\":", self.correlation_id),
            (b",\"service_name\":", self.service_name),
        ];
        let [needed @ .., _, _] = &texts;
        let values: usize = texts.iter().map(|(_, text)| text.len()).sum();
        let route: usize = self.route.iter().map(|name| name.len() + 3).sum();
        let payload = self.payload.as_bytes();
        let mut record = Vec::with_capacity(FRAME + values + route + payload.len());
        for (number, (name, text)) in texts.iter().enumerate() {
            if number < needed.len() || !text.is_empty() {
                record.extend_from_slice(name);
                push_text(&mut record, text);
            }
        }
        if let Some((first, rest)) = self.route.split_first() {
            record.extend_from_slice(b",\"route\":[");
            push_text(&mut record, first);
            for name in rest {
                record.push(b',');
                push_text(&mut record, name);
            }
            record.push(b']');
        }
        record.extend_from_slice(b",\"payload\":");
        record.extend_from_slice(payload);
        record.push(b'}');
        record
    }
}

/// A name for a record that is made so many milliseconds after 1970: a UUID of version 7 (RFC 9562
/// §5.7).
#[must_use]
pub fn id_at(unix_ms: u64, random: [u8; 10]) -> String {
    let [_, _, t0, t1, t2, t3, t4, t5] = unix_ms.to_be_bytes();
    let [r0, r1, r2, rest @ ..] = random;
    let version = 0x70 | r0 & 0x0f;
    let variant = 0x80 | r2 & 0x3f;
    let [s0, s1, s2, s3, s4, s5, s6] = rest;
    let bytes = [t0, t1, t2, t3, t4, t5, version, r1, variant, s0, s1, s2, s3, s4, s5, s6];
    let mut text = String::with_capacity(36);
    for (number, byte) in bytes.into_iter().enumerate() {
        if matches!(number, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0x0f] {
            text.push(char::from_digit(digit.into(), 16).expect("half a byte"));
        }
    }
    text
}

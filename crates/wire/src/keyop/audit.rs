//! Lines of the audit file, as the original writes them.

use crate::json::push_text;

/// What a line tells of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Event<'a> {
    /// When: [`timestamp`](super::timestamp).
    pub ts: &'a str,
    /// What happened: `forward`, `client_connected`, `policy_violation` and others.
    pub event: &'a str,
    /// The id of the record; like all that follow, left out where empty.
    pub message_id: &'a str,
    /// The channel.
    pub channel: &'a str,
    /// `inbound` or `outbound`.
    pub direction: &'a str,
    /// The name of the peer.
    pub peer: &'a str,
    /// Its address and port.
    pub peer_addr: &'a str,
    /// How long it took from the sending of a record to its acknowledgement, in microseconds; left
    /// out where 0.
    pub send_duration_us: u64,
    /// The rest, as text.
    pub detail: &'a str,
}

/// The line, with its end.
#[must_use]
pub fn audit_line(event: &Event<'_>) -> Vec<u8> {
    let mut line = b"{\"ts\":".to_vec();
    push_text(&mut line, event.ts);
    line.extend_from_slice(b",\"event\":");
    push_text(&mut line, event.event);
    let mut member = |name: &str, text: &str| {
        if !text.is_empty() {
            line.extend_from_slice(name.as_bytes());
            push_text(&mut line, text);
        }
    };
    member(",\"message_id\":", event.message_id);
    member(",\"channel\":", event.channel);
    member(",\"direction\":", event.direction);
    member(",\"peer\":", event.peer);
    member(",\"peer_addr\":", event.peer_addr);
    if event.send_duration_us > 0 {
        let (ms, us) = (event.send_duration_us / 1_000, event.send_duration_us % 1_000);
        let number = format!(",\"send_duration_ms\":{ms}.{us:03}");
        // As Go writes a fraction: without zeros at its end.
        let number = number.trim_end_matches('0').trim_end_matches('.');
        line.extend_from_slice(number.as_bytes());
    }
    if !event.detail.is_empty() {
        line.extend_from_slice(b",\"detail\":");
        push_text(&mut line, event.detail);
    }
    line.extend_from_slice(b"}\n");
    line
}

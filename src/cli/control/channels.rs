//! Answers about channels of the message bus, as people read them.

use serde_json::Value;

use super::layout::{at, list, rest, table, time};
#[cfg(doc)]
use crate::control::Action;

/// The text of an answer to [`Action::RemoveChannel`].
pub(super) fn removed(name: &str, answer: &Value) -> String {
    format!("{name} removed, with {}\n", records(answer))
}

/// The text of an answer to [`Action::PurgeChannel`].
pub(super) fn purged(name: &str, answer: &Value) -> String {
    format!("{} of {name} removed\n", records(answer))
}

/// The text of an answer to [`Action::ForgetCursor`].
pub(super) fn forgotten(name: &str, peer: &str) -> String {
    format!("{peer} begins at the end of {name}, if it comes back\n")
}

fn records(answer: &Value) -> String {
    let purged = answer.get("purged").and_then(Value::as_u64).unwrap_or_default();
    format!("{purged} record{}", if purged == 1 { "" } else { "s" })
}

/// The text of an answer to [`Action::Channels`]: a row for each.
pub(super) fn channels(answer: &Value) -> String {
    let row = |channel: &Value| {
        let of = |key: &str| at(channel, &[key]);
        vec![
            of("name"),
            of("records"),
            of("bytes"),
            time(channel, &["oldest"]),
            of("cursors"),
            of("connected"),
            of("lag"),
            if of("lag") == "0" { String::new() } else { time(channel, &["behind"]) },
        ]
    };
    let rows: Vec<_> = list(answer, "channels").iter().map(row).collect();
    let head = ["CHANNEL", "RECORDS", "BYTES", "OLDEST", "CURSORS", "CONNECTED", "LAG", "BEHIND"];
    table(&head, &rows) + &rest(answer, rows.len())
}

/// The text of an answer to [`Action::Channel`]: a line of what it has, and a row for each of its
/// readers.
pub(super) fn channel(answer: &Value) -> String {
    let of = |key: &str| at(answer, &[key]);
    let oldest = match time(answer, &["oldest"]) {
        oldest if of("records") == "0" || oldest.is_empty() => String::new(),
        oldest => format!(", the oldest {oldest} ago"),
    };
    let head =
        format!("{}: {} records, {} bytes{oldest}\n", of("name"), of("records"), of("bytes"));
    let row = |reader: &Value| {
        let of = |key: &str| at(reader, &[key]);
        let is = |key: &str| reader.get(key).and_then(Value::as_bool) == Some(true);
        vec![
            of("peer"),
            if is("connected") { "now".to_owned() } else { time(reader, &["away"]) },
            of("records"),
            of("bytes"),
            if of("records") == "0" { String::new() } else { time(reader, &["behind"]) },
            of("attempts"),
            if is("ephemeral") { "ephemeral".to_owned() } else { String::new() },
        ]
    };
    let rows: Vec<_> = list(answer, "readers").iter().map(row).collect();
    let columns = ["PEER", "SEEN", "LAG", "BYTES", "BEHIND", "TRIED", ""];
    head + &table(&columns, &rows) + &rest(answer, rows.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn channel_is_shown_with_how_far_its_peers_have_come() {
        let answer = json!({ "name": "orders", "records": 7, "bytes": 700, "oldest": 90.0,
            "cursors": 2, "connected": 1, "lag": 7, "total": 3, "readers": [
                { "peer": "beta", "connected": false, "ephemeral": false, "away": 60.0,
                  "records": 7, "bytes": 700, "behind": 90.0, "attempts": 2 },
                { "peer": "alpha", "connected": true, "ephemeral": true, "records": 0, "bytes": 0,
                  "behind": 0.0, "attempts": 0 }] });
        let text = "orders: 7 records, 700 bytes, the oldest 90s ago\n\
                    PEER   SEEN  LAG  BYTES  BEHIND  TRIED\n\
                    beta   60s     7    700  90s         2\n\
                    alpha  now     0      0              0  ephemeral\n\
                    2 of 3; more with --limit\n";
        assert_eq!(channel(&answer), text);
    }

    #[test]
    fn channels_are_rows_and_changes_are_one_sentence() {
        let answer = json!({ "total": 1, "channels": [{ "name": "orders", "records": 7, "bytes": 700,
            "oldest": 90.0, "cursors": 2, "connected": 1, "lag": 7, "behind": 80.0 }] });
        let text = "CHANNEL  RECORDS  BYTES  OLDEST  CURSORS  CONNECTED  LAG  BEHIND\n\
                    orders         7    700     90s        2          1    7     80s\n";
        assert_eq!(channels(&answer), text);
        assert_eq!(purged("orders", &json!({ "purged": 1 })), "1 record of orders removed\n");
        let text = removed("orders", &json!({ "purged": 2 }));
        assert_eq!(text, "orders removed, with 2 records\n");
        let text = forgotten("orders", "beta");
        assert_eq!(text, "beta begins at the end of orders, if it comes back\n");
    }
}

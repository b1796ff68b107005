//! Answers as people read them: tables, and a few sentences.

use std::fmt::Write as _;

use serde_json::Value;

use super::layout::{at, fields, list, table, text, time};
use super::queues;
use crate::control::Action;

/// The text of an answer.
pub(super) fn show(action: &Action, answer: &Value) -> String {
    match action {
        Action::Status {} => status(answer),
        Action::Readiness {} => format!("{}\n", at(answer, &["line"])),
        // `enroll` asks for it, and shows it another way.
        Action::Enrolment { .. } => format!("{answer}\n"),
        Action::Reload { .. } => reload(answer),
        Action::Peers { .. } => peers(answer),
        Action::Peer { .. } => peer(answer),
        Action::Top { .. } => top(answer),
        Action::Kick { node, seconds: Some(0) } => format!("node {node} may come in again\n"),
        Action::Kick { node, seconds } => {
            let was = |key: &str, text: &'static str| {
                answer.get(key).and_then(Value::as_bool).unwrap_or_default().then_some(text)
            };
            let done =
                [was("session", "its session ends"), was("endpoint", "its endpoint is gone")];
            let kept_out =
                seconds.map(|seconds| format!("it is kept out for {}", duration(seconds)));
            let done: Vec<_> =
                done.into_iter().flatten().map(str::to_owned).chain(kept_out).collect();
            format!("kicked node {node}: {}\n", done.join(", "))
        }
        Action::Switch { switch, on: true } => format!("{switch} is on\n"),
        Action::Switch { switch, on: false } => {
            format!("{switch} is off until it is switched on, or the relay is restarted\n")
        }
        Action::Notify { node } => {
            let over = match at(answer, &["address"]) {
                address if address.is_empty() => "over its WebSocket session".to_owned(),
                address => format!("over UDP, at {address}"),
            };
            format!("notified node {node}: {over}\n")
        }
        Action::Drain {} => "the relay drains, and ends when its peers are gone\n".to_owned(),
        Action::LogLevel { filter } => format!("the relay logs {filter}\n"),
        Action::Explain { node } => format!("node {node}: {}", explanation(answer)),
        Action::Record { .. } => events(answer),
        Action::Topics { .. }
        | Action::Names { .. }
        | Action::ReleaseName { .. }
        | Action::BindName { .. }
        | Action::Queues { .. }
        | Action::Queue { .. }
        | Action::PeekQueue { .. }
        | Action::PurgeQueue { .. }
        | Action::DeadLetters { .. }
        | Action::RequeueDeadLetters { .. }
        | Action::Channels { .. }
        | Action::Channel { .. }
        | Action::PeekChannel { .. }
        | Action::PurgeChannel { .. }
        | Action::RemoveChannel { .. }
        | Action::ForgetCursor { .. } => queues::show(action, answer),
        // `audit` asks for it, and shows it another way.
        Action::AuditLog { .. } => format!("{answer}\n"),
    }
}

/// A number of seconds in the largest unit that it is a whole number of.
fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(length, _)| seconds.is_multiple_of(*length));
    unit.map_or_else(
        || format!("{seconds}s"),
        |(length, unit)| format!("{}{unit}", seconds / length),
    )
}

/// What only programs read, or what other lines say.
const NOT_A_FIELD: [&str; 13] = [
    "phase",
    "ready",
    "verdict",
    "reasons",
    "failed",
    "last_reload",
    "needs_restart",
    "metrics",
    "top_talkers",
    "slow_readers",
    "events",
    "topics",
    "expected_drops",
];

/// How the relay is and why, then the main numbers; the tables and all samples of the metrics are for programs.
fn status(answer: &Value) -> String {
    let verdict = match &*at(answer, &["phase"]) {
        "running" => match at(answer, &["verdict"]) {
            verdict if verdict == "degraded" => "ready, but degraded".to_owned(),
            verdict => verdict,
        },
        phase => format!("not ready: {phase}"),
    };
    let mut out = format!("relay    {verdict}\n");
    for reason in list(answer, "reasons") {
        let of = |key: &str| at(reason, &[key]);
        let _ = writeln!(out, "         {} {}: {}", of("part"), of("condition"), of("reason"));
        let _ = writeln!(out, "         -> {}", of("remedy"));
    }
    let reload = match at(answer, &["last_reload", "error"]) {
        error if error.is_empty() => "went well".to_owned(),
        error => format!("failed: {error}"),
    };
    let _ = writeln!(out, "reload   the last, at {}, {reload}", at(answer, &["last_reload", "at"]));
    let waiting: Vec<_> = list(answer, "needs_restart").iter().map(text).collect();
    if !waiting.is_empty() {
        let _ = writeln!(out, "restart  needed by {}", waiting.join(", "));
    }
    let mut numbers = answer.clone();
    if let Some(fields) = numbers.as_object_mut() {
        fields.retain(|key, _| !NOT_A_FIELD.contains(&key.as_str()));
    }
    format!("{out}\n{}", fields(&numbers))
}

/// What has changed, a line for each setting; then the numbers of the keys.
fn reload(answer: &Value) -> String {
    let mut out = String::new();
    for (key, about) in [("applied", ""), ("needs_restart", ", once the relay is started again")] {
        for change in list(answer, key) {
            let of = |key: &str| match at(change, &[key]) {
                value if value.is_empty() => "nothing".to_owned(),
                value => value,
            };
            let _ = writeln!(out, "{}: {} -> {}{about}", of("key"), of("old"), of("new"));
        }
    }
    let mut rest = answer.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.retain(|key, _| !["applied", "needs_restart"].contains(&key.as_str()));
    }
    out + &fields(&rest)
}

fn peers(answer: &Value) -> String {
    let rows: Vec<_> = list(answer, "peers")
        .iter()
        .map(|peer| {
            let over = at(peer, &["over"]);
            let way = if matches!(&*over, "wss" | "quic") { "session" } else { "endpoint" };
            vec![
                at(peer, &["node"]),
                over,
                at(peer, &[way, "address"]),
                time(peer, &[way, "age"]),
                at(peer, &["session", "waiting_bytes"]),
                time(peer, &["session", "waiting_age"]),
                time(peer, &["endpoint", "silence"]),
            ]
        })
        .collect();
    let heads = ["NODE", "OVER", "ADDRESS", "AGE", "WAITING", "FOR", "SILENT"];
    let mut out = table(&heads, &rows);
    let total = answer.get("total").and_then(Value::as_u64).unwrap_or_default();
    if total > rows.len() as u64 {
        let _ = writeln!(out, "{} of {total}; more with --limit", rows.len());
    }
    out
}

fn peer(answer: &Value) -> String {
    let mut out = String::new();
    if answer.get("session").is_some() {
        let _ = writeln!(
            out,
            "session    from {} for {}; {} packets wait, {} bytes, the oldest for {}",
            at(answer, &["session", "address"]),
            time(answer, &["session", "age"]),
            at(answer, &["session", "waiting"]),
            at(answer, &["session", "waiting_bytes"]),
            time(answer, &["session", "waiting_age"]),
        );
        if answer.pointer("/session/stuck").is_some() {
            let stuck = time(answer, &["session", "stuck"]);
            let _ = writeln!(out, "           takes nothing of what is written to it, for {stuck}");
        }
    }
    if answer.get("session_ended").is_some() {
        let ended = time(answer, &["session_ended"]);
        let _ = writeln!(out, "session    the last one ended {ended} ago");
    }
    if answer.get("endpoint").is_some() {
        let quiet = answer.pointer("/endpoint/is_quiet").and_then(Value::as_bool);
        let _ = writeln!(
            out,
            "endpoint   {} for {}, last heard of {} ago{}",
            at(answer, &["endpoint", "address"]),
            time(answer, &["endpoint", "age"]),
            time(answer, &["endpoint", "silence"]),
            if quiet == Some(true) { ": quiet" } else { "" },
        );
    }
    if answer.get("beacon").is_some() {
        let _ = writeln!(out, "beacon     {} serves it", at(answer, &["beacon"]));
    }
    if answer.get("takeovers").is_some() {
        out.push_str(&takeovers(answer));
    }
    if answer.get("kept_out").is_some() {
        let rest = time(answer, &["kept_out"]);
        let _ = writeln!(out, "kicked     it is kept out for {rest} more");
    }
    out
}

fn takeovers(answer: &Value) -> String {
    let is_contested = answer.pointer("/takeovers/is_contested").and_then(Value::as_bool);
    let mut out = format!(
        "takeovers  {} in 10 s{}; the next login waits for {}\n",
        at(answer, &["takeovers", "recent"]),
        if is_contested == Some(true) {
            ", again and again: two programs with one key?"
        } else {
            ""
        },
        time(answer, &["takeovers", "wait"]),
    );
    if answer.pointer("/takeovers/login_waits").is_some() {
        let waits = time(answer, &["takeovers", "login_waits"]);
        let _ = writeln!(out, "           a login has waited for {waits}");
    }
    out
}

fn top(answer: &Value) -> String {
    let side = |key: &str, head: &str| {
        let rows: Vec<_> = list(answer, key)
            .iter()
            .map(|rate| ["node", "packets", "bytes"].map(|field| at(rate, &[field])).to_vec())
            .collect();
        table(&[head, "PACKETS/S", "BYTES/S"], &rows)
    };
    format!("{}\n{}", side("senders", "SENDER"), side("receivers", "RECEIVER"))
}

fn explanation(answer: &Value) -> String {
    let mut out =
        format!("{}: {}\n\n{}", at(answer, &["place"]), at(answer, &["path"]), peer(answer));
    if answer.get("key").is_some() {
        let _ = writeln!(out, "directory  its key is {}", at(answer, &["key"]));
    }
    if let Some(cluster) = answer.get("cluster") {
        if cluster.get("elsewhere").is_some() {
            let of = |key: &str| at(cluster, &["elsewhere", key]);
            let known = cluster.pointer("/elsewhere/was_known").and_then(Value::as_bool);
            let _ = writeln!(
                out,
                "cluster    relay {} at {} has it, as {}, epoch {}; {}",
                of("relay"),
                of("address"),
                of("ownership"),
                of("epoch"),
                if known == Some(true) { "known here" } else { "asked for now" },
            );
        }
        if cluster.get("epoch_here").is_some() {
            let epoch = at(cluster, &["epoch_here"]);
            let _ = writeln!(out, "cluster    this relay has claimed it, epoch {epoch}");
        }
        if let Some(is_elsewhere) = cluster.get("watched_elsewhere").and_then(Value::as_bool) {
            let place = if is_elsewhere { "at another relay" } else { "at no other relay" };
            let _ = writeln!(out, "watched    peers here know that it is {place}");
        }
        let homes: Vec<_> = list(cluster, "homes").iter().map(text).collect();
        let _ = writeln!(out, "homes      {}", homes.join(" "));
    }
    let drops = list(answer, "drops");
    if drops.is_empty() {
        out.push_str("\nno packet from it or for it was dropped lately\n");
    } else {
        out.push_str("\nDropped lately, the latest first:\n");
    }
    for drop in drops {
        let node = |key| match at(drop, &[key]) {
            node if node.is_empty() => "-".to_owned(),
            node => node,
        };
        let about = if at(drop, &["is_estimate"]) == "true" { "about " } else { "" };
        let _ = writeln!(
            out,
            "  {} -> {}  {}  {about}{} packets, the last {} ago\n      {}",
            node("sender"),
            node("dest"),
            at(drop, &["reason"]),
            at(drop, &["packets"]),
            time(drop, &["last"]),
            at(drop, &["why"]),
        );
    }
    if !list(answer, "events").is_empty() {
        out.push_str("\nEvents, the latest first:\n");
        for event in list(answer, "events") {
            let of = |key: &str| at(event, &[key]);
            let line = [of("time"), of("what"), of("reason"), of("address")].join("  ");
            let _ = writeln!(out, "  {}", line.trim_end());
        }
    }
    out
}

fn events(answer: &Value) -> String {
    let rows: Vec<_> = answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|event| {
            let fields = ["time", "what", "node", "relay", "address", "reason"];
            let mut row = fields.map(|field| at(event, &[field])).to_vec();
            if let Some(relay) = row.get_mut(3) {
                relay.truncate(8);
            }
            row
        })
        .collect();
    table(&["TIME", "WHAT", "NODE", "RELAY", "ADDRESS", "REASON"], &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::PeerOrder;
    use crate::ids::NodeId;

    #[test]
    fn status_says_how_the_relay_is_and_why_before_the_numbers() {
        let answer = json!({
            "phase": "running", "ready": true, "verdict": "degraded", "failed": {}, "wss_peers": 7,
            "reasons": [{ "part": "keys", "condition": "degraded", "reason": "line 3", "remedy": "write it" }],
            "last_reload": { "at": "2026-11-20T12:00:00.000Z", "error": "keys.json: line 3" },
            "needs_restart": ["udp_bind", "stun_bind"],
        });
        let expected = "relay    ready, but degraded\n         keys degraded: line 3\n         -> write it\n\
                        reload   the last, at 2026-11-20T12:00:00.000Z, failed: keys.json: line 3\n\
                        restart  needed by udp_bind, stun_bind\n\nwss_peers  7\n";
        assert_eq!(show(&Action::Status {}, &answer), expected);
    }

    #[test]
    fn relay_that_drains_is_not_ready_for_who_asks() {
        let answer = json!({ "phase": "draining", "verdict": "not ready" });
        let text = show(&Action::Status {}, &answer);
        assert!(text.starts_with("relay    not ready: draining\n"), "{text}");
    }

    #[test]
    fn reload_tells_each_setting_in_a_line() {
        let change =
            |key: &str, old: &str, new: &str| json!({ "key": key, "old": old, "new": new });
        let answer = json!({
            "applied": [change("max_nodes", "1000", "1001"), change("admin_host", "", "relay.test")],
            "needs_restart": [change("threads", "1", "2")],
            "keys": { "added": 1, "removed": 0 },
        });
        let text = show(&Action::Reload { force: false }, &answer);
        let expected = "max_nodes: 1000 -> 1001\nadmin_host: nothing -> relay.test\n\
                        threads: 1 -> 2, once the relay is started again\n\
                        keys.added    1\nkeys.removed  0\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn explanation_tells_the_place_and_why_packets_were_dropped() {
        let answer = json!({
            "place": "nowhere", "path": "nobody has it", "key": "known", "node": 7,
            "drops": [{ "sender": 8, "dest": 7, "reason": "unknown_destination", "why": "not here",
                        "packets": 3, "is_estimate": false, "first": 2.0, "last": 1.25 }],
            "events": [{ "number": 1, "time": "T", "what": "ended", "reason": "idle" }],
        });
        let text = show(&Action::Explain { node: NodeId::new(7).unwrap().into() }, &answer);
        assert!(text.starts_with("node 7: nowhere: nobody has it\n"), "{text}");
        assert!(
            text.contains("8 -> 7  unknown_destination  3 packets, the last 1.2s ago"),
            "{text}"
        );
        assert!(text.ends_with("  T  ended  idle\n"), "{text}");
    }

    #[test]
    fn short_list_says_how_much_is_left_out() {
        let answer = json!({ "total": 5, "peers": [{ "node": 7, "over": "udp",
            "endpoint": { "address": "192.0.2.1:7", "age": 12.5, "silence": 0.25 } }] });
        let text = show(&Action::Peers { limit: 1, sort: PeerOrder::Node, after: None }, &answer);
        assert!(text.contains("udp   192.0.2.1:7  12s"), "{text}");
        assert!(text.ends_with("1 of 5; more with --limit\n"), "{text}");
    }
}

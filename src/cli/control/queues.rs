//! Answers about topics, and about names and mailboxes of the message bus, as people read them.

use std::fmt::Write as _;

use serde_json::Value;

use super::channels;
use super::layout::{at, fields, list, rest, table, time};
use crate::control::Action;

/// The text of an answer to one of these actions; that of another is a line for each field.
pub(super) fn show(action: &Action, answer: &Value) -> String {
    match action {
        Action::Topics { .. } => topics(answer),
        Action::Names { .. } => names(answer),
        Action::ReleaseName { name } => format!("{name} belongs to nobody\n"),
        Action::BindName { name, label } => format!("{name} belongs to {label}\n"),
        Action::Queues { .. } => queues(answer),
        Action::PurgeQueue { name } => {
            let purged = answer.get("purged").and_then(Value::as_u64).unwrap_or_default();
            let plural = if purged == 1 { "" } else { "s" };
            format!("{purged} message{plural} for {name} removed\n")
        }
        Action::RequeueDeadLetters { name } => requeued(name, answer),
        Action::PeekQueue { .. } | Action::DeadLetters { .. } | Action::PeekChannel { .. } => {
            messages(answer)
        }
        Action::Channels { .. } => channels::channels(answer),
        Action::Channel { .. } => channels::channel(answer),
        Action::PurgeChannel { name } => channels::purged(name, answer),
        Action::RemoveChannel { name } => channels::removed(name, answer),
        Action::ForgetCursor { name, peer } => channels::forgotten(name, peer),
        Action::Queue { .. }
        | Action::Status {}
        | Action::Readiness {}
        | Action::Enrolment { .. }
        | Action::Peers { .. }
        | Action::Peer { .. }
        | Action::Top { .. }
        | Action::Kick { .. }
        | Action::Notify { .. }
        | Action::Switch { .. }
        | Action::Drain {}
        | Action::Reload { .. }
        | Action::LogLevel { .. }
        | Action::Explain { .. }
        | Action::Record { .. }
        | Action::AuditLog { .. } => fields(answer),
    }
}

fn topics(answer: &Value) -> String {
    let rows: Vec<_> = list(answer, "topics")
        .iter()
        .map(|topic| {
            let may = |key: &str| topic.get(key).and_then(Value::as_bool) == Some(true);
            let clients = match (may("clients_publish"), may("clients_subscribe")) {
                (true, true) => "publish, subscribe",
                (true, false) => "publish",
                (false, true) => "subscribe",
                (false, false) => "",
            };
            vec![
                at(topic, &["name"]),
                at(topic, &["subscribers"]),
                at(topic, &["responders"]),
                at(topic, &["workers"]),
                at(topic, &["outstanding"]),
                clients.to_owned(),
            ]
        })
        .collect();
    let head = ["TOPIC", "SUBSCRIBERS", "RESPONDERS", "WORKERS", "UNANSWERED", "CLIENTS MAY"];
    table(&head, &rows) + &rest(answer, rows.len())
}

fn names(answer: &Value) -> String {
    let rows: Vec<_> = list(answer, "names")
        .iter()
        .map(|name| {
            let is_here = name.get("connected").and_then(Value::as_bool) == Some(true);
            vec![
                at(name, &["name"]),
                at(name, &["owner"]),
                if is_here { "now".to_owned() } else { time(name, &["seen"]) },
                at(name, &["messages"]),
            ]
        })
        .collect();
    let out = table(&["NAME", "OWNER", "SEEN", "WAITING"], &rows);
    out + &rest(answer, rows.len())
}

fn queues(answer: &Value) -> String {
    let rows: Vec<_> = list(answer, "queues")
        .iter()
        .map(|queue| {
            let is_here = queue.get("connected").and_then(Value::as_bool) == Some(true);
            vec![
                at(queue, &["name"]),
                at(queue, &["messages"]),
                at(queue, &["bytes"]),
                time(queue, &["oldest"]),
                at(queue, &["in_flight"]),
                if is_here { "now".to_owned() } else { time(queue, &["seen"]) },
            ]
        })
        .collect();
    let out = table(&["NAME", "WAITING", "BYTES", "OLDEST", "IN FLIGHT", "SEEN"], &rows);
    out + &rest(answer, rows.len())
}

/// What became of dead letters, and why some are left.
fn requeued(name: &str, answer: &Value) -> String {
    let count = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or_default();
    let letters = |count| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} dead letter{plural}")
    };
    let mut out = format!("{} of {name} put back\n", letters(count("requeued")));
    let waited = count("waited");
    if waited > 0 {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{} had been sent again already", letters(waited));
    }
    if let Some(refused) = answer.get("refused").and_then(Value::as_str) {
        let _ = writeln!(out, "the others stay: {refused}");
    }
    out
}

/// A line for each message, and what it holds on the next.
fn messages(answer: &Value) -> String {
    let mut out = String::new();
    for message in list(answer, "messages") {
        let of = |key: &str| at(message, &[key]);
        let cause = match of("cause") {
            cause if cause.is_empty() => cause,
            cause => format!("  dead: {cause}, {} ago", time(message, &["dead"])),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{}  from {}  {} ago  {} bytes  tried {} times{cause}\n    {}",
            of("key"),
            of("from"),
            time(message, &["age"]),
            of("bytes"),
            of("attempts"),
            of("body"),
        );
    }
    if out.is_empty() {
        out.push_str("no message\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mailboxes_are_rows_and_say_how_many_are_left_out() {
        let answer = json!({ "total": 2, "queues": [{ "name": "alice", "messages": 3, "bytes": 900,
            "oldest": 12.5, "in_flight": 0, "connected": false, "seen": 86_400.0 }] });
        let text = show(&Action::Queues { limit: 1 }, &answer);
        let expected = "NAME   WAITING  BYTES  OLDEST  IN FLIGHT  SEEN\n\
                        alice        3    900     12s          0   24h\n\
                        1 of 2; more with --limit\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn message_is_shown_with_what_it_holds() {
        let action = Action::DeadLetters { name: "alice".to_owned(), limit: 10 };
        let answer = json!({ "messages": [{ "key": "m1", "from": "bob", "age": 60.0, "bytes": 300,
            "attempts": 16, "body": "{}", "cause": "attempts", "dead": 5.0 }] });
        let text = show(&action, &answer);
        let expected =
            "m1  from bob  60s ago  300 bytes  tried 16 times  dead: attempts, 5.0s ago\n    {}\n";
        assert_eq!(text, expected);
        assert_eq!(show(&action, &json!({ "messages": [] })), "no message\n");
    }

    #[test]
    fn change_is_one_sentence() {
        let (name, label) = ("alice".to_owned(), "team".to_owned());
        let of = |action: &Action| show(action, &json!({ "purged": 1 }));
        let bind = Action::BindName { name: name.clone(), label };
        assert_eq!(of(&bind), "alice belongs to team\n");
        assert_eq!(of(&Action::ReleaseName { name: name.clone() }), "alice belongs to nobody\n");
        let purge = Action::PurgeQueue { name: name.clone() };
        assert_eq!(of(&purge), "1 message for alice removed\n");
        let requeue = Action::RequeueDeadLetters { name };
        let answer = json!({ "requeued": 2, "waited": 1, "refused": "quota" });
        let text = "2 dead letters of alice put back\n1 dead letter had been sent again already\n\
                    the others stay: quota\n";
        assert_eq!(show(&requeue, &answer), text);
    }
}

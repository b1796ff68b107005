//! `top --follow` and `record --follow`: asks again and again, until the reader or the relay is gone.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::layout::at;
use super::{ask_relay, tables};
use crate::cli::{Exit, output};
use crate::control::Action;

/// Time between two looks at who sends most, which is estimated over some seconds.
const TOP: Duration = Duration::from_secs(2);

/// Time between two looks at events.
const EVENTS: Duration = Duration::from_millis(500);

/// What a terminal is told before a table that takes the place of the one before.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is asked again and again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Followed {
    /// Who sends and receives most, so many of each.
    Top { count: usize },
    /// The events of connections.
    Events,
}

impl Followed {
    /// Shows it until nobody reads any more.
    pub(super) fn show(self, folder: &Path, as_json: bool) -> Result<(), Exit> {
        match self {
            Self::Top { count } => top(folder, count, as_json),
            Self::Events => record(folder, as_json),
        }
    }
}

/// Shows who sends and receives most, a table after the other; in a terminal, at one place.
fn top(folder: &Path, count: usize, as_json: bool) -> Result<(), Exit> {
    let is_terminal = io::stdout().is_terminal();
    let mut again = false;
    loop {
        let action = Action::Top { count, again };
        let answer = ask_relay(folder, &action)?;
        let text = if as_json {
            format!("{answer}\n")
        } else {
            let before = if is_terminal { CLEAR } else { "" };
            format!("{before}{}\n", tables::show(&action, &answer))
        };
        if !output::goes_on(&text)? {
            return Ok(());
        }
        again = true;
        thread::sleep(TOP);
    }
}

/// Prints the last events, and then each as it happens.
fn record(folder: &Path, as_json: bool) -> Result<(), Exit> {
    let mut after = None;
    loop {
        let answer = ask_relay(folder, &Action::Record { after })?;
        let events = answer.as_array().map_or(&[] as &[Value], Vec::as_slice);
        let lines =
            events.iter().map(|event| if as_json { format!("{event}\n") } else { line(event) });
        if !output::goes_on(&lines.collect::<String>())? {
            return Ok(());
        }
        let last = events.last().and_then(|event| event.get("number")).and_then(Value::as_u64);
        after = last.or(after).or(Some(0));
        thread::sleep(EVENTS);
    }
}

/// An event on a line, in columns that hold without knowing those to come.
fn line(event: &Value) -> String {
    let of = |key: &str| at(event, &[key]);
    let mut relay = of("relay");
    relay.truncate(8);
    let who = if relay.is_empty() { of("node") } else { relay };
    let line = format!(
        "{}  {:<12}  {:<14}  {:<22}  {}",
        of("time"),
        of("what"),
        who,
        of("address"),
        of("reason")
    );
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn event_is_a_line_of_columns() {
        let event = json!({ "number": 1, "time": "T", "what": "ended", "node": 7,
                            "address": "192.0.2.1:7", "reason": "idle" });
        assert_eq!(line(&event), "T  ended         7               192.0.2.1:7             idle\n");
        let event = json!({ "number": 2, "time": "T", "what": "reloaded" });
        assert_eq!(line(&event), "T  reloaded\n");
    }
}

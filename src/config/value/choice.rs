//! Settings that are one of a few words, and what to log.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use super::Invalid;

/// Whether a UDP packet must come from the endpoint of the sender that it claims.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UdpSenderCheck {
    /// It need not: deployed nodes that change their port go on being heard.
    Off,
    /// It must: what comes from elsewhere is dropped.
    Observed,
}

impl FromStr for UdpSenderCheck {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "off" => Ok(Self::Off),
            "observed" => Ok(Self::Observed),
            _ => Err("neither off nor observed".into()),
        }
    }
}

/// What becomes of the session of a NetBird peer that logs in again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetbirdTakeover {
    /// It ends, wherever the login comes from.
    Always,
    /// It stays where the login comes from another address, as long as it answers.
    SameAddress,
}

impl FromStr for NetbirdTakeover {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "always" => Ok(Self::Always),
            "same-address" => Ok(Self::SameAddress),
            _ => Err("neither always nor same-address".into()),
        }
    }
}

/// When a message of the bus is safe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BusDurability {
    /// On the disk before anybody is told that it is stored.
    Always,
    /// On the disk within 200 ms.
    Interval,
    /// Whenever the system writes it.
    None,
}

impl FromStr for BusDurability {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "always" => Ok(Self::Always),
            "interval" => Ok(Self::Interval),
            "none" => Ok(Self::None),
            _ => Err("neither always, interval nor none".into()),
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For a person at a console.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("neither text nor json".into()),
        }
    }
}

/// What becomes of actions whose line is not in the audit log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuditPolicy {
    /// They are carried out.
    BestEffort,
    /// What changes something is refused unless it was written down before.
    Required,
}

impl FromStr for AuditPolicy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "best-effort" => Ok(Self::BestEffort),
            "required" => Ok(Self::Required),
            _ => Err("neither best-effort nor required".into()),
        }
    }
}

/// What to log: a level, or levels for parts, such as `info,beacon_relay::udp=debug`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter for a subscriber.
    #[must_use]
    pub fn to_filter(&self) -> EnvFilter {
        // The client of NATS logs errors where it only tries again, and payloads at trace; the
        // server of the Model Context Protocol logs each notification, and payloads at debug.
        // Whoever asks for it gets it: of two levels for one part, the later one counts.
        parse_filter(&format!("async_nats=off,rmcp=warn,{}", with_parts_of_today(&self.0)))
            .expect("a LogFilter is only made of what EnvFilter takes")
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogFilter {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // EnvFilter takes a lone word for the name of a part, so that a misspelt level
        // would silence everything without an error.
        let is_misspelt = |word: &&str| {
            let is_level = !word.is_empty() && word.parse::<LevelFilter>().is_ok();
            !is_level && !word.contains(['=', '[', ']', '{', '}'])
        };
        if let Some(word) = text.split(',').map(str::trim).find(is_misspelt) {
            return Err(format!(
                "`{word}` is no level; write error, warn, info, debug, trace or off, or part=level"
            )
            .into());
        }
        match parse_filter(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => {
                Err(format!("not a log filter: {error}; write a level, or part=level").into())
            }
        }
    }
}

/// Parts that had other names, and those that say today what they said.
const RENAMED: [(&str, &str); 3] = [
    ("beacon_relay::wss", "beacon_relay::session"),
    ("beacon_relay::directory", "beacon_relay::doors::pilot::directory"),
    ("beacon_relay::client", "beacon_client"),
];

/// The filter with the parts that were renamed under their names of today.
fn with_parts_of_today(text: &str) -> String {
    let today = |directive: &str| {
        let part = directive.trim_start();
        let renamed = RENAMED.iter().find_map(|(before, now)| {
            let rest = part.strip_prefix(before)?;
            rest.starts_with(['=', ':', '[']).then(|| format!("{now}{rest}"))
        });
        renamed.unwrap_or_else(|| directive.to_owned())
    };
    text.split(',').map(today).collect::<Vec<_>>().join(",")
}

/// Reads the values of fields, as in `[session{node=7}]=debug`, as they are. As patterns, which is
/// the default, they take minutes and gigabytes to compile if somebody writes a long one.
fn parse_filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_is_a_level_or_levels_for_parts() {
        for text in ["info", "WARN", "off", "info,beacon_relay::udp=debug", "[session]=trace"] {
            let filter: LogFilter = text.parse().unwrap();
            assert!(!filter.to_filter().to_string().is_empty());
            assert_eq!(filter.to_string(), text);
        }
    }

    #[test]
    fn part_that_was_renamed_is_logged_under_its_old_name() {
        let filter = |text: &str| text.parse::<LogFilter>().unwrap().to_filter().to_string();
        let today = filter("beacon_relay::session=debug,beacon_client::dial=trace,info");
        assert_eq!(filter("info,beacon_relay::wss=debug,beacon_relay::client::dial=trace"), today);
        assert!(filter("beacon_relay::wssx=debug").contains("beacon_relay::wssx=debug"));
    }

    #[test]
    fn libraries_that_say_too_much_are_silent_unless_asked_for() {
        let filter = |text: &str| text.parse::<LogFilter>().unwrap().to_filter().to_string();
        assert_eq!(filter("debug"), "async_nats=off,rmcp=warn,debug");
        assert_eq!(filter("debug,async_nats=info"), "async_nats=info,rmcp=warn,debug");
        assert_eq!(filter("debug,rmcp=info"), "async_nats=off,rmcp=info,debug");
    }

    /// It did not come back for minutes, on a thread of the relay where `log-level` asked for it.
    #[test]
    fn value_of_a_field_is_not_compiled_as_a_pattern() {
        let text = format!("[s{{a=.*{}b+}}]=trace", ".".repeat(100));
        let filter: LogFilter = text.parse().unwrap();
        assert!(filter.to_filter().to_string().contains(&text));
    }

    #[test]
    fn misspelt_level_is_refused() {
        for text in ["inof", "", "info,", "beacon_relay=loud", "beacon_relay"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn words_are_exact() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("JSON".parse::<LogFormat>().is_err());
        assert_eq!("observed".parse(), Ok(UdpSenderCheck::Observed));
        assert!("on".parse::<UdpSenderCheck>().is_err());
        assert_eq!("same-address".parse(), Ok(NetbirdTakeover::SameAddress));
        assert!("same_address".parse::<NetbirdTakeover>().is_err());
    }
}

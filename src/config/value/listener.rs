//! What only `[[listener]]` tables say: names, prefixes of paths, and origins.

use std::fmt;
use std::str::FromStr;

use super::{Invalid, Kind, Value, WebOrigin, split};

/// Longest name of a listener, in bytes.
const MAX_NAME: usize = 64;

/// Longest prefix of a path, in bytes.
const MAX_PREFIX: usize = 256;

/// Names of inherited sockets that are for something else.
const TAKEN: [&str; 6] = ["wss", "netbird", "peerbus", "middleman", "admin", "udp"];

/// The name of a listener, in the log and for sockets that systemd hands over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerName(String);

impl ListenerName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ListenerName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if TAKEN.contains(&text) {
            let reason = "the name of other sockets: wss, netbird, peerbus, middleman, admin and udp are taken";
            return Err(reason.into());
        }
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(is_allowed) {
            let reason = format!("not a name; write 1 to {MAX_NAME} letters, digits, -, _ and .");
            return Err(reason.into());
        }
        Ok(Self(text.to_owned()))
    }
}

/// The beginning of paths, in whole segments; by default that of all paths, `/`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// The prefix; it ends in no slash, but for `/` alone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a path is this one, or one below it.
    #[must_use]
    pub fn holds(&self, path: &str) -> bool {
        let below = if self.0 == "/" { Some(path) } else { path.strip_prefix(&self.0) };
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PathPrefix {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // Nothing that two programs may read in two ways, such as %2F or a dot segment.
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        let is_segment =
            |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed);
        let is_prefix = text
            .strip_prefix('/')
            .is_some_and(|rest| rest.is_empty() || rest.split('/').all(is_segment));
        if !is_prefix || text.len() > MAX_PREFIX {
            return Err("not a path such as /bus: segments of letters, digits, -, _, . and ~, \
                        without a slash at the end"
                .into());
        }
        Ok(Self(text.to_owned()))
    }
}

/// The prefixes of the doors of a listener that accept any path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathPrefixes {
    /// Nobody said any.
    Unset,
    /// That of each such door, which can be one at most.
    One(PathPrefix),
    /// Those of the doors of these names.
    Each(Vec<(String, PathPrefix)>),
}

impl Value for PathPrefixes {
    const KIND: Kind = Kind::TextOrTable;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        match items {
            [] => Ok(Self::Unset),
            [text] if !text.contains('=') => text.parse().map(Self::One),
            items => {
                let each = items.iter().map(|item| {
                    let (door, prefix) =
                        item.split_once('=').ok_or("takes one value, or a table")?;
                    let prefix = prefix.parse().map_err(|Invalid(reason)| {
                        Invalid(format!("`{prefix}`, that of {door}, is {reason}"))
                    })?;
                    Ok((door.to_owned(), prefix))
                });
                each.collect::<Result<_, _>>().map(Self::Each)
            }
        }
    }
}

/// Which web pages may connect to a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AllowOrigins {
    /// Those that the doors let in, and these.
    DoorsAnd(Vec<WebOrigin>),
    /// `*`: all of them.
    Any,
    /// These alone.
    Only(Vec<WebOrigin>),
}

impl Value for AllowOrigins {
    const KIND: Kind = Kind::List;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        if items.is_empty() {
            return Ok(Self::DoorsAnd(Vec::new()));
        }
        if split(items).eq(["*"]) { Ok(Self::Any) } else { Vec::read(items).map(Self::Only) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_one_that_systemd_can_give_and_no_other_socket_has() {
        assert_eq!("agents.v2_a-b".parse::<ListenerName>().unwrap().as_str(), "agents.v2_a-b");
        for text in ["", "a b", "a:b", "wss", "admin", "udp", "ä", &"a".repeat(MAX_NAME + 1)] {
            assert!(text.parse::<ListenerName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn prefix_has_one_spelling() {
        for text in ["/", "/bus", "/v1/bus-2.x_~"] {
            assert_eq!(text.parse::<PathPrefix>().unwrap().as_str(), text);
        }
        for text in ["", "bus", "/bus/", "//", "/a//b", "/a/../b", "/./a", "/%2F", "/a?b", "/a b"] {
            assert!(text.parse::<PathPrefix>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn star_alone_lets_every_page_in_and_an_empty_list_none() {
        let read = |items: &[&str]| {
            AllowOrigins::read(&items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&[]), Ok(AllowOrigins::DoorsAnd(vec![])));
        assert_eq!(read(&[""]), Ok(AllowOrigins::Only(vec![])));
        assert_eq!(read(&["*"]), Ok(AllowOrigins::Any));
        let one = "https://a.test".parse().unwrap();
        assert_eq!(read(&["https://a.test"]), Ok(AllowOrigins::Only(vec![one])));
        assert!(read(&["*", "https://a.test"]).is_err());
    }
}

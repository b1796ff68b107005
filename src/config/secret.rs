//! What is never shown: the text of a secret file, and the password in a URL.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use super::NatsServers;
use super::hidden::hidden;
use super::small_file::contents;

/// Shortest secret that relays or operators share, in bytes: 16 random ones cannot be guessed.
const LEAST: usize = 16;

/// Most secrets of a file of several: each login is checked with all.
const MOST_LINES: usize = 16;

/// A text that is never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The text, for the wire alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a file that holds nothing else.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = contents(path)?;
        match text.trim() {
            "" => Err("the file is empty; write the secret into it".to_owned()),
            text => Ok(Self(text.to_owned())),
        }
    }

    /// The secrets of a text, one a line; empty lines are none.
    pub(super) fn lines(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Vec<_> = lines.map(|line| Self(line.to_owned())).collect();
        match secrets.len() {
            0 => Err("the file is empty; write the secret into it".to_owned()),
            1..=MOST_LINES => Ok(secrets),
            lines => Err(format!("{lines} secrets; write {MOST_LINES} at most")),
        }
    }

    /// Reads a file that holds nothing else, and refuses what could be guessed.
    pub(super) fn read_long(path: &Path) -> Result<Self, String> {
        Self::read_of_least(path, LEAST)
    }

    /// Reads a file that holds nothing else, and refuses what has fewer bytes than this.
    pub(super) fn read_of_least(path: &Path, least: usize) -> Result<Self, String> {
        let secret = Self::read(path)?;
        let bytes = secret.0.len();
        if bytes < least {
            return Err(format!("the secret has {bytes} bytes; write {least} or more"));
        }
        Ok(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Settings whose values are URLs of NATS, in which there may be a user and a password.
const HAS_URLS: [&str; 2] = ["cluster_nats", "bus_nats"];

/// What may be shown of a text that somebody gave for the setting `key`: of URLs, neither
/// user nor password. A misspelt `key` hides what has a scheme.
pub(crate) fn shown<'a>(key: &str, text: &'a str) -> Cow<'a, str> {
    if HAS_URLS.contains(&key) && text.parse::<NatsServers>().is_ok() {
        let urls: Vec<_> = text.split(',').map(hidden).collect();
        Cow::Owned(urls.join(","))
    } else if HAS_URLS.contains(&key) || text.contains("://") {
        hidden(text)
    } else {
        Cow::Borrowed(text)
    }
}

/// What may be shown of a value that the setting `key` accepts: only in URLs of NATS is there a
/// user and a password. A path goes on naming its file, whatever it looks like.
pub(super) fn shown_value<'a>(key: &str, text: &'a str) -> Cow<'a, str> {
    if HAS_URLS.contains(&key) { shown(key, text) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_of_a_url_are_hidden() {
        for (text, expected) in [
            ("nats://user:hunter2@a:4222", "nats://***@a:4222"),
            ("nats://token@a", "nats://***@a"),
            ("nats://u:p@ss,w://rd@a", "nats://***@a"),
            ("nats://u:p@a,tls://u:p@b:1, tls://c", "nats://***@a,tls://***@b:1, tls://c"),
            ("nats://u:p@a,http://u:p@b", "nats://***@b"),
            ("user:hunter2@a", "***@a"),
            ("nats://a,nats://b", "nats://a,nats://b"),
        ] {
            for key in HAS_URLS {
                assert_eq!(shown(key, text), expected);
            }
        }
        assert_eq!(shown("clusternats", "nats://user:hunter2@a"), "nats://***@a");
    }

    #[test]
    fn path_with_an_at_sign_is_shown() {
        for key in ["wss_bind", "cluster_nats_credentials"] {
            assert_eq!(shown(key, "unix:/run/relay@1"), "unix:/run/relay@1");
        }
    }
}

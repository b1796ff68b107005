//! What the text of a setting can mean: one type for each kind of value.

mod acme;
mod address;
pub(super) mod bytes;
mod choice;
mod cluster;
mod duration;
mod listener;
mod name;
mod network;
mod translators;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use acme::{AcmeContact, AcmeDirectory, AcmeName};
pub use address::{HostPort, WssBind};
pub use choice::{
    AuditPolicy, BusDurability, LogFilter, LogFormat, NetbirdTakeover, UdpSenderCheck,
};
pub(super) use cluster::SharedName;
pub use cluster::{ClusterName, NatsServers};
pub use listener::{AllowOrigins, ListenerName, PathPrefix, PathPrefixes};
pub use name::{ExposedAddress, Fingerprint, HostName, HubName, RelayName, WebOrigin};
pub use network::{IpNet, PunchAllow};

use super::Invalid;
use crate::ids::BeaconId;

/// How a setting is written, on the command line and in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// One text.
    Text,
    /// A whole number.
    Number,
    /// True or false; the bare flag means true.
    Switch,
    /// Any number of texts: repeated, or with commas between them.
    List,
    /// One text, or one for each name; only in tables of the file. As text: `name=text`.
    TextOrTable,
    /// Any number of tables; only in tables of the file. As text: a line `name=text` for each
    /// entry.
    Tables,
}

/// The type of a whole setting.
pub(super) trait Value: Sized {
    /// How it is written.
    const KIND: Kind;

    /// Reads what was said; no items where nobody said anything and there is no default.
    fn read(items: &[String]) -> Result<Self, Invalid>;
}

/// The type of one text.
pub(super) trait Text: Sized {
    /// How it is written.
    const KIND: Kind = Kind::Text;

    /// Reads the text, which has no spaces around it.
    fn parse(text: &str) -> Result<Self, Invalid>;
}

impl<T: Text> Value for T {
    const KIND: Kind = T::KIND;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        match items {
            [] => Err("has no default on this machine; set it".into()),
            [text] => T::parse(text.trim()),
            _ => Err("takes one value, not a list; write one".into()),
        }
    }
}

impl<T: Text> Value for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        if items.is_empty() { Ok(None) } else { T::read(items).map(Some) }
    }
}

impl<T: Text> Value for Vec<T> {
    const KIND: Kind = Kind::List;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        split(items)
            .map(|item| T::parse(item).map_err(|reason| format!("`{item}` is {reason}").into()))
            .collect()
    }
}

/// The items of a list, whichever way it was written; one empty text is the empty list.
pub(super) fn split(items: &[String]) -> impl Iterator<Item = &str> {
    let items = if matches!(items, [text] if text.is_empty()) { &[] } else { items };
    items.iter().flat_map(|item| item.split(',')).map(str::trim)
}

/// A type whose settings can have a smallest and a largest value.
pub(super) trait Ordered: PartialOrd {
    /// The value as an operator writes it.
    fn shown(&self) -> impl fmt::Display;
}

impl Ordered for Duration {
    fn shown(&self) -> impl fmt::Display {
        duration::Shown(*self)
    }
}

macro_rules! numbers {
    ($($number:ty)*) => { $(
        impl Text for $number {
            const KIND: Kind = Kind::Number;

            fn parse(text: &str) -> Result<Self, Invalid> {
                // `parse` alone would take "+7" and "007", which TOML does not.
                let canonical = text == "0" || !text.starts_with(['+', '0']);
                text.parse().ok().filter(|_| canonical).ok_or_else(|| {
                    format!("not a whole number from 0 to {}", Self::MAX).into()
                })
            }
        }

        impl Ordered for $number {
            fn shown(&self) -> impl fmt::Display {
                *self
            }
        }
    )* };
}

numbers! { u8 u16 u32 u64 usize }

impl Text for bool {
    const KIND: Kind = Kind::Switch;

    fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("neither true nor false".into()),
        }
    }
}

impl Text for BeaconId {
    const KIND: Kind = Kind::Number;

    fn parse(text: &str) -> Result<Self, Invalid> {
        u32::parse(text).map(Self)
    }
}

impl Text for PathBuf {
    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() { Err("empty; write a path".into()) } else { Ok(text.into()) }
    }
}

impl Text for Duration {
    fn parse(text: &str) -> Result<Self, Invalid> {
        duration::parse(text)
    }
}

impl Text for SocketAddr {
    fn parse(text: &str) -> Result<Self, Invalid> {
        address::bind(text)
    }
}

macro_rules! by_from_str {
    ($($own:ty)*) => { $(
        impl Text for $own {
            fn parse(text: &str) -> Result<Self, Invalid> {
                text.parse()
            }
        }
    )* };
}

by_from_str! {
    AcmeContact AcmeDirectory AcmeName
    HostName HostPort WssBind AuditPolicy LogFilter LogFormat UdpSenderCheck Fingerprint RelayName WebOrigin
    ExposedAddress NetbirdTakeover BusDurability
    IpNet ClusterName NatsServers SharedName ListenerName
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn list_is_repeated_or_comma_separated() {
        let expected: Vec<u32> = vec![1, 2, 3];
        for texts in [&["1,2,3"] as &[_], &["1", "2", "3"], &["1, 2", "3"]] {
            assert_eq!(Vec::<u32>::read(&items(texts)), Ok(expected.clone()), "{texts:?}");
        }
        assert_eq!(Vec::<u32>::read(&items(&[""])), Ok(vec![]));
        assert_eq!(Vec::<u32>::read(&[]), Ok(vec![]));
    }

    #[test]
    fn bad_item_of_a_list_is_named() {
        let Invalid(reason) = Vec::<u32>::read(&items(&["1,two"])).unwrap_err();
        assert_eq!(reason, "`two` is not a whole number from 0 to 4294967295");
        assert!(Vec::<u32>::read(&items(&["1,,2"])).is_err());
    }

    #[test]
    fn single_setting_refuses_a_list() {
        assert!(u32::read(&items(&["1", "2"])).is_err());
        assert!(u32::read(&[]).is_err());
        assert_eq!(Option::<u32>::read(&[]), Ok(None));
    }

    #[test]
    fn number_has_one_spelling() {
        assert_eq!(u8::parse("0"), Ok(0));
        assert_eq!(u8::parse("255"), Ok(255));
        for text in ["256", "-1", "+1", "01", "1.5", "ten", ""] {
            assert!(u8::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn switch_takes_words_and_digits() {
        assert_eq!(bool::parse("1"), bool::parse("true"));
        assert_eq!(bool::parse("0"), bool::parse("false"));
        assert!(bool::parse("yes").is_err());
    }
}

//! A file of public keys: one JSON object of node id to base64 key.
//!
//! It is read through a visitor straight into a sorted list, so a million entries never
//! exist as a tree or as text in memory.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::iter;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use crate::config::remedy;
use crate::ids::{NodeId, PublicKey};
use crate::wire::mark::MARK;

/// Most entries that a key file may have; ten times what the directory is built for.
const MAX_ENTRIES: usize = 10_000_000;

/// Nodes with their keys, sorted by node: 36 bytes an entry, found by binary search.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct KeyList(Box<[(NodeId, PublicKey)]>);

/// How an entry differs between two lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Difference {
    Added,
    Removed,
    Changed,
}

impl KeyList {
    /// Reads and checks a whole file; blocks.
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let unreadable = |source| FileError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mut input = BufReader::with_capacity(64 * 1024, file);
        if input.fill_buf().map_err(unreadable)?.starts_with(MARK.as_bytes()) {
            input.consume(MARK.len());
        }
        Self::parse(input).map_err(|error| {
            if error.is_io() {
                return unreadable(error.into());
            }
            let (line, column) = (error.line(), error.column());
            let text = error.to_string();
            let reason = text.strip_suffix(&format!(" at line {line} column {column}"));
            let mut reason = reason.unwrap_or(&text).to_owned();
            if error.is_syntax() || error.is_eof() {
                reason.push_str("; it must hold JSON such as {\"4242\": \"<public key>\"}");
            }
            FileError::Invalid { path: path.to_owned(), line, column, reason }
        })
    }

    fn parse(input: impl Read) -> Result<Self, serde_json::Error> {
        let mut input = serde_json::Deserializer::from_reader(input);
        let mut entries = input.deserialize_map(Entries)?;
        input.end()?;
        entries.sort_unstable_by_key(|(node, _)| *node);
        Ok(Self(entries.into_boxed_slice()))
    }

    pub(super) fn find(&self, node: NodeId) -> Option<PublicKey> {
        let position = self.0.binary_search_by_key(&node, |(node, _)| *node).ok()?;
        self.0.get(position).map(|(_, key)| *key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(NodeId, PublicKey)> {
        self.0.iter()
    }

    /// Adds or replaces one entry.
    pub(super) fn with(self, node: NodeId, key: PublicKey) -> Self {
        let mut entries = self.0.into_vec();
        match entries.binary_search_by_key(&node, |(node, _)| *node) {
            Ok(position) => {
                if let Some(entry) = entries.get_mut(position) {
                    entry.1 = key;
                }
            }
            Err(position) => entries.insert(position, (node, key)),
        }
        Self(entries.into_boxed_slice())
    }

    /// Removes the entry of a node; `None` where there is none.
    pub(super) fn without(self, node: NodeId) -> Option<Self> {
        let mut entries = self.0.into_vec();
        let position = entries.binary_search_by_key(&node, |(node, _)| *node).ok()?;
        entries.remove(position);
        Some(Self(entries.into_boxed_slice()))
    }

    /// The entries in which `newer` differs from this list, in the order of their ids.
    pub(super) fn differences<'a>(
        &'a self,
        newer: &'a Self,
    ) -> impl Iterator<Item = (NodeId, Difference)> + 'a {
        let (mut old, mut new) = (self.0.iter().peekable(), newer.0.iter().peekable());
        iter::from_fn(move || {
            loop {
                return match (old.peek(), new.peek()) {
                    (None, None) => None,
                    (Some(a), b) if b.is_none_or(|b| a.0 < b.0) => {
                        old.next().map(|(node, _)| (*node, Difference::Removed))
                    }
                    (Some(a), Some(b)) if a.0 == b.0 => {
                        let (a, b) = (old.next(), new.next());
                        if a == b {
                            continue;
                        }
                        b.map(|(node, _)| (*node, Difference::Changed))
                    }
                    (_, Some(_)) | (Some(_), None) => {
                        new.next().map(|(node, _)| (*node, Difference::Added))
                    }
                };
            }
        })
    }
}

/// Reads the object and refuses a node that is in it twice.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(NodeId, PublicKey)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of node id to base64 public key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        // A duplicate is looked for while its place in the file is known.
        let mut nodes = HashSet::<_, foldhash::fast::RandomState>::default();
        while let Some(node) = map.next_key_seed(Text::<NodeId>(PhantomData))? {
            if !nodes.insert(node) {
                return Err(A::Error::custom(format_args!("node {node} is in this file twice")));
            }
            if entries.len() == MAX_ENTRIES {
                return Err(A::Error::custom(format_args!("more than {MAX_ENTRIES} entries")));
            }
            entries.push((node, map.next_value_seed(Text::<PublicKey>(PhantomData))?));
        }
        Ok(entries)
    }
}

/// Parses a JSON string without keeping it.
struct Text<T>(PhantomData<T>);

impl<'de, T: FromStr<Err: fmt::Display>> DeserializeSeed<'de> for Text<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<T, D::Error> {
        input.deserialize_str(self)
    }
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; {}", path.display(), remedy(source))]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not one JSON object of node id to key.
    #[error(
        "{}, line {line}, column {column}: {reason}; write a node id and its key, as in \"7\": \"BASE64\"",
        path.display()
    )]
    Invalid {
        /// The key file.
        path: PathBuf,
        /// The line of the mistake, from 1.
        line: usize,
        /// The column at which reading stopped, from 1; 0 at the start of a line.
        column: usize,
        /// What is wrong.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const KEY: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

    fn node(number: u32) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn list(entries: &[(u32, u8)]) -> KeyList {
        KeyList(entries.iter().map(|&(n, k)| (node(n), PublicKey([k; 32]))).collect())
    }

    fn place(text: &str) -> (usize, usize, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let error = KeyList::read(file.path()).unwrap_err();
        let FileError::Invalid { path, line, column, reason } = error else { panic!("{error}") };
        assert_eq!(path, file.path());
        (line, column, reason)
    }

    #[test]
    fn entries_are_found_whatever_their_order() {
        let other = PublicKey([7; 32]);
        let text = format!("{{\"9\":\"{KEY}\",\n \"4294967295\":\"{other}\",\"1\":\"{KEY}\"}}\n");
        let keys = KeyList::parse(text.as_bytes()).unwrap();
        assert_eq!(keys.len(), 3);
        assert_eq!(keys.find(node(u32::MAX)), Some(other));
        assert_eq!(keys.find(node(1)), Some(KEY.parse().unwrap()));
        assert_eq!(keys.find(node(2)), None);
        assert_eq!(KeyList::parse("{}".as_bytes()).unwrap().len(), 0);
    }

    #[test]
    fn byte_order_mark_before_the_object_is_no_mistake() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("\u{feff}{{\"7\":\"{KEY}\"}}")).unwrap();
        let keys = KeyList::read(file.path()).unwrap();
        assert_eq!(keys.find(node(7)), Some(KEY.parse().unwrap()));
        let (line, column, _) = place("\u{feff}\u{feff}{}");
        assert_eq!((line, column), (1, 1), "one mark, at the beginning");
    }

    #[test]
    fn mistakes_are_reported_with_their_place() {
        let (line, column, reason) = place(&format!("{{\n\"1\": \"{KEY}\",\n\"x\": \"{KEY}\"}}"));
        assert_eq!((line, column), (3, 4));
        assert!(reason.starts_with("`x` is not a node id"), "{reason}");

        let (line, column, reason) = place("{\n\"1\": \"AAAA\"}");
        assert_eq!((line, column), (2, 11));
        assert!(reason.contains("this has 3"), "{reason}");

        let (line, column, reason) = place(&format!("{{\"1\": \"{KEY}\",\n \"1\": \"{KEY}\"}}"));
        assert_eq!((line, column), (2, 5));
        assert_eq!(reason, "node 1 is in this file twice");
    }

    #[test]
    fn other_forms_are_refused() {
        for (text, expected) in [
            (String::new(), "EOF"),
            ("[]".to_owned(), "expected an object of node id to base64 public key"),
            ("{\"1\": 7}".to_owned(), "expected a string"),
            ("{\"1\": null}".to_owned(), "expected a string"),
            ("{\"0\": \"\"}".to_owned(), "not a node id"),
            ("{\"01\": \"\"}".to_owned(), "not a node id"),
            (format!("{{\"1\": \"{KEY}\"}} {{}}"), "trailing characters"),
            (format!("{{\"1\": \"{KEY}\","), "EOF"),
        ] {
            let (line, _, reason) = place(&text);
            assert!(line <= 1 && reason.contains(expected), "{text:?}: {reason}");
        }
    }

    #[test]
    fn missing_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = KeyList::read(&directory.path().join("absent.json")).unwrap_err();
        assert!(matches!(error, FileError::Read { .. }));
        assert!(error.to_string().contains("absent.json"), "{error}");
    }

    #[test]
    fn differences_name_each_entry_once() {
        let old = list(&[(1, 1), (2, 2), (3, 3), (5, 5)]);
        let new = list(&[(2, 2), (3, 9), (4, 4), (6, 6)]);
        let expected = [
            (node(1), Difference::Removed),
            (node(3), Difference::Changed),
            (node(4), Difference::Added),
            (node(5), Difference::Removed),
            (node(6), Difference::Added),
        ];
        assert_eq!(old.differences(&new).collect::<Vec<_>>(), expected);
        assert_eq!(old.differences(&old).count(), 0);
    }

    #[test]
    fn entry_is_added_or_replaced_in_its_place() {
        let keys = list(&[(1, 1), (3, 3)]);
        let key = PublicKey([9; 32]);
        assert_eq!(keys.clone().with(node(2), key), list(&[(1, 1), (2, 9), (3, 3)]));
        assert_eq!(keys.with(node(3), key), list(&[(1, 1), (3, 9)]));
    }

    #[test]
    fn a_million_entries_take_36_bytes_each() {
        let mut text = b"{\"1\":\"".to_vec();
        text.extend(KEY.bytes());
        // Written backwards, so that sorting has work to do.
        for number in (2..=1_000_000).rev() {
            write!(text, "\",\n\"{number}\":\"{KEY}").unwrap();
        }
        text.extend(b"\"}");
        let keys = KeyList::parse(text.as_slice()).unwrap();
        assert_eq!(keys.len(), 1_000_000);
        assert_eq!(size_of_val(&*keys.0), 36 * keys.len());
        assert!(keys.find(node(1)).is_some() && keys.find(node(1_000_000)).is_some());
    }
}

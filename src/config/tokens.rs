//! The tokens file of the peerbus door: who may log in, and under which names.
//!
//! Of a token only its SHA-256 is kept.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::small_file::contents;

/// Most tokens of a file: a login is compared with all of them.
const MOST_TOKENS: usize = 4_096;

/// Longest token, in bytes.
pub const LONGEST_TOKEN: usize = 4_096;

/// Longest label and longest pattern of names, in bytes.
const LONGEST_WORD: usize = 1_024;

/// Stands for any characters in a pattern of names.
const ANY: char = '*';

/// The tokens of a file, one at least.
#[derive(Clone, Eq, PartialEq)]
pub struct Tokens(Arc<[Token]>);

/// What a line says of a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    digest: Digest,
    /// What tells the credential from others: that of the label, or of the token itself. Tokens
    /// of one label are one credential.
    pub owner: [u8; 32],
    /// What operators call the credential, where it has a label.
    pub label: Option<Arc<str>>,
    /// The names that it may have; any where nothing is said.
    pub names: Option<NamePattern>,
}

/// The SHA-256 of a token, which is not shown.
#[derive(Clone, Eq, PartialEq)]
struct Digest([u8; 32]);

impl Digest {
    fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether two are the same, in a time that does not say where they differ.
    fn is(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |sum, (one, two)| sum | one ^ two);
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

/// Names that a credential may have: a text in which each `*` stands for any characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamePattern(Box<str>);

impl NamePattern {
    /// Whether a name is one of them.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        let mut parts = self.0.split(ANY);
        let first = parts.next().expect("a split has a first part");
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some((_, behind)) = rest.split_once(part) else { return false };
            rest = behind;
        }
        rest.ends_with(last)
    }

    /// The one name that it is, where it has no `*`.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        Some(&*self.0).filter(|text| !text.contains(ANY))
    }
}

impl Tokens {
    /// Reads a file, and checks each line.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = contents(path)?;
        Self::parse(&text)
    }

    /// The tokens of a text. What is wrong is told with the number of its line, and never with
    /// what stands there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut lines_of = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let token = token(line).map_err(|reason| format!("line {number}: {reason}"))?;
            if let Some(before) = lines_of.insert(token.digest.0, number) {
                return Err(format!(
                    "line {number}: its token stands on line {before} already; remove one"
                ));
            }
            if tokens.len() == MOST_TOKENS {
                return Err(format!("line {number}: more than {MOST_TOKENS} tokens; remove some"));
            }
            tokens.push(token);
        }
        if tokens.is_empty() {
            return Err("no token in it; write one a line".to_owned());
        }
        Ok(Self(tokens.into()))
    }

    /// What is said of a token, in a time that does not depend on how much of it is right.
    #[must_use]
    pub fn find(&self, token: &[u8]) -> Option<&Token> {
        let digest = Digest::of(token);
        let mut found = None;
        for token in &*self.0 {
            if token.digest.is(&digest) {
                found = Some(token);
            }
        }
        found
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }

    /// The names that stand in the file without a `*`.
    pub fn literal_names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|token| token.names.as_ref()?.literal())
    }
}

/// The owner of the names that a label, or a token without one, has taken.
#[must_use]
pub fn owner_of_label(label: &str) -> [u8; 32] {
    Sha256::new_with_prefix("label:").chain_update(label).finalize().into()
}

/// Reads a line: `token`, `label token` or `label=pattern token`.
fn token(line: &str) -> Result<Token, String> {
    let mut words = line.split_whitespace();
    let first = words.next().expect("the line is not empty");
    let (who, token) = match (words.next(), words.next()) {
        (None, _) => (None, first),
        (Some(token), None) => (Some(first), token),
        (Some(_), Some(_)) => {
            return Err("more than two words; write TOKEN, LABEL TOKEN or LABEL=NAMES TOKEN".into());
        }
    };
    if token.len() > LONGEST_TOKEN {
        return Err(format!("its token has more than {LONGEST_TOKEN} bytes; write a shorter one"));
    }
    let digest = Digest::of(token.as_bytes());
    let Some(who) = who else {
        let owner = Sha256::new_with_prefix("token:").chain_update(token).finalize().into();
        return Ok(Token { digest, owner, label: None, names: None });
    };
    let (label, names) = match who.split_once('=') {
        None => (who, None),
        Some((label, names)) => (label, Some(names)),
    };
    if label.is_empty() || names.is_some_and(str::is_empty) {
        return Err(
            "an empty label or no names; write LABEL=NAMES TOKEN, as in ops=ops-* TOKEN".into()
        );
    }
    if who.len() > LONGEST_WORD {
        return Err(format!(
            "its label and names have more than {LONGEST_WORD} bytes; write shorter ones"
        ));
    }
    let names = names.map(|names| NamePattern(names.into()));
    Ok(Token { digest, owner: owner_of_label(label), label: Some(label.into()), names })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Tokens {
        Tokens::parse(text).unwrap()
    }

    fn refused(text: &str) -> String {
        Tokens::parse(text).unwrap_err()
    }

    #[test]
    fn line_is_a_token_alone_or_behind_a_label_or_behind_the_names_of_one() {
        let tokens = tokens("# agents\n\ntok-A\n  ops\ttok-B  \nops=ops-* tok-C\n#tok-D\n");
        assert_eq!(tokens.iter().count(), 3);
        let alone = tokens.find(b"tok-A").unwrap();
        assert_eq!((alone.label.as_deref(), &alone.names), (None, &None));
        let labelled = tokens.find(b"tok-B").unwrap();
        assert_eq!((labelled.label.as_deref(), &labelled.names), (Some("ops"), &None));
        let bound = tokens.find(b"tok-C").unwrap();
        assert!(bound.names.as_ref().unwrap().holds("ops-1"));
        assert_eq!(bound.owner, labelled.owner, "one label is one credential");
        assert_ne!(alone.owner, labelled.owner);
        assert_eq!(labelled.owner, owner_of_label("ops"));
        for unknown in [&b""[..], b"tok-", b"tok-D", b"#tok-D", b"ops", b"tok-A "] {
            assert!(tokens.find(unknown).is_none(), "{unknown:?}");
        }
    }

    #[test]
    fn label_that_reads_like_a_token_is_another_owner() {
        let tokens = tokens("same\nsame other");
        assert_ne!(tokens.find(b"same").unwrap().owner, tokens.find(b"other").unwrap().owner);
    }

    #[test]
    fn pattern_holds_the_names_that_it_stands_for() {
        let holds = |pattern: &str, name: &str| NamePattern(pattern.into()).holds(name);
        for (pattern, name) in [
            ("alice", "alice"),
            ("*", ""),
            ("*", "anything at all"),
            ("ops-*", "ops-"),
            ("*-bot", "review-bot"),
            ("a*b*c", "abc"),
            ("a*b*c", "a-b-b-c"),
            ("a**c", "abc"),
        ] {
            assert!(holds(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("alice", "alice2"),
            ("alice", "Alice"),
            ("ops-*", "ops"),
            ("a*a", "a"),
            ("a*b*c", "acb"),
            ("ab*bc", "abc"),
        ] {
            assert!(!holds(pattern, name), "{pattern} {name}");
        }
        let tokens = tokens("a=alice t1\na=ops-* t2\nb t3");
        assert_eq!(tokens.literal_names().collect::<Vec<_>>(), ["alice"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_its_token() {
        for (text, reason) in [
            ("", "no token in it"),
            ("# hunter2", "no token in it"),
            ("one\n\na b hunter2", "line 3: more than two words"),
            ("ops= hunter2", "line 1: an empty label or no names"),
            ("=x hunter2", "line 1: an empty label or no names"),
            ("hunter2\nops hunter2", "line 2: its token stands on line 1 already"),
        ] {
            let error = refused(text);
            assert!(error.starts_with(reason), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let long = "x".repeat(LONGEST_TOKEN + 1);
        assert!(refused(&long).starts_with("line 1: its token has more"));
        assert!(refused(&format!("{} t", &long[..LONGEST_WORD + 1])).contains("label and names"));
        let many: String = (0..=MOST_TOKENS).map(|number| format!("{number}\n")).collect();
        assert_eq!(refused(&many), "line 4097: more than 4096 tokens; remove some");
    }

    #[test]
    fn nothing_of_a_token_is_shown() {
        let tokens = tokens("ops hunter2");
        let digest: [u8; 32] = Sha256::digest("hunter2").into();
        for shown in [format!("{tokens:?}"), format!("{:?}", tokens.iter().next().unwrap())] {
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(!shown.contains(&digest[0].to_string()) || shown.contains("owner"), "{shown}");
        }
    }
}

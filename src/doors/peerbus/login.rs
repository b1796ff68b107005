//! Who may come in, and whose signature a message has.

use std::collections::{HashMap, HashSet};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::config::{Config, NamePattern, Tokens};
use crate::session::{Close, Outcome, Refusal};
use crate::wire::name::Name;
use crate::wire::peerbus::{self, Envelope};
use crate::wire::websocket::CloseCode;

/// What logins and messages are judged by.
pub(super) struct Login {
    tokens: Option<Tokens>,
    /// Of each credential the names that its lines say; any where a line says nothing.
    names: HashMap<[u8; 32], Vec<Option<NamePattern>>>,
    /// The names that stand in the tokens file.
    literals: HashSet<Box<str>>,
    /// Sessions of one credential, at most.
    most_sessions: usize,
    /// What messages are signed with, where that is looked at.
    signature: Option<Hmac<Sha256>>,
}

/// What a token lets its bearer be.
pub(super) struct Bearer {
    /// Tells the credential from others.
    pub(super) owner: [u8; 32],
    /// Sessions of it, at most.
    pub(super) most_sessions: usize,
}

impl Login {
    /// By these settings; nobody may come in where they have no tokens.
    pub(super) fn new(config: &Config) -> Self {
        let peerbus = config.peerbus.as_ref();
        let secret = peerbus.and_then(|peerbus| peerbus.hmac.as_ref());
        let hmac = secret.map(|secret| {
            Hmac::new_from_slice(secret.expose().as_bytes())
                .expect("HMAC takes a key of any length")
        });
        Self::of(peerbus.map(|peerbus| peerbus.tokens.clone()), config.max_peers, hmac)
    }

    fn of(tokens: Option<Tokens>, max_peers: usize, signature: Option<Hmac<Sha256>>) -> Self {
        let mut names: HashMap<_, Vec<_>> = HashMap::new();
        for token in tokens.iter().flat_map(Tokens::iter) {
            names.entry(token.owner).or_default().push(token.names.clone());
        }
        let literals = tokens.iter().flat_map(Tokens::literal_names).map(Box::from).collect();
        // One credential of several leaves as much to all others.
        let most_sessions = if names.len() > 1 { max_peers.div_ceil(2) } else { max_peers };
        Self { tokens, names, literals, most_sessions, signature }
    }

    /// Whom a token lets in under a name.
    pub(super) fn admits(&self, token: &str, name: &str) -> Result<Bearer, peerbus::Refusal> {
        let tokens = self.tokens.as_ref().ok_or(peerbus::Refusal::Token)?;
        let token = tokens.find(token.as_bytes()).ok_or(peerbus::Refusal::Token)?;
        if !self.is_meant(token.names.as_ref(), name) {
            // Clients know this text, and give up: no other token of theirs would help.
            return Err(peerbus::Refusal::Claimed);
        }
        Ok(Bearer { owner: token.owner, most_sessions: self.most_sessions })
    }

    /// Whether a name is one of those of a line.
    fn is_meant(&self, names: Option<&NamePattern>, name: &str) -> bool {
        match names {
            Some(names) => names.holds(name),
            // Or any token that comes first would have the messages that wait for it.
            None => !self.literals.contains(name),
        }
    }

    /// Whether a credential still has a token that may have the name.
    pub(super) fn has(&self, owner: &[u8; 32], name: &str) -> bool {
        let mut lines = self.names.get(owner).into_iter().flatten();
        lines.any(|names| self.is_meant(names.as_ref(), name))
    }

    /// Whether any token may have the name.
    pub(super) fn knows(&self, name: &str) -> bool {
        let mut tokens = self.tokens.iter().flat_map(Tokens::iter);
        tokens.any(|token| token.names.as_ref().is_none_or(|names| names.holds(name)))
    }

    /// The names that stand in the tokens file.
    pub(super) fn literal_names(&self) -> Vec<String> {
        self.literals.iter().map(|name| name.to_string()).collect()
    }

    /// Whether a message is signed with the secret, where there is one.
    pub(super) fn is_signed(&self, envelope: &Envelope<'_>) -> bool {
        let Some(hmac) = &self.signature else { return true };
        let code = hmac.clone().chain_update(envelope.canonical()).finalize().into_bytes();
        // As text, since recipients compare that; in a time that does not say where it differs.
        let wanted = code.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).map(digit);
        let differ = wanted.zip(envelope.hmac.bytes()).fold(0, |sum, (one, two)| sum | one ^ two);
        envelope.hmac.len() == 2 * code.len() && std::hint::black_box(differ) == 0
    }
}

/// A hexadecimal digit.
const fn digit(number: u8) -> u8 {
    if number < 10 { b'0' + number } else { b'a' + number - 10 }
}

/// Sends a client away, as the original does.
pub(super) fn refuse(refusal: peerbus::Refusal, name: Option<Name>) -> Refusal {
    use peerbus::Refusal as Why;

    let outcome = match refusal {
        Why::TooLarge | Why::NotText | Why::Malformed | Why::NotRegister | Why::Version => {
            Outcome::Violation
        }
        Why::NoName | Why::LongName | Why::Token | Why::Claimed => Outcome::AuthFail,
        Why::TooMany => Outcome::AtCapacity,
        Why::NotStored | Why::NotBound => Outcome::Unavailable,
    };
    let code = match refusal.code() {
        1003 => CloseCode::Unsupported,
        1007 => CloseCode::InvalidText,
        1009 => CloseCode::TooLarge,
        1011 => CloseCode::Internal,
        1013 => CloseCode::TryAgain,
        _ => CloseCode::Policy,
    };
    Refusal {
        reason: Some(refusal.word()),
        id: name,
        ..Refusal::new(outcome, Some(Close::new(code, refusal.reason())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the vectors: the secret, and a message with its signature.
    const SECRET: &str = "peerbus-test-peerbus-test-peerbu";
    const SIGNED: &str = r#"{"protocol_version":"v1","id":"m1","from":"bob","to":"alice","ts":"t","source":"peer-bus","kind":"msg","body":{"hi":1},"hmac":"a0625dd3949ec949ab29f1e7a771308b7c8ed0d60c1e01f08af287e0323a8e32"}"#;

    fn login(tokens: &str, secret: Option<&str>) -> Login {
        let hmac = secret.map(|secret| Hmac::new_from_slice(secret.as_bytes()).unwrap());
        Login::of(Some(Tokens::parse(tokens).unwrap()), 8, hmac)
    }

    fn is_signed(login: &Login, text: &str) -> bool {
        login.is_signed(&Envelope::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn recorded_signature_is_good_and_any_other_is_not() {
        let checks = login("t", Some(SECRET));
        assert!(is_signed(&checks, SIGNED));
        assert!(!is_signed(&checks, &SIGNED.replace("a0625dd3", "b0625dd3")));
        assert!(!is_signed(&checks, &SIGNED.replace("a0625dd3", "A0625DD3")));
        assert!(!is_signed(&checks, &SIGNED.replace("\"hi\":1", "\"hi\":2")));
        assert!(!is_signed(&checks, &SIGNED.replace("8e32\"}", "8e3\"}")));
        assert!(!is_signed(&checks, "{}"));
        assert!(!is_signed(&login("t", Some("another-another-another-another-")), SIGNED));
        assert!(is_signed(&login("t", None), "{}"), "nobody looks without a secret");
    }

    #[test]
    fn token_lets_in_under_the_names_of_its_line_alone() {
        let login = login("open\nops=ops-* bound", None);
        assert!(login.admits("open", "anybody").is_ok());
        let bound = login.admits("bound", "ops-1").map(|bearer| bearer.owner);
        assert!(bound.is_ok_and(|owner| login.has(&owner, "ops-2") && !login.has(&owner, "x")));
        assert_eq!(login.admits("bound", "alice").err(), Some(peerbus::Refusal::Claimed));
        assert_eq!(login.admits("", "alice").err(), Some(peerbus::Refusal::Token));
        assert!(login.knows("alice"));
    }

    #[test]
    fn name_of_a_line_is_for_no_other_token() {
        let login = login("open\nreview=alice bound", None);
        assert_eq!(login.admits("open", "alice").err(), Some(peerbus::Refusal::Claimed));
        assert!(login.admits("bound", "alice").is_ok());
        assert!(login.admits("open", "bob").is_ok());
        let owner = login.admits("open", "bob").map(|bearer| bearer.owner);
        assert!(owner.is_ok_and(|owner| login.has(&owner, "bob") && !login.has(&owner, "alice")));
    }

    #[test]
    fn one_credential_of_several_has_half_of_the_sessions() {
        assert_eq!(login("one", None).most_sessions, 8);
        assert_eq!(login("team one\nteam another", None).most_sessions, 8);
        assert_eq!(login("one\nanother", None).most_sessions, 4);
    }

    #[test]
    fn every_refusal_is_told_with_the_code_of_the_original() {
        for refusal in peerbus::Refusal::ALL {
            let close = refuse(refusal, None).close.unwrap();
            assert_eq!(close.code as u16, refusal.code(), "{refusal:?}");
            assert_eq!(close.reason, refusal.reason());
        }
    }
}

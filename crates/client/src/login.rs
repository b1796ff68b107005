//! The login as the node does it: which challenge to sign, and what the relay made of it.
//!
//! A signature opens a session at whichever relay made the challenge, so a challenge that
//! somebody else could have made for another relay is not signed.

use ed25519_dalek::Signer as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

use super::options::Options;
use super::socket::Socket;
use crate::ids::PublicKey;
use crate::net::words::of_close;
use crate::wire::auth::{Challenge, Generation, MaxMessage, Reply};

/// Close code of a refusal (policy violation).
const REFUSED: u16 = 1008;

/// Answers the challenge and waits for the acceptance; the caller limits the time.
pub(super) async fn login(
    socket: &mut Socket,
    options: &Options,
    host: &str,
) -> Result<(), LoginError> {
    let challenge = next_text(socket).await?;
    let reply = reply(options, host, &challenge)?;
    socket.send(Message::text(reply)).await?;

    #[derive(Deserialize)]
    struct Acceptance {
        r#type: String,
    }
    let answer = next_text(socket).await?;
    match serde_json::from_str::<Acceptance>(&answer) {
        Ok(answer) if answer.r#type == "auth_ok" => Ok(()),
        _ => Err(LoginError::Unexpected { what: "something else than an acceptance" }),
    }
}

async fn next_text(socket: &mut Socket) -> Result<String, LoginError> {
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) => return Ok(text.as_str().to_owned()),
            Message::Close(frame) => return Err(LoginError::closed(frame)),
            Message::Binary(_) => {
                return Err(LoginError::Unexpected { what: "a packet before its acceptance" });
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    Err(LoginError::closed(None))
}

/// The reply to a challenge, or why it must not be signed.
fn reply(options: &Options, host: &str, challenge: &str) -> Result<String, LoginError> {
    let unexpected = LoginError::Unexpected { what: "something else than a challenge" };
    let challenge = Challenge::decode(challenge).map_err(|_| unexpected)?;
    // A nonce of "<relay>:<nonce>" would make the text of the second generation that of the
    // third, for a relay that was never dialled.
    let hex = challenge.nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || challenge.nonce.len() != 64 {
        return Err(LoginError::Nonce);
    }
    let generation = match &challenge.relay {
        Some(relay) => {
            let mut expected = [Some(host), options.relay_name.as_deref()].into_iter().flatten();
            if !expected.any(|name| name.eq_ignore_ascii_case(relay)) {
                return Err(LoginError::OtherRelay { relay: relay.clone(), host: host.to_owned() });
            }
            Generation::Third
        }
        None if options.require_relay_name => return Err(LoginError::NoRelayName),
        None => Generation::Second,
    };
    let text = challenge.signed_text(options.node, generation);
    let reply = Reply {
        node: options.node,
        public_key: PublicKey(options.key.verifying_key().to_bytes()),
        signature: options.key.sign(text.as_bytes()).to_bytes(),
        generation: (generation == Generation::Third).then_some(3),
        // What the socket is configured for (`dial`).
        max_message: MaxMessage::MOST,
    };
    Ok(reply.encode())
}

/// Why the relay did not let the node in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The relay does not know the node or its key.
    #[error("the relay refused the login: {reason:?}")]
    Refused {
        /// What the relay said.
        reason: String,
    },
    /// The relay closed the connection for another reason.
    #[error("the relay closed the connection during the login ({})", of_close(*.code, .reason))]
    Closed {
        /// The close code, where it gave one.
        code: Option<u16>,
        /// What the relay said.
        reason: String,
    },
    /// The challenge is of another relay, so answering could open a session there for somebody
    /// else. It was not signed.
    #[error("the challenge is that of the relay {relay:?}, but {host:?} was dialled: not signed")]
    OtherRelay {
        /// The relay that the challenge names.
        relay: String,
        /// The host that was dialled.
        host: String,
    },
    /// The challenge names no relay, and the options require it. It was not signed.
    #[error("the challenge does not name its relay: not signed")]
    NoRelayName,
    /// The nonce is not 64 hex digits: a text made to be signed for something else. It was not.
    #[error("the challenge holds no nonce of 64 hex digits: not signed")]
    Nonce,
    /// The relay does not keep to the protocol.
    #[error("the server is no relay: it sent {what}")]
    Unexpected {
        /// What it sent.
        what: &'static str,
    },
    /// The connection broke.
    #[error("the connection broke during the login: {0}")]
    Transport(#[source] Box<tungstenite::Error>),
}

impl LoginError {
    fn closed(frame: Option<CloseFrame>) -> Self {
        let Some(frame) = frame else { return Self::Closed { code: None, reason: String::new() } };
        let (code, reason) = (u16::from(frame.code), frame.reason.as_str().to_owned());
        if code == REFUSED {
            Self::Refused { reason }
        } else {
            Self::Closed { code: Some(code), reason }
        }
    }

    /// Whether a person has to change something before it can work, here or at the relay.
    pub(super) fn needs_attention(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::OtherRelay { .. }
            | Self::NoRelayName
            | Self::Nonce
            | Self::Unexpected { .. } => true,
            Self::Closed { .. } | Self::Transport(_) => false,
        }
    }
}

impl From<tungstenite::Error> for LoginError {
    fn from(error: tungstenite::Error) -> Self {
        Self::Transport(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, SigningKey};

    use super::*;
    use crate::ids::NodeId;

    const NONCE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn options() -> Options {
        let node = NodeId::new(4242).unwrap();
        Options::new("wss://relay.example.net", node, SigningKey::from_bytes(&[7; 32]))
    }

    fn challenge(relay: Option<&str>) -> Challenge {
        let relay = relay.map(str::to_owned);
        Challenge { nonce: NONCE.to_owned(), ts: 1_767_225_600, relay }
    }

    /// Replies to `challenge` after dialling relay.example.net; checks what was signed.
    fn generation(options: &Options, challenge: &Challenge) -> Result<Generation, LoginError> {
        let reply = reply(options, "relay.example.net", &challenge.encode())?;
        let reply = Reply::decode(reply.as_bytes()).unwrap();
        let generation = if reply.generation.is_some() {
            assert_eq!(reply.generation, Some(3));
            Generation::Third
        } else {
            Generation::Second
        };
        let text = challenge.signed_text(options.node, generation);
        let signature = Signature::from_bytes(&reply.signature);
        options.key.verifying_key().verify_strict(text.as_bytes(), &signature).unwrap();
        Ok(generation)
    }

    #[test]
    fn relay_that_names_itself_gets_the_third_generation() {
        let options = options();
        for name in ["relay.example.net", "Relay.EXAMPLE.net"] {
            let generation = generation(&options, &challenge(Some(name))).unwrap();
            assert_eq!(generation, Generation::Third, "{name}");
        }
    }

    #[test]
    fn relay_name_of_the_options_counts_as_well() {
        let options = Options { relay_name: Some("public.example.net".to_owned()), ..options() };
        let challenge = challenge(Some("public.example.net"));
        assert_eq!(generation(&options, &challenge).unwrap(), Generation::Third);
    }

    #[test]
    fn relay_without_a_name_gets_the_second_generation_unless_a_name_is_required() {
        let options = options();
        assert_eq!(generation(&options, &challenge(None)).unwrap(), Generation::Second);
        let strict = Options { require_relay_name: true, ..options };
        let refused = generation(&strict, &challenge(None));
        assert!(matches!(refused, Err(LoginError::NoRelayName)));
    }

    #[test]
    fn challenge_of_another_relay_is_not_signed() {
        for name in ["other.example.net", "", "relay.example.net:8443", "relay.example.ne"] {
            let refused = generation(&options(), &challenge(Some(name)));
            assert!(matches!(refused, Err(LoginError::OtherRelay { .. })), "{name}");
        }
    }

    #[test]
    fn nonce_that_hides_another_relays_name_is_not_signed() {
        let nonces = [format!("other.example.net:{NONCE}"), NONCE[..62].to_owned(), "g".repeat(64)];
        for nonce in nonces {
            let hidden = Challenge { nonce, ..challenge(None) };
            let refused = generation(&options(), &hidden);
            assert!(matches!(refused, Err(LoginError::Nonce)), "{}", hidden.nonce);
        }
    }

    #[test]
    fn what_is_no_challenge_is_not_answered() {
        for text in ["", "{}", r#"{"type":"auth_ok"}"#] {
            let refused = reply(&options(), "relay.example.net", text);
            assert!(matches!(refused, Err(LoginError::Unexpected { .. })), "{text}");
        }
    }
}

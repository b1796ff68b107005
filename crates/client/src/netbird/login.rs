//! The login: one message with a token, and where the relay is in answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::carrier::Carrier;
use super::driven::Driven;
use super::error::ConnectError;
use super::options::{Credential, Options};
use crate::wire::netbird::{FromRelay, MAX_AUTH, auth};

/// How long a token of our own is good.
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);

/// Time for an answer, after which a login in a datagram is sent again: it may have been lost. A
/// relay passes over one that it did not need.
const ANSWER: Duration = Duration::from_secs(1);

/// HMAC-SHA256, the one kind of token.
const ALGORITHM: u8 = 1;

/// Makes a token of the relay's secret that is good up to `expiry`, in Unix seconds.
#[must_use]
pub fn token(secret: &str, expiry: u64) -> Vec<u8> {
    // Fewer digits than ten are no expiry.
    let signed = format!("{expiry:010}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &Sha256::digest(secret));
    let code = hmac::sign(&key, signed.as_bytes());
    [&[ALGORITHM], code.as_ref(), signed.as_bytes()].concat()
}

/// A session that begins.
pub(super) struct LoggedIn {
    pub(super) carrier: Carrier,
    pub(super) instance: String,
}

/// Logs in over a connection that has just been made.
pub(super) async fn log_in(
    mut carrier: Carrier,
    options: &Options,
) -> Result<LoggedIn, ConnectError> {
    let limit = options.timeouts.login;
    let late = |_| ConnectError::Dial(crate::ConnectError::Timeout { step: "the login", limit });
    let instance = timeout(limit, ask(&mut carrier, options)).await.map_err(late)??;
    Ok(LoggedIn { carrier, instance })
}

async fn ask(carrier: &mut Carrier, options: &Options) -> Result<String, ConnectError> {
    let token = match &options.credential {
        Credential::Token(token) => token.clone(),
        Credential::Secret(secret) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            token(secret, (now + TOKEN_LIFE).as_secs())
        }
    };
    let message = auth(options.peer, &token);
    if message.len() > MAX_AUTH {
        return Err(ConnectError::Token { bytes: token.len() });
    }
    let message = Bytes::from(message);
    carrier.feed(message.clone())?;
    let mut is_flushing = true;
    loop {
        let Ok(driven) = timeout(ANSWER, carrier.drive(true, is_flushing)).await else {
            if carrier.may_lose() {
                carrier.feed(message.clone())?;
                is_flushing = true;
            }
            continue;
        };
        match driven {
            Ok(Driven::Flushed) => is_flushing = false,
            Ok(Driven::Nothing) => {}
            Ok(Driven::Message(message)) => {
                return match FromRelay::decode(&message) {
                    Ok(FromRelay::AuthResponse(instance)) => Ok(instance.to_owned()),
                    Ok(FromRelay::Close) => Err(ConnectError::Refused),
                    Ok(FromRelay::Transport { .. }) => {
                        Err(ConnectError::Unexpected { what: "a packet before its acceptance" })
                    }
                    Ok(
                        FromRelay::HealthCheck
                        | FromRelay::PeersOnline(_)
                        | FromRelay::PeersWentOffline(_),
                    )
                    | Err(_) => {
                        Err(ConnectError::Unexpected { what: "something else than an acceptance" })
                    }
                };
            }
            // No relay says why.
            Ok(Driven::Ended(_)) => return Err(ConnectError::Refused),
            Err(error) if error.is_end() => return Err(ConnectError::Refused),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_of_a_secret_is_the_one_that_was_recorded() {
        let hex: String = token("s3cret", 1_795_884_421)
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(
            hex,
            "012367bb929e4c1b2eb62de2005110fdd01da3c831974adb39e98b36464249ee39\
             31373935383834343231"
        );
        assert_eq!(token("s3cret", 7)[33..], *b"0000000007");
    }
}

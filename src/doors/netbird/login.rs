//! Tokens: who may come in.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::config::{Config, Secret};
use crate::wire::netbird::Token;

/// What the login of all clients is judged by.
pub(super) struct Login {
    /// The keys of tokens: the SHA-256 of each secret.
    keys: Vec<[u8; 32]>,
    /// What clients are told who may come in: where the relay is.
    pub(super) instance: String,
    /// What the relay's own client makes its token of.
    pub(super) secret: Option<Secret>,
}

impl Login {
    /// By these settings; nobody may come in where they have no secret.
    pub(super) fn new(config: &Config) -> Self {
        let secrets = config.netbird.iter().flat_map(|netbird| &netbird.secrets);
        let key = |secret: &Secret| Sha256::digest(secret.expose()).into();
        Self {
            keys: secrets.clone().map(key).collect(),
            instance: config.netbird_instance().unwrap_or_default(),
            secret: secrets.clone().next().cloned(),
        }
    }

    /// Whether a token is of one of the secrets, and still good at `now`, in Unix seconds.
    pub(super) fn admits(&self, token: &Token<'_>, now: u64) -> bool {
        let is_of = |key: &[u8; 32]| {
            let mac = Hmac::<Sha256>::new_from_slice(key);
            let mac = mac.expect("HMAC takes a key of any length").chain_update(token.signed);
            mac.verify_slice(token.code).is_ok()
        };
        now <= token.expiry && self.keys.iter().any(is_of)
    }
}

/// Unix time, in seconds.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded: bob's token under the secret `s3cret`, good until [`EXPIRY`].
    const CODE: [u8; 32] = [
        0x23, 0x67, 0xbb, 0x92, 0x9e, 0x4c, 0x1b, 0x2e, 0xb6, 0x2d, 0xe2, 0x00, 0x51, 0x10, 0xfd,
        0xd0, 0x1d, 0xa3, 0xc8, 0x31, 0x97, 0x4a, 0xdb, 0x39, 0xe9, 0x8b, 0x36, 0x46, 0x42, 0x49,
        0xee, 0x39,
    ];
    const EXPIRY: u64 = 1_795_884_421;

    fn login(secrets: &[&str]) -> Login {
        let keys = secrets.iter().map(|secret| Sha256::digest(secret).into()).collect();
        Login { keys, instance: String::new(), secret: None }
    }

    #[test]
    fn recorded_token_is_good_up_to_its_last_second_under_its_secret_alone() {
        let token = Token { code: &CODE, signed: b"1795884421", expiry: EXPIRY };
        let rotated = login(&["newer", "s3cret"]);
        assert!(rotated.admits(&token, 0) && rotated.admits(&token, EXPIRY));
        assert!(!rotated.admits(&token, EXPIRY + 1));
        assert!(!login(&["newer"]).admits(&token, EXPIRY));
        assert!(!login(&[]).admits(&token, EXPIRY));
        let later = Token { signed: b"1795884422", expiry: EXPIRY + 1, ..token };
        assert!(!rotated.admits(&later, EXPIRY), "only what is signed counts");
    }
}

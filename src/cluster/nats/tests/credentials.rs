//! A server whose users are those of an operator's accounts: the relay logs in with a
//! credentials file, as NATS' own tools write it.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use super::{HOUR, NAME, Relay, Settings, id};
use crate::net::nats::testing::Server;

const OPERATOR: u8 = 14 << 3;
const ACCOUNT: u8 = 0;
const USER: u8 = 20 << 3;
const SEED: u8 = 18 << 3;

/// A key with its role in NATS.
struct Key {
    role: u8,
    key: SigningKey,
}

impl Key {
    fn new(role: u8, number: u8) -> Self {
        Self { role, key: SigningKey::from_bytes(&[number; 32]) }
    }

    fn public(&self) -> String {
        encoded(&[&[self.role][..], self.key.verifying_key().as_bytes()].concat())
    }

    fn seed(&self) -> String {
        let prefix = [SEED | self.role >> 5, (self.role & 31) << 3];
        encoded(&[&prefix[..], self.key.as_bytes()].concat())
    }

    /// What this key says about `subject`.
    fn sign(&self, subject: &Self, about: &Value) -> String {
        let claims = json!({
            "iat": 1_700_000_000, "iss": self.public(), "sub": subject.public(),
            "name": "test", "nats": about,
        });
        let [header, claims] = [json!({"typ": "JWT", "alg": "ed25519-nkey"}), claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signature = self.key.sign(format!("{header}.{claims}").as_bytes()).to_bytes();
        format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Base32 of the bytes and of their CRC-16.
fn encoded(bytes: &[u8]) -> String {
    let crc = bytes.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    });
    let bytes = [bytes, &crc.to_le_bytes()].concat();
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let digit = |at: usize| (0..5).fold(0, |digit, i| digit << 1 | usize::from(bit(at * 5 + i)));
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    (0..(bytes.len() * 8).div_ceil(5)).map(|at| char::from(digits[digit(at)])).collect()
}

fn credentials(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_log_in_with_credentials_files() {
    let (operator, account) = (Key::new(OPERATOR, 101), Key::new(ACCOUNT, 102));
    let of_operator = operator.sign(&operator, &json!({"type": "operator", "version": 2}));
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
        "wildcards": true, "conn": -1, "leaf": -1,
    });
    let about_account = json!({"type": "account", "version": 2, "limits": limits});
    let of_account = operator.sign(&account, &about_account);
    let server = Server::start(&format!(
        "operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {}: {of_account} }}",
        account.public()
    ))
    .await;
    let folder = tempfile::tempdir().unwrap();

    let relays = [1, 2].map(|number| {
        let (user, relay) = (Key::new(USER, number), id(number));
        let about_user = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": {"allow": [format!("{NAME}.to.*.from.{relay}"), format!("{NAME}.alive.from.{relay}")]},
            "sub": {"allow": [format!("{NAME}.to.{relay}.from.*"), format!("{NAME}.alive.from.*")]},
        });
        let path = folder.path().join(format!("{number}.creds"));
        fs::write(&path, credentials(&account.sign(&user, &about_user), &user.seed())).unwrap();
        let settings = Settings { url: server.url(), credentials: Some(path) };
        Relay::start_with(number, &settings, HOUR)
    });

    for relay in &relays {
        relay.until_members(1).await;
    }
    let stranger = async_nats::connect(server.url()).await;
    assert!(stranger.is_err(), "the server asks nobody for credentials");
}

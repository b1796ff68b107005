//! Messages of the login: each that decodes comes back, and is checked without a panic.

use beacon_proto::login::{self, MAX_CHALLENGE_AGE_S};
use beacon_wire::auth::{Challenge, Control, Generation, Reply};

/// Takes one text frame, in each of its meanings.
///
/// # Panics
/// Where a message that decodes does not come back.
pub fn run(input: &[u8]) {
    let _control = Control::decode(input);
    let challenge = std::str::from_utf8(input).ok().and_then(|text| Challenge::decode(text).ok());
    if let Some(challenge) = challenge {
        let again = Challenge::decode(&challenge.encode()).expect("a challenge of our own");
        assert_eq!(again, challenge);
    }
    let Ok(reply) = Reply::decode(input) else { return };
    let again = Reply::decode(reply.encode().as_bytes()).expect("a reply of our own");
    assert_eq!(again, reply);

    let challenge = Challenge { nonce: "ab".repeat(32), ts: 1_000, relay: None };
    let check = |now| login::check(&challenge, &reply, &reply.public_key, Generation::First, now);
    let _accepted = check(challenge.ts);
    assert!(check(challenge.ts + MAX_CHALLENGE_AGE_S + 1).is_err(), "accepted when it is too old");
}

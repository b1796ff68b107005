//! Whether a daemon is who it says it is (SPEC §4).

use beacon_wire::auth::{Challenge, Generation, Reply};
use beacon_wire::ids::{NodeId, PublicKey};
use ed25519_dalek::{Signature, VerifyingKey};

/// A challenge is too old to be answered after this time, in seconds.
pub const MAX_CHALLENGE_AGE_S: u64 = 30;

/// Why a login is refused: by [`check`], or before it by who reads the reply and looks the key
/// up. None of it reaches the daemon: all refusals look alike.
///
/// Exhaustive: the relay counts each of them under a word, and shall not build without one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RefusalReason {
    /// The reply is not one as the specification has it.
    #[error("the reply is malformed")]
    Malformed,
    /// The directory does not know the node.
    #[error("the directory does not know the node")]
    UnknownNode,
    /// The key of the reply is not the one that the directory holds.
    #[error("the reply shows another key than the directory")]
    OtherKey,
    /// The directory's key is no point of the curve.
    #[error("the directory's key is no Ed25519 key")]
    UnusableKey,
    /// The signature is that of a generation which is refused here, or no signature of the
    /// key over any of the texts.
    #[error("the signature does not hold")]
    Signature,
    /// The challenge is too old.
    #[error("the challenge is too old")]
    Stale,
}

/// Checks a reply against the key that the directory holds for its node.
///
/// Returns the generation of the text that was signed.
///
/// # Errors
/// Why the login is refused.
pub fn check(
    challenge: &Challenge,
    reply: &Reply,
    key: &PublicKey,
    min_generation: Generation,
    now_unix_s: u64,
) -> Result<Generation, RefusalReason> {
    if now_unix_s.saturating_sub(challenge.ts) > MAX_CHALLENGE_AGE_S {
        return Err(RefusalReason::Stale);
    }
    if reply.public_key != *key {
        return Err(RefusalReason::OtherKey);
    }
    let verifying = VerifyingKey::from_bytes(&key.0).map_err(|_| RefusalReason::UnusableKey)?;
    let signature = Signature::from_bytes(&reply.signature);
    candidates(challenge, reply)
        .iter()
        .filter(|generation| **generation >= min_generation)
        .find(|generation| {
            let text = challenge.signed_text(reply.node, **generation);
            verifying.verify_strict(text.as_bytes(), &signature).is_ok()
        })
        .copied()
        .ok_or(RefusalReason::Signature)
}

/// The generations that a reply may be of, the likeliest first.
fn candidates(challenge: &Challenge, reply: &Reply) -> &'static [Generation] {
    match reply.generation {
        Some(3) if challenge.relay.is_some() => &[Generation::Third],
        Some(3) => &[],
        // Deployed daemons name no generation; what another number means is not known here,
        // so the signature decides.
        Some(_) | None => &[Generation::Second, Generation::First],
    }
}

/// Whether a punch grant carries its target's signature (SPEC §2.4); the expiry is the
/// caller's to check.
#[must_use]
pub fn grant_holds(
    requester: NodeId,
    target: NodeId,
    grant: &beacon_wire::beacon::Grant,
    target_key: &PublicKey,
) -> bool {
    let text = beacon_wire::beacon::Grant::signed_text(requester, target, grant.expiry);
    VerifyingKey::from_bytes(&target_key.0).is_ok_and(|key| {
        key.verify_strict(text.as_bytes(), &Signature::from_bytes(&grant.signature)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use beacon_wire::auth::MaxMessage;
    use beacon_wire::beacon::Grant;
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    const NOW: u64 = 1_767_225_600;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn public() -> PublicKey {
        PublicKey(key().verifying_key().to_bytes())
    }

    fn challenge(relay: Option<&str>) -> Challenge {
        Challenge { nonce: "ab".repeat(32), ts: NOW, relay: relay.map(str::to_owned) }
    }

    fn reply(challenge: &Challenge, generation: Generation) -> Reply {
        let node = NodeId::new(4242).unwrap();
        let text = challenge.signed_text(node, generation);
        Reply {
            node,
            public_key: public(),
            signature: key().sign(text.as_bytes()).to_bytes(),
            generation: (generation == Generation::Third).then_some(3),
            max_message: MaxMessage::LEAST,
        }
    }

    fn outcome(
        relay: Option<&str>,
        generation: Generation,
        min: Generation,
    ) -> Result<Generation, RefusalReason> {
        let challenge = challenge(relay);
        check(&challenge, &reply(&challenge, generation), &public(), min, NOW)
    }

    #[test]
    fn spec_4_3_all_generations_log_in_by_default() {
        for generation in [Generation::First, Generation::Second, Generation::Third] {
            let outcome = outcome(Some("relay.example.net"), generation, Generation::First);
            assert_eq!(outcome, Ok(generation));
        }
    }

    #[test]
    fn spec_4_3_minimum_refuses_the_earlier_generations() {
        let relay = Some("relay.example.net");
        let refused = Err(RefusalReason::Signature);
        assert_eq!(outcome(relay, Generation::First, Generation::Second), refused);
        assert_eq!(outcome(relay, Generation::Second, Generation::Second), Ok(Generation::Second));
        assert_eq!(outcome(relay, Generation::Second, Generation::Third), refused);
        assert_eq!(outcome(relay, Generation::Third, Generation::Third), Ok(Generation::Third));
    }

    #[test]
    fn spec_4_3_signature_for_another_relay_is_refused() {
        let theirs = challenge(Some("rogue.example.net"));
        let ours = challenge(Some("relay.example.net"));
        let passed_on = reply(&theirs, Generation::Third);
        let outcome = check(&ours, &passed_on, &public(), Generation::First, NOW);
        assert_eq!(outcome, Err(RefusalReason::Signature));
    }

    #[test]
    fn spec_4_3_third_generation_needs_a_relay_with_a_name() {
        let refused = outcome(None, Generation::Third, Generation::First);
        assert_eq!(refused, Err(RefusalReason::Signature));
    }

    #[test]
    fn key_of_the_directory_counts_and_not_that_of_the_reply() {
        let challenge = challenge(None);
        let other = PublicKey(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
        let reply = reply(&challenge, Generation::Second);
        let outcome = check(&challenge, &reply, &other, Generation::First, NOW);
        assert_eq!(outcome, Err(RefusalReason::OtherKey));
    }

    #[test]
    fn challenge_older_than_thirty_seconds_is_refused() {
        let challenge = challenge(None);
        let reply = reply(&challenge, Generation::Second);
        let check = |now| check(&challenge, &reply, &public(), Generation::First, now);
        assert_eq!(check(NOW + 30), Ok(Generation::Second));
        assert_eq!(check(NOW + 31), Err(RefusalReason::Stale));
        assert_eq!(check(NOW - 5), Ok(Generation::Second), "a clock that was set back");
    }

    #[test]
    fn small_order_key_and_non_canonical_signature_are_refused() {
        let challenge = challenge(None);
        let mut reply = reply(&challenge, Generation::Second);
        // S plus the group order verifies under lax rules; its top bits are beyond L here.
        reply.signature[63] |= 0x10;
        let refused = check(&challenge, &reply, &public(), Generation::First, NOW);
        assert_eq!(refused, Err(RefusalReason::Signature));

        // The neutral element signs everything with R = neutral, S = 0 under lax rules.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        reply.public_key = PublicKey(neutral);
        reply.signature = [0; 64];
        reply.signature[0] = 1;
        let refused = check(&challenge, &reply, &PublicKey(neutral), Generation::First, NOW);
        assert_eq!(refused, Err(RefusalReason::Signature));

        let none = PublicKey([0xff; 32]);
        reply.public_key = none;
        let refused = check(&challenge, &reply, &none, Generation::First, NOW);
        assert!(matches!(refused, Err(RefusalReason::UnusableKey | RefusalReason::Signature)));
    }

    #[test]
    fn grant_holds_only_for_its_two_nodes_and_its_expiry() {
        let (a, b) = (NodeId::new(9201).unwrap(), NodeId::new(9202).unwrap());
        let text = Grant::signed_text(a, b, NOW);
        let mut grant = Grant { expiry: NOW, signature: key().sign(text.as_bytes()).to_bytes() };
        assert!(grant_holds(a, b, &grant, &public()));
        assert!(!grant_holds(b, a, &grant, &public()));
        grant.expiry += 1;
        assert!(!grant_holds(a, b, &grant, &public()));
    }
}

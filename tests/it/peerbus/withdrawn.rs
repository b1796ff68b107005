//! Sessions whose token or name is taken away while they last.

use super::{Adapter, Site, envelope, register, write_secret};
use crate::control::say;
use crate::harness::{PATIENCE, look_until};

/// What a peer is told that has no right to its name any more: as one that comes with a bad token.
const WITHDRAWN: (u16, &str) = (1008, "invalid bearer token");

const ENDED: &str = "pilot_beacon_wss_sessions_ended_total{reason=\"key_withdrawn\"}";

impl Site {
    /// Has the relay read another tokens file.
    fn give_tokens(&self, tokens: &str) {
        write_secret(&self.folder.path().join("tokens"), tokens);
        say(&self.relay, &["reload"]);
    }
}

/// The close that a session ends with, and the keys of what was delivered before.
fn end(adapter: &mut Adapter) -> (Vec<String>, (u16, String)) {
    let mut keys = Vec::new();
    loop {
        match adapter.read().expect("a session ends with a close") {
            (8, payload) => {
                let (code, reason) = payload.split_first_chunk().unwrap();
                let reason = String::from_utf8(reason.to_vec()).unwrap();
                return (keys, (u16::from_be_bytes(*code), reason));
            }
            (_, text) => {
                let message: serde_json::Value = serde_json::from_slice(&text).unwrap();
                keys.extend(message["delivery_key"].as_str().map(str::to_owned));
            }
        }
    }
}

fn assert_withdrawn(adapter: &mut Adapter) {
    let (_, (code, reason)) = end(adapter);
    assert_eq!((code, &*reason), WITHDRAWN);
}

#[test]
fn sessions_of_a_token_that_is_removed_end_and_others_stay() {
    let site = Site::with_tokens("tok\nteam tok-B\nteam=ops-* tok-C\n", &[]);
    let (mut alice, _) = site.register_with("tok", "alice");
    let (mut second, _) = site.register_with("tok", "second");
    let (mut bob, _) = site.register_with("tok-B", "bob");
    let (mut ops, _) = site.register_with("tok-C", "ops-1");

    // The token of the team is another: its sessions are the team's as before.
    site.give_tokens("team tok-D\nteam=ops-* tok-C\n");

    assert_withdrawn(&mut alice);
    assert_withdrawn(&mut second);
    site.relay.wait_for_metric(ENDED, 2.0);
    bob.say(&envelope("m1", "bob", "ops-1", 1));
    assert_eq!(ops.delivery().0, "m1");
    assert_eq!(site.refused("tok", "alice"), (WITHDRAWN.0, WITHDRAWN.1.to_owned()));
    let (mut bob, _) = site.register_with("tok-D", "bob");

    // Of the team nothing is left but names that are not bob's.
    site.give_tokens("team=ops-* tok-C\n");
    ops.say(&envelope("m2", "ops-1", "ops-1", 2));
    assert_eq!(ops.delivery().0, "m2");
    assert_withdrawn(&mut bob);
    site.relay.wait_for_metric(ENDED, 3.0);
}

#[test]
fn name_that_another_lines_token_gets_is_taken_from_the_session_that_had_it() {
    let site = Site::with_tokens("tok\ntok-B\n", &[]);
    let (mut alice, _) = site.register_with("tok", "alice");
    let (mut bob, _) = site.register_with("tok", "bob");

    site.give_tokens("tok\nreview=alice tok-B\n");

    assert_withdrawn(&mut alice);
    bob.say(&envelope("m1", "bob", "bob", 1));
    assert_eq!(bob.delivery().0, "m1");
}

/// Gives alice's name to another while she has messages, and returns the site and both of them.
fn bound_to_another(words: &[&str]) -> (Site, Adapter, Adapter) {
    let site = Site::with_tokens("team tok\nother tok-B\n", &[]);
    let (mut alice, _) = site.register_with("tok", "alice");
    let (mut bob, _) = site.register_with("tok", "bob");
    bob.say(&envelope("m1", "bob", "alice", 1));
    assert_eq!(alice.delivery().0, "m1");

    say(&site.relay, words);
    // As much as it wants: it is not its message any more.
    alice.acknowledge("m1");
    bob.say(&envelope("m2", "bob", "alice", 2));
    bob.settle();
    (site, alice, bob)
}

#[test]
fn session_whose_name_is_bound_to_another_ends_and_neither_acknowledges_nor_receives() {
    let (site, mut alice, _bob) = bound_to_another(&["names", "bind", "alice", "other"]);

    let (keys, (code, reason)) = end(&mut alice);
    assert_eq!((code, &*reason), WITHDRAWN);
    assert!(keys.is_empty(), "{keys:?}");
    site.relay.wait_for_metric(ENDED, 1.0);
    let claimed = (1008, "name claimed under a different token".to_owned());
    assert_eq!(site.refused("tok", "alice"), claimed);
    let mut owner = None;
    // The old session is in its last moments.
    look_until(std::time::Instant::now() + PATIENCE, || {
        let mut adapter = Adapter::connect(site.address);
        adapter.say(&register("tok-B", "alice"));
        let (opcode, _) = adapter.read()?;
        (opcode == 1).then(|| owner = Some(adapter))
    });
    let mut owner = owner.unwrap();
    assert_eq!(owner.delivery(), ("m1".to_owned(), 1.into()));
    assert_eq!(owner.delivery(), ("m2".to_owned(), 2.into()));
}

#[test]
fn session_whose_name_is_released_ends_and_the_name_is_whose_comes_next() {
    let (site, mut alice, _bob) = bound_to_another(&["names", "release", "alice"]);

    let (keys, (code, reason)) = end(&mut alice);
    assert_eq!((code, &*reason), WITHDRAWN);
    assert!(keys.is_empty(), "{keys:?}");
    drop(alice);
    let (mut again, _) = site.register_with("tok", "alice");
    assert_eq!(again.delivery().0, "m1");
}

#[test]
fn name_that_is_bound_to_its_owner_stays_with_its_session() {
    let site = Site::with_tokens("team tok\nother tok-B\n", &[]);
    let (mut alice, _) = site.register_with("tok", "alice");

    say(&site.relay, &["names", "bind", "alice", "team"]);

    alice.say(&envelope("m1", "alice", "alice", 1));
    assert_eq!(alice.delivery().0, "m1");
}

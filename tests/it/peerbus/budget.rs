//! What one credential takes of the relay, however many names it has.

use super::{Adapter, Site, envelope, register};
use crate::control::ask;

/// A peer that asks for receipts.
fn with_receipts(site: &Site, token: &str, name: &str) -> Adapter {
    let mut adapter = Adapter::connect(site.address);
    let mut asks = register(token, name);
    asks["receipts"] = true.into();
    adapter.say(&asks);
    adapter.names();
    adapter
}

/// What the next receipt says of a message.
fn receipt(adapter: &mut Adapter, id: &str) -> (String, String) {
    loop {
        let message = adapter.message();
        if message["type"] == "receipt" && message["id"] == id {
            let text = |member: &str| message[member].as_str().unwrap().to_owned();
            return (text("result"), text("reason"));
        }
    }
}

fn told(result: &str, reason: &str) -> (String, String) {
    (result.to_owned(), reason.to_owned())
}

#[test]
fn one_credential_of_several_has_half_of_the_sessions_and_others_come_in() {
    let site = Site::start(&["--max-peers=8"]);
    let mut first: Vec<_> =
        (0..4).map(|number| site.register(&format!("agent-{number}")).0).collect();

    let too_many = (1013, "too many sessions of this token".to_owned());
    for number in 4..20 {
        assert_eq!(site.refused("tok", &format!("agent-{number}")), too_many);
    }
    assert_eq!(ask(&site.relay, &["names"])["total"], 4, "none of them has a name");
    // One that comes back while its old connection is there is no further session.
    let (_again, _) = site.register("agent-3");
    assert!(first.pop().unwrap().read().is_none());
    let others: Vec<_> =
        (0..4).map(|number| site.register_with("tok-B", &format!("other-{number}")).0).collect();
    drop(first);
    drop(others);
    site.relay.wait_for_metric("beacon_relay_peerbus_peers", 1.0);
    site.register("agent-4");
    site.relay.wait_for_metric("beacon_relay_peerbus_refused_total{reason=\"too_many\"}", 16.0);
}

#[test]
fn receipt_of_a_broadcast_says_when_nobody_gets_it() {
    let site = Site::start(&[]);
    let mut bob = with_receipts(&site, "tok", "bob");
    bob.say(&envelope("b1", "bob", "*", 1));
    assert_eq!(receipt(&mut bob, "b1"), told("refused", "no_recipients"));

    let (mut alice, _) = site.register("alice");
    // It was not sent: the same id is no duplicate.
    bob.say(&envelope("b1", "bob", "*", 1));
    assert_eq!(receipt(&mut bob, "b1"), told("stored", ""));
    assert_eq!(alice.delivery().0, "b1|alice");
    bob.say(&envelope("b1", "bob", "*", 1));
    assert_eq!(receipt(&mut bob, "b1"), told("duplicate", ""));
}

#[test]
fn receipt_of_a_broadcast_says_how_many_get_it_where_some_mailboxes_are_full() {
    let site = Site::start(&["--bus-quota-messages=1"]);
    let mut bob = with_receipts(&site, "tok", "bob");
    let (full, _) = site.register("full");
    bob.say(&envelope("b1", "bob", "*", 1));
    assert_eq!(receipt(&mut bob, "b1"), told("stored", ""));
    bob.say(&envelope("b2", "bob", "*", 2));
    assert_eq!(receipt(&mut bob, "b2"), told("refused", "recipients_full"));

    let (mut alice, _) = site.register("alice");
    bob.say(&envelope("b2", "bob", "*", 2));
    assert_eq!(receipt(&mut bob, "b2"), told("stored", "1 of 2"));
    assert_eq!(alice.delivery().0, "b2|alice");
    drop(full);
}

/// Each broadcast is as many messages as there are peers, and each may have thousands of names.
#[test]
fn broadcasts_of_a_credential_are_bounded_whichever_of_its_names_send_them() {
    /// A copy of it counts as 129.
    const BYTES: usize = 128 * 4_096;
    let site = Site::start(&["--bus-quota-messages=2"]);
    let _full: Vec<_> = (0..298).map(|n| site.register_with("tok-B", &format!("p{n}")).0).collect();
    let mut senders = ["bob", "carol"].map(|name| (name, with_receipts(&site, "tok", name)));
    let mut other = with_receipts(&site, "tok-B", "other");
    let body = "x".repeat(BYTES);
    let mut ids = 0..;
    let mut send = |(name, sender): &mut (&str, Adapter)| {
        let id = format!("b{}", ids.next().unwrap());
        sender.say(&envelope(&id, name, "*", &*body));
        receipt(sender, &id)
    };

    // Of 38,700 copies each: two at once, and one in four seconds, which no machine needs for one.
    let mut sent = 0;
    while send(&mut senders[sent % 2]) != told("refused", "broadcast_rate") {
        sent += 1;
        assert!(sent < 100, "all were taken");
    }

    assert!(sent >= 2, "{sent}");
    other.say(&envelope("o1", "other", "*", 1));
    assert_ne!(receipt(&mut other, "o1").1, "broadcast_rate", "it is another's budget");
    site.wait_for_dropped("broadcast_rate", 1);
    let [(_, bob), _] = &mut senders;
    bob.say(&envelope("m1", "bob", "carol", 1));
    assert_ne!(receipt(bob, "m1").1, "broadcast_rate", "it is no broadcast");
}

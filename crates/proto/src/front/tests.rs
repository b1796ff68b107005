//! What a leader decides about two sessions of a name.

use std::time::Instant;

use super::{Host, LinkId, Order, Output};
use crate::bus::MailboxId;
use beacon_wire::front::{Claimant, Message};

const MAILBOX: MailboxId = MailboxId(1);

/// A relay's session of the name opens, which is so old, as the generation that is next.
fn enter(host: &mut Host, relay: u64, age_ms: u32, generation: u64) -> Output {
    let link = LinkId(relay);
    let claimant = Claimant { realm: 1, owner: [1; 32], name: "alice" };
    let open = Message::Open { session: 1, age_ms, is_listening: true, claimant };
    let mut out = Output::default();
    host.link_up(link, &mut out);
    for message in [Message::Attach { epoch: host.epoch() }, open] {
        host.heard(link, &message, 0, Instant::now(), &mut out).unwrap();
    }
    let mut out = Output::default();
    host.entered(generation, Ok(MAILBOX), &mut out);
    out
}

/// The relays whose sessions are replaced.
fn replaced(out: &Output) -> Vec<u64> {
    let is_replace =
        |message: &[u8]| matches!(Message::parse(message), Ok(Message::Replace { .. }));
    let says = out.says.iter().filter(|(_, message)| is_replace(message));
    says.map(|(link, _)| link.0).collect()
}

#[test]
fn younger_session_takes_the_name_and_the_older_one_that_comes_late_does_not() {
    let mut host = Host::new(1);
    enter(&mut host, 1, 30_000, 1);
    let younger = enter(&mut host, 2, 0, 2);
    let oldest = enter(&mut host, 3, 60_000, 3);

    assert_eq!(replaced(&younger), [1]);
    assert!(younger.orders.iter().any(|order| matches!(order, Order::Open { generation: 2, .. })));
    assert_eq!(replaced(&oldest), [3]);
    assert!(oldest.orders.is_empty());
}

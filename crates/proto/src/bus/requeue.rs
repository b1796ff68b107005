//! Dead letters that are put back.

use std::sync::Arc;

use super::Bus;
use super::submit::{FreeKey, Posted, Refused, Submitted};
use super::turn::Turn;
use super::types::{
    Change, Digest, Event, EventKind, Found, MailboxId, Message, Millis, Named, Seq,
};

/// A dead letter of a mailbox.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The position that it had in its mailbox.
    pub seq: Seq,
    /// Since when it is a dead letter.
    pub at: Millis,
    /// What it is.
    pub message: Arc<Message>,
}

/// What became of a dead letter that was to wait again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Requeued {
    /// It waits, behind all that waited before, and is no dead letter any more.
    Waits,
    /// Its sender has sent it again, and that waits: it is no dead letter any more.
    Waited,
    /// It is a dead letter as before.
    Refused(Refused),
}

impl Bus {
    /// Puts a dead letter at the end of its mailbox, as a new message: its age and its deliveries
    /// count from now on.
    ///
    /// # Errors
    /// That of `find`; then nothing has changed.
    pub fn requeue<E>(
        &mut self,
        mailbox: MailboxId,
        letter: &Letter,
        now: Millis,
        turn: &mut Turn,
        mut find: impl FnMut(MailboxId, Digest) -> Result<Option<Found>, E>,
    ) -> Result<Requeued, E> {
        let Letter { seq, at, message } = letter;
        let Some(Named { realm, name, .. }) = self.mailboxes.get(&mailbox).map(|of| &of.named)
        else {
            return Ok(Requeued::Refused(Refused::UnknownRecipient));
        };
        let name = Arc::clone(name);
        let sender = self.names.get(&(*realm, Arc::clone(&message.from))).copied();
        let sender = sender.unwrap_or(mailbox);
        if self.is_full {
            return Ok(Requeued::Refused(Refused::StoreFull));
        }
        let key = self.free_key(mailbox, &message.key, message.origin, turn, &mut find)?;
        let requeued = match key {
            Ok(FreeKey { text, digests }) => {
                let message = Message { key: text, accepted: now, ..(**message).clone() };
                if !self.has_room(mailbox, &message) {
                    return Ok(Requeued::Refused(Refused::Quota));
                }
                Some(Posted { to: mailbox, digests, message })
            }
            Err(Submitted::Refused(refused)) => return Ok(Requeued::Refused(refused)),
            Err(_) => None,
        };
        turn.changes.push(Change::Requeue { mailbox, seq: *seq, at: *at });
        turn.events.push(Event {
            kind: EventKind::Requeue,
            key: Arc::clone(&message.key),
            from: name,
            to: "".into(),
        });
        let Some(posted) = requeued else { return Ok(Requeued::Waited) };
        // From now on its sender is told again that it has sent it.
        self.remembered.add(message.origin, sender);
        turn.origins.push(message.origin);
        self.append(sender, posted, now, turn);
        self.totals.requeued += 1;
        Ok(Requeued::Waits)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::super::{Effect, Limits, Owner, Recovered};
    use super::*;

    const NOW: Millis = Millis(9_000);

    fn letter(key: &str) -> Letter {
        let origin = Digest::of_origin("bob", key);
        let body = Arc::from(&b"body"[..]);
        let accepted = Millis(1_000);
        let message = Message { from: "bob".into(), key: key.into(), origin, accepted, body };
        Letter { seq: Seq(3), at: Millis(5_000), message: Arc::new(message) }
    }

    fn requeue(bus: &mut Bus, mailbox: MailboxId, letter: &Letter, turn: &mut Turn) -> Requeued {
        let find = |_, _| Ok::<_, Infallible>(None);
        let Ok(requeued) = bus.requeue(mailbox, letter, NOW, turn, find);
        requeued
    }

    fn bus(limits: Limits) -> (Bus, MailboxId, Turn) {
        let mut bus = Bus::new(limits, Recovered::default());
        let mut turn = Turn::default();
        let alice = bus.claim(9, "alice", Owner([1; 32]), NOW, &mut turn).unwrap();
        bus.finish(NOW, &mut turn);
        turn.clear();
        (bus, alice, turn)
    }

    #[test]
    fn dead_letter_is_delivered_as_a_new_message_and_gone_in_the_same_commit() {
        let (mut bus, alice, mut turn) = bus(Limits::default());
        bus.open(alice, 1, NOW, &mut turn);

        assert_eq!(requeue(&mut bus, alice, &letter("m1"), &mut turn), Requeued::Waits);
        bus.finish(NOW, &mut turn);

        let [
            Change::Requeue { mailbox, seq: Seq(3), at: Millis(5_000) },
            Change::Append { message, .. },
            ..,
        ] = &turn.changes[..]
        else {
            panic!("{:?}", turn.changes)
        };
        assert_eq!((*mailbox, message.accepted, &*message.key), (alice, NOW, "m1"));
        let kinds: Vec<_> = turn.events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Requeue, EventKind::Send, EventKind::Deliver]);
        assert!(matches!(turn.effects[..], [Effect::Deliver { generation: 1, .. }]));
        assert_eq!((bus.totals().requeued, bus.totals().waiting), (1, 1));
    }

    #[test]
    fn letter_that_is_put_back_twice_in_one_turn_waits_once() {
        let (mut bus, alice, mut turn) = bus(Limits::default());

        assert_eq!(requeue(&mut bus, alice, &letter("m1"), &mut turn), Requeued::Waits);
        assert_eq!(requeue(&mut bus, alice, &letter("m1"), &mut turn), Requeued::Waited);

        assert_eq!(bus.totals().waiting, 1);
    }

    #[test]
    fn letter_without_room_stays_one() {
        let (mut bus, alice, mut turn) = bus(Limits { quota_messages: 1, ..Limits::default() });

        assert_eq!(requeue(&mut bus, alice, &letter("m1"), &mut turn), Requeued::Waits);
        let changes = turn.changes.len();
        let second = requeue(&mut bus, alice, &letter("m2"), &mut turn);
        assert_eq!(second, Requeued::Refused(Refused::Quota));
        bus.set_full(true);
        let second = requeue(&mut bus, alice, &letter("m2"), &mut turn);
        assert_eq!(second, Requeued::Refused(Refused::StoreFull));

        assert_eq!(turn.changes.len(), changes);
    }
}

//! Rows are read as they were written, and nothing else is read.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::proto::bus::Change;
use crate::store::Commit;

fn message() -> impl Strategy<Value = Message> {
    (any::<String>(), any::<String>(), any::<[u8; 16]>(), any::<u64>(), vec(any::<u8>(), 0..300))
        .prop_map(|(from, key, origin, accepted, body)| Message {
            from: from.into(),
            key: key.into(),
            origin: Digest(origin),
            accepted: Millis(accepted),
            body: body.into(),
        })
}

/// What reads a value without its key.
type Reader = fn(&[u8]) -> Option<Malformed>;

/// Everything that reads a value.
const READERS: [Reader; 11] = [
    |value| read_name(b"\x01name", value).err(),
    |value| read_level(value).err(),
    |value| read_message(value).err(),
    |value| read_found(value).err(),
    |value| read_number::<u16>(value).err(),
    |value| read_accepted(value).err(),
    |value| read_letter(&[0; 24], value).err(),
    |value| read_audit(&[0; 8], value).err(),
    |value| read_commit(value).err(),
    |value| read_channel(&channel_key(MailboxId(1)), value).err(),
    |value| read_cursor(&cursor_key(MailboxId(1), MailboxId(2)), value).err(),
];

proptest! {
    #[test]
    fn rows_are_read_as_they_were_written(
        message in message(),
        numbers in any::<[u64; 5]>(),
        attempts in any::<u16>(),
        owner in any::<[u8; 32]>(),
        events in vec(vec(any::<u8>(), 0..60), 0..5),
    ) {
        let [a, b, c, d, e] = numbers;
        let named = Named {
            mailbox: MailboxId(a),
            realm: 3,
            name: message.from.clone(),
            owner: Owner(owner),
            seen: Millis(b),
        };
        prop_assert_eq!(
            read_name(&name_key(3, &named.name), &write_name(&named)),
            Ok(named.clone())
        );
        let level =
            Level { head: Seq(a), next: Seq(b), messages: c, bytes: d, oldest: Millis(e) };
        prop_assert_eq!(read_level(&write_level(&level)), Ok(level));
        prop_assert_eq!(read_message(&write_message(&message)), Ok(message.clone()));
        let found = Found { seq: Seq(a), origin: message.origin, cost: message.cost() };
        prop_assert_eq!(read_found(&write_found(found)), Ok(found));
        prop_assert_eq!(read_number::<u64>(&write_number(c)), Ok(c));
        let origins = vec![message.origin; usize::from(attempts % 9)];
        let accepted = vec![(c, Millis(a), origins.clone()), (d, Millis(b), Vec::new())];
        prop_assert_eq!(read_accepted(&write_accepted(&accepted)), Ok(accepted));
        let (mailbox, seq, key) = (MailboxId(a), Seq(b), message.origin);
        let state = ChannelState {
            channel: mailbox,
            realm: 4,
            name: named.name.clone(),
            head: Seq((b >> 1).min(c)),
            next: Seq((b >> 1).max(c)),
            bytes: d.min(e),
            end: d.max(e),
            oldest: Millis(b),
        };
        prop_assert_eq!(read_channel(&channel_key(mailbox), &write_channel(&state)), Ok(state.clone()));
        let cursor = Cursor { seq, offset: c, seen: Millis(d), attempts };
        prop_assert_eq!(
            read_cursor(&cursor_key(mailbox, MailboxId(c)), &write_cursor(&cursor)),
            Ok((mailbox, MailboxId(c), cursor))
        );
        let changes = vec![
            Change::Name(named.clone()),
            Change::Forget { realm: 7, name: named.name, mailbox },
            Change::Append { mailbox, seq, message: Arc::new(message.clone()) },
            Change::Remove { mailbox, seq, key },
            Change::Bury { mailbox, seq, key, cause: Cause::Attempts, at: Millis(c) },
            Change::Requeue { mailbox, seq, at: Millis(c) },
            Change::Attempt { mailbox, seq, attempts },
            Change::Level { mailbox, level },
            Change::Accepted { number: c, at: Millis(d), origins },
            Change::ForgetAccepted { before: e },
            Change::Channel(state.clone()),
            Change::DropChannel { channel: mailbox },
            Change::Record { channel: mailbox, seq, record: Arc::new(message.clone()) },
            Change::Trim { channel: mailbox, from: state.head, before: Seq(state.head.0 + 9) },
            Change::Cursor { channel: mailbox, peer: MailboxId(c), cursor: Some(cursor) },
            Change::Cursor { channel: mailbox, peer: MailboxId(c), cursor: None },
        ];
        let stored = Stored { seq: Seq(c), attempts, message: Arc::new(message.clone()) };
        let letter = DeadLetter { stored, cause: Cause::Attempts, at: Millis(b) };
        prop_assert_eq!(
            read_letter(
                &letter_key(MailboxId(a), Millis(b), Seq(c)),
                &write_letter(Cause::Attempts, attempts, &write_message(&message))
            ),
            Ok(letter)
        );
        let entries: Vec<_> = (a >> 1..)
            .zip(events)
            .map(|(seq, event)| AuditEntry { seq, at: Millis(b), hash: owner, event: event.into() })
            .collect();
        prop_assert_eq!(
            read_audit(&(a >> 1).to_be_bytes(), &write_audit(&entries)),
            Ok(entries.clone())
        );
        let commit = Commit { changes, audit: entries };
        let value = write_commit(d, &commit, vec![7; 9]);
        prop_assert_eq!(commit_number(&value), Ok(d));
        prop_assert_eq!(read_commit(&value), Ok(commit));
        prop_assert_eq!(
            read_head(&write_head(a, &message.body)),
            Ok((a, Box::from(&*message.body)))
        );
    }

    #[test]
    fn value_that_is_cut_or_longer_is_told(message in message(), cut in any::<prop::sample::Index>()) {
        let mut value = write_message(&message);
        let at = cut.index(value.len());
        prop_assert!(read_message(&value[..at]).is_err());
        value.push(0);
        prop_assert_eq!(read_message(&value), Err(Malformed::Long));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in vec(any::<u8>(), 0..120), ours: bool) {
        if let (true, Some(first)) = (ours, bytes.first_mut()) {
            *first = VERSION;
        }
        for reader in READERS {
            reader(&bytes);
        }
    }
}

#[test]
fn value_of_another_version_is_told_apart() {
    for reader in READERS {
        assert_eq!(reader(&[9, 1, 2, 3]), Some(Malformed::Version(9)));
    }
}

#[test]
fn count_that_no_value_can_hold_allocates_nothing() {
    let value = Value::of_at_least(0).number(1).number(u64::MAX >> 1).0;
    assert_eq!(read_commit(&value), Err(Malformed::Short));
    let entry = Value::of_at_least(0).number(1).number(1).number(1).number(u64::MAX >> 1).0;
    assert_eq!(read_accepted(&entry), Err(Malformed::Short));
    assert!(read_audit(&[0; 8], &value).is_err());
}

#[test]
fn keys_are_in_the_order_of_their_numbers() {
    let of = |mailbox, seq| message_key(MailboxId(mailbox), Seq(seq));
    assert!(of(1, 255) < of(1, 256) && of(1, u64::MAX) < of(2, 0));
    assert_eq!(key_numbers(&of(7, 9)), Ok([7, 9]));
    assert_eq!(key_numbers::<2>(&[0; 15]), Err(Malformed::Short));
    assert_eq!(shown(&[0, 0xab]), "00ab");
}

#[test]
fn key_of_a_digest_is_that_of_its_mailbox_alone() {
    let of = |mailbox| DigestKey::new(MailboxId(mailbox), Digest([7; 16])).as_ref().to_vec();
    let mailboxes = [0, 1, 1 << 31, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX];
    let keys: std::collections::BTreeSet<_> = mailboxes.into_iter().map(of).collect();
    assert_eq!(keys.len(), mailboxes.len());
    assert_eq!((of(u64::from(u32::MAX)).len(), of(1 << 32).len()), (20, 24));
}

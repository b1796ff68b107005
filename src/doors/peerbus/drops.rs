//! Why this door drops messages.

use super::REALM;
use crate::config::PEERBUS;
use crate::metrics::{Drop, Owner};
use crate::reasons;
use crate::wire::peerbus::DropReason;

/// Why messages of peers are not for the bus, beside what every door's are dropped for.
#[derive(Debug)]
pub struct PeerbusDrop;

reasons! {
    impl PeerbusDrop of Owner::Door(REALM, PEERBUS.name);

    MALFORMED = "malformed",
        "it is not one JSON object, or has members of another type",
        "the client's software; the session goes on, and nobody is told";
    NOT_TEXT = "not_text",
        "it is a message of bytes, after the first",
        "as `malformed`";
    NO_ID = "no_id",
        "it is a message without an id",
        "as `malformed`";
    LONG_ID = "long_id",
        "its id, or the key that it acknowledges, is longer than 1,024 bytes: each is kept in the \
         audit log three times",
        "as `malformed`";
    NO_RECIPIENT = "no_recipient",
        "it is a message to nobody",
        "as `malformed`";
    CONTRADICTION = "contradiction",
        "it is a broadcast to one peer, or to everybody and no broadcast",
        "as `malformed`";
    NOT_UTF8 = "not_utf8",
        "its body is not UTF-8, which ends the connection of many a client that gets it",
        "as `malformed`";
    NOT_THE_SENDER = "not_the_sender",
        "its `from` is not the name that its sender has registered",
        "the client's software, or somebody who means to be another";
    FORGED = "forged",
        "it is not signed with the secret of `--peerbus-hmac-secret-file`",
        "another secret at the sender; else a forgery";
    BROADCAST_RATE = "broadcast_rate",
        "broadcasts of its sender's credential were more than 10,000 copies a second: one copy for \
         each recipient, and as many for each 4,096 bytes",
        "fewer broadcasts, or messages to those whom they are for";
    TOO_LARGE_TO_DELIVER = "too_large_to_deliver",
        "what its recipient would get is longer than 1,048,576 bytes, at which clients end their \
         connection: its envelope, 72 bytes and its key, with `<`, `>` and `&` as six bytes",
        "send less in one message";
}

/// The row of a reason that shows when a message is read.
pub(super) const fn of_reading(reason: DropReason) -> Drop {
    match reason {
        DropReason::Malformed => PeerbusDrop::MALFORMED,
        DropReason::NoId => PeerbusDrop::NO_ID,
        DropReason::NoRecipient => PeerbusDrop::NO_RECIPIENT,
        DropReason::Contradiction => PeerbusDrop::CONTRADICTION,
        DropReason::NotUtf8 => PeerbusDrop::NOT_UTF8,
    }
}

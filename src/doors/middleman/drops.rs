//! Why this door drops messages.

use super::REALM;
use crate::config::MIDDLEMAN;
use crate::metrics::Owner;
use crate::reasons;

/// Why messages of peers go no further, beside what every door's are dropped for.
#[derive(Debug)]
pub struct MiddlemanDrop;

reasons! {
    impl MiddlemanDrop of Owner::Door(REALM, MIDDLEMAN.name);

    NOT_TEXT = "not_text",
        "it is a message of bytes; the session ends",
        "the client's software";
    MALFORMED = "malformed",
        "it does not follow the grammar; the session ends",
        "the client's software";
    NOT_TRUSTED = "not_trusted",
        "its sender is a client, and no service has allowed it (`Not trusted`)",
        "a service that sends EPUB, ESUB or EREQ for the topic, and is there; else a client that \
         means to do what it may not";
    NO_RESPONDER = "no_responder",
        "it is a request, and no service answers such (`No responder`)",
        "the service that sends EREQ for the topic is not there";
    NO_REQUEST = "no_request",
        "it is an answer to no request that its sender was asked, or one that has failed already \
         (`No client for request ID`)",
        "a service that answers twice, or after `--middleman-request-timeout`";
    NO_CONNECTION = "no_connection",
        "it sets the user of a connection that is not there",
        "nothing: the client has gone";
    TOO_LONG = "too_long",
        "its topic, user, or id of a request is longer than 255 bytes; its sender is told",
        "shorter ones";
    TOO_MANY = "too_many",
        "its sender, or all together, have as many subscriptions, grants or requests as the relay \
         keeps; its sender is told",
        "a client or service that never ends what it begins";
    TOO_LARGE_TO_DELIVER = "too_large_to_deliver",
        "with what the relay may add, 2,048 bytes, it is longer than `--middleman-max-message`; its \
         sender is told (`Too long`)",
        "send less in one message";
}

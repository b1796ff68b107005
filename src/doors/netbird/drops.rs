//! Why this door drops messages.

use super::REALM;
use crate::config::NETBIRD;
use crate::metrics::Owner;
use crate::reasons;

/// Why messages of clients are not passed on, beside what every door's are dropped for.
#[derive(Debug)]
pub struct NetbirdDrop;

reasons! {
    impl NetbirdDrop of Owner::Door(REALM, NETBIRD.name);

    MALFORMED = "malformed",
        "it is no message that clients send: of another version or type; the session ends",
        "a broken client, or none";
    WRONG_LENGTH = "wrong_length",
        "its body is of a length that its type does not have",
        "as `malformed`";
    SECOND_LOGIN = "second_login",
        "it is a login, after the one that was good",
        "as `malformed`";
    TOO_MANY_WATCHED = "too_many_watched",
        "it asks for news of more peers than one may: of those beyond it gets none",
        "a client of more than 10,000 peers, or a hostile one";
}

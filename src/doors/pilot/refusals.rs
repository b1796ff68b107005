//! The words that refused logins are counted under; the client is not told them.

use crate::proto::login::RefusalReason;
use crate::words;

words! {
    for RefusalReason {
        Malformed => "malformed",
        UnknownNode => "unknown_node",
        OtherKey => "other_key",
        UnusableKey => "unusable_key",
        Signature => "signature",
        Stale => "stale",
    }
}

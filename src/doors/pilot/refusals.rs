//! Why logins of nodes are refused.

use crate::proto::login::Refusal;
use crate::words;

words! {
    /// Why a login was refused; never told to the client.
    pub enum RefusalReason {
        /// Not a reply as the specification has it.
        Malformed => "malformed",
        /// The directory does not know the node.
        UnknownNode => "unknown_node",
        /// The reply shows another key than the directory.
        OtherKey => "other_key",
        /// The directory's key is no Ed25519 key.
        UnusableKey => "unusable_key",
        /// The signature does not hold.
        Signature => "signature",
        /// The challenge was too old.
        Stale => "stale",
    }
}

impl From<Refusal> for RefusalReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Stale => Self::Stale,
            Refusal::OtherKey => Self::OtherKey,
            Refusal::UnusableKey => Self::UnusableKey,
            Refusal::Signature => Self::Signature,
        }
    }
}

//! Why an action is not carried out.

use crate::wire::name::Name;

/// Why an action was not carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Nobody has the node here.
    #[error(
        "node {0} is neither connected nor known here; `beacon-relay explain {0}` says where it is"
    )]
    NotHere(Name),
    /// What was to be done has failed, for this reason.
    #[error("{0}")]
    Failed(String),
    /// It cannot be done now.
    #[error("{0}")]
    Unavailable(String),
    /// It would change something, and cannot be written down before.
    #[error("nothing was done, since --audit is required: {0}; make the audit log writable")]
    NotAudited(String),
    /// A bug of ours.
    #[error("a bug of the relay; please report it, with its log")]
    Internal,
}

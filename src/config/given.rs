//! What somebody said about one setting.

use std::fmt;

use super::Origin;

/// What was said last about one setting. Debugged, it does not say what, which can be secret.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) items: Vec<String>,
    pub(super) origin: Origin,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("origin", &self.origin).finish_non_exhaustive()
    }
}

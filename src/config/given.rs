//! What somebody said about one setting, and where settings stand.

use std::fmt;

use super::Origin;

/// What was said last about one setting. Debugged, it does not say what, which can be secret.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) items: Vec<String>,
    pub(super) origin: Origin,
}

/// Where settings stand: at the top, or in a table.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// What stands before their keys.
    pub(super) prefix: String,
    /// The place of what nobody has said.
    pub(super) origin: Origin,
}

impl Scope {
    /// Outside of any table.
    pub(super) const TOP: Self = Self { prefix: String::new(), origin: Origin::Default };

    /// What stands before the keys of a `[[listener]]` table; of the first, `listener[1].`.
    pub(super) fn prefix_of_listener(index: usize) -> String {
        format!("listener[{}].", index + 1)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("origin", &self.origin).finish_non_exhaustive()
    }
}

//! What the tests of this module share.

use crate::wire::name::{Name, Realm};

/// The name of a peer of some door.
pub(super) fn name(number: u32) -> Name {
    Name::new(Realm(1), &number.to_be_bytes())
}

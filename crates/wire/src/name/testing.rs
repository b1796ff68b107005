//! Names for the tests of rooms that know no door.

use super::{Name, Realm};

/// The realm of [`name`], which is no door's.
pub const REALM: Realm = Realm(250);

/// The name of this number.
#[must_use]
pub fn name(number: u32) -> Name {
    Name::new(REALM, &number.to_be_bytes())
}

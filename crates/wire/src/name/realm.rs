//! Realms, the name spaces of the doors, and how their names are spelled.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use crate::ids::NodeId;

/// What an unknown realm's names begin with, in front of its number.
pub(super) const UNKNOWN: &str = "realm-";

/// A name space: each door's names have one of their own.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Realm(pub u8);

impl Realm {
    /// The nodes of the Pilot protocol: 4 bytes big-endian, never 0.
    pub const PILOT: Self = Self(0);

    /// Says how the names of a realm are shown and read, for the whole process.
    ///
    /// A door does this once, before it serves. The same door for the same realm again
    /// changes nothing.
    ///
    /// # Errors
    /// A realm that is another door's, a door that has another realm, or a door whose name is
    /// not lower-case letters, digits and `-`, a letter first, or begins with `realm-`.
    ///
    /// # Examples
    /// ```
    /// use beacon_wire::name::{Name, Realm, Spelling};
    ///
    /// const CHAT: Realm = Realm(200);
    /// CHAT.register(Spelling {
    ///     door: "chat",
    ///     show: |bytes, f| f.write_str(&String::from_utf8_lossy(bytes)),
    ///     parse: |text| Some(text.into()),
    /// })?;
    /// let name = Name::new(CHAT, b"alice");
    /// assert_eq!(name.to_string(), "chat:alice");
    /// assert_eq!("chat:alice".parse(), Ok(name));
    /// # Ok::<(), beacon_wire::name::RegisterError>(())
    /// ```
    pub fn register(self, spelling: Spelling) -> Result<(), RegisterError> {
        let door = spelling.door;
        if !is_door(door) {
            return Err(RegisterError::InvalidDoor(door));
        }
        let mut spellings = SPELLINGS.write().unwrap_or_else(PoisonError::into_inner);
        let rows = || BUILT_IN.iter().chain(&*spellings);
        if let Some((_, present)) = rows().find(|(realm, _)| *realm == self) {
            if present.door == door {
                return Ok(());
            }
            return Err(RegisterError::RealmTaken { realm: self, door: present.door });
        }
        if let Some((realm, _)) = rows().find(|(_, present)| present.door == door) {
            return Err(RegisterError::DoorTaken { door, realm: *realm });
        }
        spellings.push((self, spelling));
        Ok(())
    }

    /// The door whose names these are, where one is registered.
    #[must_use]
    pub fn door(self) -> Option<&'static str> {
        self.spelling().map(|spelling| spelling.door)
    }

    pub(super) fn spelling(self) -> Option<Spelling> {
        find(|(realm, _)| *realm == self).map(|(_, spelling)| spelling)
    }

    /// The realm of a door.
    pub(super) fn of_door(door: &str) -> Option<(Self, Spelling)> {
        find(|(_, spelling)| spelling.door == door)
    }
}

impl fmt::Display for Realm {
    /// The door, or `realm-7` where none is registered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.door() {
            Some(door) => f.write_str(door),
            None => write!(f, "{UNKNOWN}{}", self.0),
        }
    }
}

/// How a door writes its names: `door:` and what `show` shows.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    /// The door's name.
    pub door: &'static str,
    /// Shows a name, which may be any bytes: other relays send them.
    pub show: fn(&[u8], &mut fmt::Formatter<'_>) -> fmt::Result,
    /// Reads what `show` shows; `None` where the text is no name of the door.
    pub parse: fn(&str) -> Option<Vec<u8>>,
}

/// Why a spelling is not registered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The realm has the names of another door.
    #[error("realm {} has the names of the door `{door}`", .realm.0)]
    RealmTaken {
        /// The realm.
        realm: Realm,
        /// The door that has it.
        door: &'static str,
    },
    /// The door has its names in another realm.
    #[error("the door `{door}` has its names in realm {}", .realm.0)]
    DoorTaken {
        /// The door.
        door: &'static str,
        /// The realm that it has.
        realm: Realm,
    },
    /// The text is no name of a door.
    #[error("`{0}` is no name of a door: lower-case letters, digits and `-`, not `realm-…`")]
    InvalidDoor(&'static str),
}

/// The realms that are there without a door.
const BUILT_IN: [(Realm, Spelling); 1] = [(
    Realm::PILOT,
    Spelling {
        door: "pilot",
        show: |bytes, f| {
            let number = bytes.iter().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
            fmt::Display::fmt(&number, f)
        },
        parse: |text| Some(text.parse::<NodeId>().ok()?.number().to_be_bytes().into()),
    },
)];

static SPELLINGS: RwLock<Vec<(Realm, Spelling)>> = RwLock::new(Vec::new());

fn find(wanted: impl Fn(&(Realm, Spelling)) -> bool) -> Option<(Realm, Spelling)> {
    let built_in = BUILT_IN.into_iter().find(&wanted);
    built_in.or_else(|| {
        let spellings = SPELLINGS.read().unwrap_or_else(PoisonError::into_inner);
        spellings.iter().copied().find(&wanted)
    })
}

fn is_door(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spelling(door: &'static str) -> Spelling {
        Spelling { door, show: |_, _| Ok(()), parse: |_| None }
    }

    #[test]
    fn realm_and_door_belong_to_each_other() {
        let first = Realm(210);
        let second = Realm(211);

        assert_eq!(first.to_string(), "realm-210");
        assert_eq!(first.register(spelling("first")), Ok(()));
        assert_eq!(first.register(spelling("first")), Ok(()));

        assert_eq!(first.to_string(), "first");
        assert_eq!(
            first.register(spelling("other")),
            Err(RegisterError::RealmTaken { realm: first, door: "first" })
        );
        assert_eq!(
            second.register(spelling("first")),
            Err(RegisterError::DoorTaken { door: "first", realm: first })
        );
        assert_eq!(second.door(), None);
    }

    #[test]
    fn nodes_are_pilot_s_without_registration() {
        assert_eq!(Realm::PILOT.door(), Some("pilot"));
        assert_eq!(Realm::PILOT.register(spelling("pilot")), Ok(()));
        assert_eq!(
            Realm(212).register(spelling("pilot")),
            Err(RegisterError::DoorTaken { door: "pilot", realm: Realm::PILOT })
        );
    }

    #[test]
    fn door_whose_name_would_be_read_as_something_else_is_refused() {
        for door in ["", "a:b", "7", "7up", "Door", "realm-1", "a b", "-"] {
            assert_eq!(
                Realm(213).register(spelling(door)),
                Err(RegisterError::InvalidDoor(door)),
                "{door:?}"
            );
        }
    }
}

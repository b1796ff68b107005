//! Why packets are dropped: one table for the relay, and one for each door.
//!
//! A row is a label of metrics, what it means, and what to do about it, for `explain` and for
//! the documents. Each row has a counter of its own, whose place is known when the table is
//! compiled.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::wire::name::Realm;

/// Rows of the longest table.
const ROWS: usize = 32;

/// Tables that have a place for their counters.
const BLOCKS: usize = 16;

/// Counters of all rows.
pub(super) const SLOTS: usize = ROWS * BLOCKS;

/// Why a packet was not passed on: a row of the relay's table or of a door's.
#[derive(Clone, Copy)]
pub struct Drop(&'static Reason);

/// A row of a table, which [`reasons!`](crate::reasons) makes.
#[derive(Debug)]
pub struct Reason {
    /// The value of the label `reason`.
    pub label: &'static str,
    /// What has happened.
    pub cause: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// Whether packets are dropped for this reason where nothing is wrong: people are not told
    /// of them, and no alert counts them.
    pub is_expected: bool,
    slot: usize,
}

/// Whose reasons a table has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// The relay's.
    Relay,
    /// Those of this realm's door, whose counts are shown among the relay's.
    AmongRelay(Realm),
    /// Those of this realm's door, whose counts are shown with its name.
    Door(Realm, &'static str),
}

/// The reasons of one owner.
#[derive(Debug)]
pub struct Reasons {
    /// Whose.
    pub owner: Owner,
    rows: &'static [Reason],
}

impl Owner {
    /// Which block of counters is its.
    pub(super) const fn block(self) -> usize {
        match self {
            Self::Relay => 0,
            Self::AmongRelay(realm) | Self::Door(realm, _) => 1 + realm.0 as usize % (BLOCKS - 1),
        }
    }
}

impl Reason {
    /// The row of a table at this position.
    ///
    /// # Panics
    /// There are more than 32 rows: the table is not compiled.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        owner: Owner,
        row: usize,
        label: &'static str,
        [cause, remedy]: [&'static str; 2],
        is_expected: bool,
    ) -> Self {
        assert!(row < ROWS, "the table of reasons is too long");
        Self { label, cause, remedy, is_expected, slot: owner.block() * ROWS + row }
    }
}

impl Reasons {
    /// A table.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(owner: Owner, rows: &'static [Reason]) -> Self {
        Self { owner, rows }
    }

    /// The rows, as they were declared.
    pub fn rows(&self) -> impl Iterator<Item = Drop> + use<> {
        self.rows.iter().map(Drop)
    }
}

impl Drop {
    /// The reason of a row.
    #[doc(hidden)]
    #[must_use]
    pub const fn of(row: &'static Reason) -> Self {
        Self(row)
    }

    /// The position of its counter, below [`SLOTS`].
    #[inline]
    pub(super) const fn slot(self) -> usize {
        self.0.slot
    }
}

impl std::ops::Deref for Drop {
    type Target = Reason;

    #[inline]
    fn deref(&self) -> &Reason {
        self.0
    }
}

impl PartialEq for Drop {
    fn eq(&self, other: &Self) -> bool {
        self.slot() == other.slot()
    }
}

impl Eq for Drop {}

impl Hash for Drop {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.slot().hash(state);
    }
}

impl fmt::Debug for Drop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)
    }
}

/// Declares why packets are dropped: each row is a constant of a type, which has all of them as
/// its `REASONS`. A door has [`Traffic::register`](crate::metrics::Traffic::register) know them.
///
/// ```
/// use beacon_relay::metrics::{Owner, Traffic};
/// use beacon_relay::wire::name::Realm;
///
/// /// Why messages of the chat are dropped.
/// struct ChatDrop;
///
/// beacon_relay::reasons! {
///     impl ChatDrop of Owner::Door(Realm(200), "chat");
///
///     TOO_RUDE = "too_rude", "it says what nobody may say", "the sender must mind its words";
///     // That is how it asks whether somebody is here.
///     EMPTY [expected] = "empty", "it says nothing", "none";
/// }
///
/// let traffic = Traffic::default();
/// traffic.register(ChatDrop::REASONS);
/// traffic.shard().dropped(ChatDrop::TOO_RUDE, 1);
/// assert_eq!(traffic.packets_dropped(ChatDrop::TOO_RUDE), 1);
/// ```
#[macro_export]
macro_rules! reasons {
    (
        impl $type:ident of $owner:expr;
        $($name:ident $([$expected:ident])? = $label:literal, $cause:literal, $remedy:literal;)+
    ) => {
        const _: () = {
            /// The positions of the rows.
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)] // names of constants
            enum Row { $($name,)+ }

            static ROWS: &[$crate::metrics::Reason] = &[$(
                $crate::metrics::Reason::new(
                    $owner,
                    Row::$name as usize,
                    $label,
                    [$cause, $remedy],
                    $crate::reasons!(@is $($expected)?),
                ),
            )+];

            static REASONS: $crate::metrics::Reasons =
                $crate::metrics::Reasons::new($owner, ROWS);

            #[allow(unreachable_pub)] // as visible as the type
            impl $type {
                $(
                    #[doc = $cause]
                    pub const $name: $crate::metrics::Drop =
                        $crate::metrics::Drop::of(&ROWS[Row::$name as usize]);
                )+

                /// All of them, in their order.
                pub const REASONS: &'static $crate::metrics::Reasons = &REASONS;
            }
        };
    };
    (@is) => { false };
    (@is expected) => { true };
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_have_places_of_their_own() {
        let rows: Vec<_> = Drop::REASONS.rows().collect();
        let slots: HashSet<_> = rows.iter().map(|row| row.slot()).collect();
        let labels: HashSet<_> = rows.iter().map(|row| row.label).collect();
        assert_eq!((slots.len(), labels.len()), (rows.len(), rows.len()));
        assert!(rows.iter().all(|row| row.slot() < ROWS), "the relay's are first");
    }

    #[test]
    fn block_of_every_door_is_one_that_is_there_and_not_the_relays() {
        for realm in (0..=u8::MAX).map(Realm) {
            let block = Owner::AmongRelay(realm).block();
            assert!((1..BLOCKS).contains(&block), "{realm}");
            assert_eq!(block, Owner::Door(realm, "some").block());
        }
    }
}

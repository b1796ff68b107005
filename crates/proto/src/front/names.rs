//! The names that have a session at some relay, as the leader tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long names stay that a new leader has not told of: their relays open them there meanwhile.
const GRACE: Duration = Duration::from_secs(5);

/// Most names: twice as many as a bus has.
const MOST: usize = 200_000;

/// A name space and a name.
pub(super) type Named = (u8, Arc<str>);

/// The names, and which of them a former leader has told of.
#[derive(Debug, Default)]
pub(super) struct Names {
    of: BTreeMap<Named, Told>,
    /// When those that only a former leader has told of go.
    until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    ByThis,
    ByFormer,
}

impl Names {
    /// Another relay leads: it tells anew.
    pub(super) fn begin(&mut self, now: Instant) {
        self.of.values_mut().for_each(|told| *told = Told::ByFormer);
        self.until = Some(now + GRACE);
    }

    /// A name has a session; whether that is new. None where there are too many.
    pub(super) fn insert(&mut self, realm: u8, name: &str) -> Option<bool> {
        let before = self.of.insert((realm, name.into()), Told::ByThis);
        (self.of.len() <= MOST).then_some(before.is_none())
    }

    /// A name has no session any more; whether it had one.
    pub(super) fn remove(&mut self, realm: u8, name: &str) -> bool {
        self.of.remove(&(realm, name.into())).is_some()
    }

    /// The names that the leader has not told of in time.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Named> {
        if self.until.is_none_or(|until| now < until) {
            return Vec::new();
        }
        self.until = None;
        let of_former = self.of.iter().filter(|(_, told)| **told == Told::ByFormer);
        let expired: Vec<Named> = of_former.map(|(named, _)| named.clone()).collect();
        self.of.retain(|_, told| *told == Told::ByThis);
        expired
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }
}

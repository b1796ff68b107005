//! Relays that were members, and are gone without having drained: what operators are told of until
//! they come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use super::Member;
use crate::ids::RelayId;

/// How long a relay is missed: one that was taken away for good without a drain is not missed for
/// ever.
const MEMORY: Duration = Duration::from_secs(60 * 60);

/// Relays that are missed at most; of more, those that were lost last.
const ROOM: usize = 64;

/// One relay that was lost.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LostMember {
    /// Its id.
    pub relay: String,
    /// Where the link led.
    pub address: String,
    /// How long ago it was lost.
    pub seconds: u64,
}

/// Those that are missed.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<BTreeMap<RelayId, (String, Instant)>>);

impl Lost {
    /// A member has left; it is missed unless it had said that it would.
    pub(super) fn left(&self, member: &Member, now: Instant) {
        if !member.is_draining() {
            self.add(member.relay, member.address.clone(), now);
        }
    }

    fn add(&self, relay: RelayId, address: String, now: Instant) {
        let mut lost = self.0.lock();
        lost.insert(relay, (address, now));
        if lost.len() > ROOM {
            let oldest = lost.iter().min_by_key(|(_, (_, at))| *at).map(|(relay, _)| *relay);
            oldest.and_then(|relay| lost.remove(&relay));
        }
    }

    /// A relay has joined: it is not missed.
    pub(super) fn joined(&self, relay: RelayId) {
        self.0.lock().remove(&relay);
    }

    /// Those that are missed, in the order of their ids.
    pub(super) fn at(&self, now: Instant) -> Vec<LostMember> {
        let mut lost = self.0.lock();
        lost.retain(|_, (_, at)| now.saturating_duration_since(*at) < MEMORY);
        let shown = lost.iter().map(|(relay, (address, at))| LostMember {
            relay: relay.to_string(),
            address: address.clone(),
            seconds: now.saturating_duration_since(*at).as_secs(),
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PublicKey;

    fn relay(number: u8) -> RelayId {
        RelayId(PublicKey([number; 32]))
    }

    #[test]
    fn relay_is_missed_until_it_is_back_or_an_hour_has_passed() {
        let (lost, t0) = (Lost::default(), Instant::now());
        lost.add(relay(1), "192.0.2.1:9100".to_owned(), t0);
        lost.add(relay(2), "192.0.2.2:9100".to_owned(), t0);
        let missed = |after: Duration| lost.at(t0 + after).len();

        assert_eq!(missed(Duration::from_secs(5)), 2);
        lost.joined(relay(1));
        let left = lost.at(t0 + Duration::from_secs(5));
        assert_eq!((left.len(), &*left[0].address, left[0].seconds), (1, "192.0.2.2:9100", 5));
        assert_eq!(missed(MEMORY), 0);
    }

    #[test]
    fn few_relays_are_missed_at_a_time_the_latest() {
        let (lost, t0) = (Lost::default(), Instant::now());
        for number in 0..=u8::try_from(ROOM).unwrap() {
            let at = t0 + Duration::from_secs(number.into());
            lost.add(relay(number), String::new(), at);
        }
        let missed = lost.at(t0 + Duration::from_secs(100));
        assert_eq!(missed.len(), ROOM);
        assert!(missed.iter().all(|one| one.relay != relay(0).to_string()));
    }
}

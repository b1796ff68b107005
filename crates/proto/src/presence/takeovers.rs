//! How many live peers one relay may take away from others: by its claims where this relay is
//! a home, and by its word as a home where this relay is the owner.
//!
//! Relays of a cluster believe each other, so one whose key or secret was stolen could end
//! every session at once, and take every endpoint. What is claimed without a proof has an
//! account of its own: who forges the UDP source of a peer makes a relay claim it, and must
//! not keep logins from their turn by that. What exceeds the rate is held back, without an answer: claims and
//! what homes say of them are repeated until they are answered, so all comes to rest in the
//! end, and what is there no more is no takeover. Sans-IO.

use std::collections::BTreeMap;
use std::time::Instant;

use beacon_wire::cluster::Ownership;
use beacon_wire::ids::RelayId;

use crate::limit::{Bucket, Rate};

/// Of one relay, at each home and each owner.
///
/// A relay that dies without a word is missed after 15 s. Those of its peers that log in
/// elsewhere until then take over sessions that seem to live: of three relays and 15,000 peers
/// half to each of two, and two thirds of those at one home, which are 5,000. Those beyond it
/// are let in when the relay is missed. 50 a second are four million a day.
const OF_ONE: Rate = Rate::per_second(50).with_burst(5_000);

/// Of all relays together: who knows the secret may be many.
const OF_ALL: Rate = Rate::per_second(100).with_burst(10_000);

/// Relays with an account, those that left for a while among them: who joins again goes on
/// where it was.
const MAX_ACCOUNTS: usize = 1_024;

/// The rates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) of_one: Rate,
    pub(super) of_all: Rate,
}

/// A peer that is taken over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taking {
    /// As what it is claimed.
    pub(super) by: Ownership,
    /// As what another relay has it.
    pub(super) from: Ownership,
}

/// What a relay has taken over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Taken {
    /// Sessions.
    pub sessions: u64,
    /// Peers that had proved nothing where they were: endpoints, and peers behind foreign servers.
    pub unproved: u64,
    /// Times that one was held back, repeats among them.
    pub held_back: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// For what is claimed without a proof, and with one.
    buckets: [Bucket; 2],
    taken: Taken,
}

/// The accounts of all relays.
#[derive(Debug)]
pub(super) struct Takeovers {
    rates: Rates,
    accounts: BTreeMap<RelayId, Account>,
    all: Account,
}

impl Takeovers {
    pub(super) const fn new() -> Self {
        let rates = Rates { of_one: OF_ONE, of_all: OF_ALL };
        let taken = Taken { sessions: 0, unproved: 0, held_back: 0 };
        let all = Account { buckets: [Bucket::FULL; 2], taken };
        Self { rates, accounts: BTreeMap::new(), all }
    }

    /// Other rates from here on.
    #[cfg(test)]
    pub(super) const fn limit(&mut self, rates: Rates) {
        self.rates = rates;
    }

    /// Whether a relay may take over one more peer.
    pub(super) fn take(&mut self, relay: RelayId, what: Taking, now: Instant) -> bool {
        let sort = usize::from(what.by == Ownership::Session);
        self.make_room(relay, now);
        let has_room = self.accounts.len() < MAX_ACCOUNTS;
        let mut overflow = Account::default();
        let account = match self.accounts.get_mut(&relay) {
            Some(account) => account,
            None if has_room => self.accounts.entry(relay).or_default(),
            // What all may take counts.
            None => &mut overflow,
        };
        let (one, all) = (&mut account.buckets[sort], &mut self.all.buckets[sort]);
        let mut bucket = *one;
        let passes = bucket.take(self.rates.of_one, 1, now) && all.take(self.rates.of_all, 1, now);
        if passes {
            *one = bucket;
        }
        account.taken.note(passes, what.from);
        self.all.taken.note(passes, what.from);
        passes
    }

    fn make_room(&mut self, relay: RelayId, now: Instant) {
        if self.accounts.len() >= MAX_ACCOUNTS && !self.accounts.contains_key(&relay) {
            // A full bucket says nothing that a new one does not.
            let is_full = |account: &Account| account.buckets.iter().all(|b| b.is_full(now));
            self.accounts.retain(|_, account| !is_full(account));
        }
    }

    /// What one relay has taken over.
    pub(super) fn of(&self, relay: RelayId) -> Taken {
        self.accounts.get(&relay).map_or_else(Taken::default, |account| account.taken)
    }

    /// What all have taken over.
    pub(super) const fn of_all(&self) -> Taken {
        self.all.taken
    }
}

impl Taken {
    const fn note(&mut self, passes: bool, from: Ownership) {
        match from {
            _ if !passes => self.held_back += 1,
            Ownership::Session => self.sessions += 1,
            Ownership::Endpoint | Ownership::Gateway => self.unproved += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use beacon_wire::ids::PublicKey;

    use super::*;

    fn relay(number: u32) -> RelayId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        RelayId(PublicKey(key))
    }

    const SESSION: Taking = Taking { by: Ownership::Session, from: Ownership::Session };

    fn taken(takeovers: &mut Takeovers, by: u32, tries: u32, now: Instant) -> u32 {
        (0..tries).map(|_| u32::from(takeovers.take(relay(by), SESSION, now))).sum()
    }

    #[test]
    fn failover_passes_and_one_relay_does_not_take_all() {
        let (mut takeovers, t0) = (Takeovers::new(), Instant::now());
        assert_eq!(taken(&mut takeovers, 1, 20_000, t0), 5_000);
        assert_eq!(taken(&mut takeovers, 1, 1_000, t0 + Duration::from_secs(1)), 50);
        let counted = takeovers.of(relay(1));
        assert_eq!(counted, Taken { sessions: 5_050, unproved: 0, held_back: 15_950 });
        assert_eq!(taken(&mut takeovers, 2, 1_000, t0 + Duration::from_secs(1)), 1_000);
    }

    #[test]
    fn who_is_many_takes_no_more_than_all_may() {
        let (mut takeovers, t0) = (Takeovers::new(), Instant::now());
        let all: u32 = (1..=2_000).map(|by| taken(&mut takeovers, by, 20, t0)).sum();
        assert_eq!(all, 10_000);
        assert!(takeovers.accounts.len() <= MAX_ACCOUNTS);
        assert_eq!(takeovers.of_all().sessions, 10_000);
    }
}

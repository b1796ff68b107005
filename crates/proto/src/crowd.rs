//! Who is evicted where there is no room: the oldest of the network that has the most; of
//! networks that have the same, the one whose oldest came first.
//!
//! A flood from one network evicts itself, and a flood from many networks leaves everybody
//! the time in which as many others come. The address decides nothing. Used for UDP
//! endpoints that never came back, and for connections that have not logged in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::num::NonZeroU64;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::network::Network;

/// Keys by the network that they came from and their age. Whoever adds one keeps its ticket, by
/// which it is found again.
///
/// Every operation takes O(log n); what leaves is forgotten at once.
#[derive(Debug)]
pub struct Ages<I> {
    /// Each network's keys, oldest first.
    keys: BTreeMap<(Network, u64), I>,
    standings: HashMap<Network, Standing, RandomState>,
    /// Every network with its standing: the last is the next to lose a key.
    ranks: BTreeSet<(Standing, Network)>,
    next: u64,
}

/// Where a key is, and when it came: later ones have higher numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    network: Network,
    /// Never 0, so that there is room for "no ticket".
    number: NonZeroU64,
}

/// How soon a network loses a key: ordered by its size first, then by its oldest. No two
/// networks have the same oldest, so that no other order ever decides.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Standing {
    size: usize,
    oldest: Reverse<u64>,
}

impl<I: Copy> Default for Ages<I> {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            standings: HashMap::default(),
            ranks: BTreeSet::new(),
            next: 0,
        }
    }
}

impl<I: Copy> Ages<I> {
    /// Adds a key as the youngest.
    pub fn add(&mut self, id: I, network: Network) -> Ticket {
        self.next += 1;
        let number = NonZeroU64::new(self.next).expect("counted from 1 on");
        let ticket = Ticket { network, number };
        self.insert(id, ticket);
        ticket
    }

    /// Takes a key out, if it is in.
    pub fn withdraw(&mut self, ticket: Ticket) -> Option<I> {
        let id = self.keys.remove(&(ticket.network, ticket.number.get()))?;
        self.rank(ticket.network, |size| size - 1);
        Some(id)
    }

    /// Takes out the oldest key of the largest network.
    pub fn pop(&mut self) -> Option<(I, Ticket)> {
        let (Standing { oldest: Reverse(number), .. }, network) = *self.ranks.last()?;
        let number = NonZeroU64::new(number).expect("counted from 1 on");
        let ticket = Ticket { network, number };
        let id = self.withdraw(ticket).expect("a network's oldest is in it");
        Some((id, ticket))
    }

    fn insert(&mut self, id: I, ticket: Ticket) {
        self.keys.insert((ticket.network, ticket.number.get()), id);
        self.rank(ticket.network, |size| size + 1);
    }

    /// Gives a network the standing that it has after its size changed.
    fn rank(&mut self, network: Network, resized: impl FnOnce(usize) -> usize) {
        let before = self.standings.remove(&network);
        if let Some(before) = before {
            self.ranks.remove(&(before, network));
        }
        let oldest = self.keys.range((network, 0)..=(network, u64::MAX)).next();
        if let Some(((_, number), _)) = oldest {
            let size = resized(before.map_or(0, |before| before.size));
            let after = Standing { size, oldest: Reverse(*number) };
            self.standings.insert(network, after);
            self.ranks.insert((after, network));
        }
    }
}

/// Keys by the network that they came from and their age, each in it once: for those whose owner
/// has no place for a ticket.
#[derive(Debug)]
pub struct Crowd<I> {
    tickets: HashMap<I, Ticket, RandomState>,
    ages: Ages<I>,
}

impl<I: Copy + Eq + Hash> Default for Crowd<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Copy + Eq + Hash> Crowd<I> {
    /// Nobody.
    #[must_use]
    pub fn new() -> Self {
        Self { tickets: HashMap::default(), ages: Ages::default() }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Adds a key as the youngest; one that was in already is as if it came only now.
    pub fn add(&mut self, id: I, network: Network) {
        self.withdraw(id);
        let ticket = self.ages.add(id, network);
        self.tickets.insert(id, ticket);
    }

    /// Counts a key in another network from here on; its age stays.
    pub fn reassign(&mut self, id: I, network: Network) {
        if let Some(ticket) = self.tickets.get_mut(&id) {
            self.ages.withdraw(*ticket);
            ticket.network = network;
            self.ages.insert(id, *ticket);
        }
    }

    /// Takes a key out, if it is in.
    pub fn withdraw(&mut self, id: I) {
        if let Some(ticket) = self.tickets.remove(&id) {
            self.ages.withdraw(ticket);
        }
    }

    /// Takes out the oldest key of the largest network.
    pub fn pop(&mut self) -> Option<I> {
        let (id, _) = self.ages.pop()?;
        self.tickets.remove(&id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::translators::Translators;

    fn network(net: u8) -> Network {
        Network::of(IpAddr::from([192, 0, net, 1]), &Translators::default())
    }

    /// All keys, in the order in which they are evicted.
    fn order(mut crowd: Crowd<u32>) -> Vec<u32> {
        let order = std::iter::from_fn(|| crowd.pop()).collect();
        let Ages { keys, standings, ranks, .. } = crowd.ages;
        assert!(crowd.tickets.is_empty() && keys.is_empty());
        assert!(standings.is_empty() && ranks.is_empty());
        order
    }

    #[test]
    fn oldest_of_the_largest_network_goes_first() {
        let mut crowd = Crowd::new();
        crowd.add(1, network(1));
        for id in 10..15 {
            crowd.add(id, network(2));
        }
        crowd.add(2, network(1));
        crowd.withdraw(10);
        // After two of them both networks have two, and of all four key 1 is the oldest.
        assert_eq!(order(crowd), [11, 12, 1, 13, 14, 2]);
    }

    #[test]
    fn ticket_of_a_key_that_has_left_takes_nobody_else_out() {
        let mut ages = Ages::default();
        let first = ages.add(1, network(1));
        assert_eq!(ages.withdraw(first), Some(1));
        let again = ages.add(1, network(1));
        assert_eq!(ages.withdraw(first), None);
        assert_eq!(ages.pop(), Some((1, again)));
        assert_eq!(ages.pop(), None);
    }

    #[test]
    fn who_is_counted_elsewhere_keeps_the_age() {
        let mut crowd = Crowd::new();
        crowd.add(1, Network::alone(1));
        crowd.add(2, network(1));
        crowd.reassign(1, network(2));
        crowd.reassign(3, network(3));
        assert_eq!(order(crowd), [1, 2]);
    }

    #[test]
    fn key_that_comes_and_goes_leaves_nothing_behind() {
        let mut crowd = Crowd::new();
        crowd.add(1, network(1));
        for _ in 0..10_000 {
            crowd.add(2, network(1));
            crowd.withdraw(2);
        }
        let Ages { keys, standings, ranks, .. } = &crowd.ages;
        assert_eq!((keys.len(), standings.len(), ranks.len()), (1, 1, 1));
        assert_eq!(order(crowd), [1]);
    }

    /// An address of either family.
    fn any_network() -> impl Strategy<Value = Network> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(|ip| Network::of(ip.into(), &Translators::default())),
            any::<[u8; 16]>().prop_map(|ip| Network::of(ip.into(), &Translators::default())),
            any::<u32>().prop_map(|number| Network::alone(number.into())),
        ]
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Add(u32, u8),
        Reassign(u32, u8),
        Withdraw(u32),
        Pop,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..30, 0u8..6).prop_map(|(id, net)| Step::Add(id, net)),
            1 => (0u32..30, 0u8..6).prop_map(|(id, net)| Step::Reassign(id, net)),
            2 => (0u32..30).prop_map(Step::Withdraw),
            1 => Just(Step::Pop),
        ]
    }

    /// What is evicted next of keys that are listed oldest first, by looking at all of them.
    fn next_of(model: &[(u32, u8)]) -> Option<usize> {
        let size = |net: u8| model.iter().filter(|(_, other)| *other == net).count();
        let largest = model.iter().map(|(_, net)| size(*net)).max()?;
        model.iter().position(|(_, net)| size(*net) == largest)
    }

    proptest! {
        #[test]
        fn of_networks_with_one_key_each_the_oldest_goes_whatever_its_address(
            networks in proptest::collection::hash_set(any_network(), 1..200),
        ) {
            let mut crowd = Crowd::new();
            for (id, network) in (0..).zip(&networks) {
                crowd.add(id, *network);
            }
            let came: Vec<u32> = (0..).take(networks.len()).collect();
            prop_assert_eq!(order(crowd), came);
        }

        #[test]
        fn crowd_agrees_with_a_plain_list(steps in proptest::collection::vec(any_step(), 0..300)) {
            let mut crowd = Crowd::new();
            let mut model: Vec<(u32, u8)> = Vec::new();
            for step in steps {
                match step {
                    Step::Add(id, net) => {
                        crowd.add(id, network(net));
                        model.retain(|(other, _)| *other != id);
                        model.push((id, net));
                    }
                    Step::Reassign(id, net) => {
                        crowd.reassign(id, network(net));
                        model.iter_mut().filter(|(other, _)| *other == id).for_each(|m| m.1 = net);
                    }
                    Step::Withdraw(id) => {
                        crowd.withdraw(id);
                        model.retain(|(other, _)| *other != id);
                    }
                    Step::Pop => {
                        let next = next_of(&model).map(|at| model.remove(at).0);
                        prop_assert_eq!(crowd.pop(), next);
                    }
                }
                prop_assert_eq!(crowd.len(), model.len());
            }
            let rest: Vec<_> =
                std::iter::from_fn(|| next_of(&model).map(|at| model.remove(at).0)).collect();
            prop_assert_eq!(order(crowd), rest);
        }
    }
}

//! How a simulation ends: the faults are over, everybody finishes, and what was promised was kept.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::relay::Relay;
use super::{PEERS, RELAYS, World, peer};

impl World {
    /// Ends the faults, and lets everybody finish.
    pub(super) fn settle(&mut self) {
        self.relink();
        let leader = self.random.index(RELAYS);
        self.lead(leader);
        (0..RELAYS).for_each(|relay| self.learn(relay));
        for peer in 0..PEERS {
            let relay = self.random.index(RELAYS);
            self.connect(peer, relay);
        }
        for _ in 0..5_000 {
            self.now += Duration::from_millis(200);
            (0..20).for_each(|_| self.carry());
            self.turn();
            self.acknowledge();
            for peer in 0..PEERS {
                if self.peers[peer].session.is_none() {
                    let relay = self.random.index(RELAYS);
                    self.connect(peer, relay);
                }
            }
            let is_said = self.peers.iter().all(|peer| peer.unreceipted.is_empty());
            let is_quiet = self.wires.iter().all(|wire| wire.to.iter().all(VecDeque::is_empty));
            let lead = self.relays[leader].lead.as_ref().expect("nobody else leads");
            let is_over = self.served.older.is_empty();
            if self.log.store.waiting() == 0 && is_said && is_quiet && is_over && lead.is_idle() {
                return;
            }
        }
        let said: Vec<_> = self.peers.iter().map(|peer| peer.unreceipted.len()).collect();
        panic!("{} messages wait for ever, {said:?} have no receipt", self.log.store.waiting());
    }

    pub(super) fn check(&mut self) {
        for (sender, number, to) in &self.promised {
            let got = self.peers[*to].has(*sender, *number);
            assert!(got, "message {number} of {sender} never came to {to}");
        }
        self.now += Duration::from_secs(60);
        let names: BTreeSet<_> = (0..PEERS).map(peer::name).collect();
        for relay in 0..RELAYS {
            let mut actions = Vec::new();
            self.relays[relay].front.tick(self.now, &mut actions);
            self.act(relay, actions);
            let Relay { front, names: known, .. } = &self.relays[relay];
            assert_eq!(*known, names, "relay {relay} knows the names");
            let here =
                self.peers.iter().filter(|peer| peer.session.is_some_and(|(_, at)| at == relay));
            assert_eq!((front.bytes(), front.sessions()), (0, here.count()));
        }
        let seats: usize = self
            .relays
            .iter()
            .filter_map(|relay| relay.lead.as_ref())
            .map(|lead| lead.host.sessions())
            .sum();
        assert_eq!(seats, PEERS);
    }
}

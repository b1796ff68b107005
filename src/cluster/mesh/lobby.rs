//! Connections that have not said hello: a bounded number, of which the oldest of the network
//! with the most is evicted, so that no stranger alone keeps a relay of the cluster out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::proto::crowd::Crowd;
use crate::proto::network::Network;
use crate::proto::translators::Translators;

/// Connections that are greeted at a time.
pub(super) const MAX_GREETING: usize = 64;

/// Everybody who is being greeted.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    guests: Mutex<Guests>,
    translators: Translators,
}

#[derive(Debug, Default)]
struct Guests {
    crowd: Crowd<u64>,
    leaving: HashMap<u64, CancellationToken>,
    next: u64,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    lobby: Arc<Lobby>,
    number: u64,
    /// Ends when this one is evicted.
    pub(super) leaving: CancellationToken,
}

impl Lobby {
    /// Nobody is there yet; they may come through these translators.
    pub(super) fn new(translators: Translators) -> Self {
        Self { guests: Mutex::default(), translators }
    }

    /// Lets somebody in; true where somebody else was evicted for it.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> (Guest, bool) {
        let mut guests = self.guests.lock();
        let gives_way = guests.leaving.len() >= MAX_GREETING;
        if gives_way && let Some(number) = guests.crowd.pop() {
            guests.leaving.remove(&number).inspect(CancellationToken::cancel);
        }
        guests.next += 1;
        let (number, leaving) = (guests.next, CancellationToken::new());
        guests.crowd.add(number, Network::of(ip, &self.translators));
        guests.leaving.insert(number, leaving.clone());
        (Guest { lobby: Arc::clone(self), number, leaving }, gives_way)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.lobby.guests.lock();
        guests.crowd.withdraw(self.number);
        guests.leaving.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::translators;

    #[test]
    fn oldest_of_the_busiest_network_gives_way() {
        let lobby = Arc::<Lobby>::default();
        let ip = |host| IpAddr::from([192, 0, 2, host]);
        let (relay, _) = lobby.enter([198, 51, 100, 1].into());
        let strangers: Vec<_> = (0..63).map(|host| lobby.enter(ip(host)).0).collect();
        let more: Vec<_> = (63..83).map(|host| lobby.enter(ip(host))).collect();
        assert!(more.iter().all(|(_, gave_way)| *gave_way));
        assert!(strangers[..20].iter().all(|guest| guest.leaving.is_cancelled()));
        assert!(!strangers[20].leaving.is_cancelled() && !relay.leaving.is_cancelled());
        drop((strangers, more));
        assert!(!lobby.enter(ip(1)).1);
        assert_eq!(lobby.guests.lock().leaving.len(), 1, "the relay alone is left");
    }

    #[test]
    fn relay_behind_a_translator_does_not_give_way_for_strangers_behind_it() {
        let lobby = Arc::new(Lobby::new(translators()));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (relay, _) = lobby.enter(ip("2001:db8:64::198.51.100.1"));
        let stranger = |host| lobby.enter(ip(&format!("2001:db8:64::192.0.2.{host}")));
        let strangers: Vec<_> = (0..83).map(stranger).collect();
        assert!(strangers[0].0.leaving.is_cancelled() && !relay.leaving.is_cancelled());
    }
}

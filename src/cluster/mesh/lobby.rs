//! Connections that have not said hello: a bounded number, of which the oldest of the network
//! with the most is evicted, so that no stranger alone keeps a relay of the cluster out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::proto::crowd::Crowd;
use crate::proto::network::Network;

/// Connections that are greeted at a time.
pub(super) const MAX_GREETING: usize = 64;

/// Everybody who is being greeted.
#[derive(Debug, Default)]
pub(super) struct Lobby(Mutex<Guests>);

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
    /// Lets somebody in; true where somebody else was evicted for it.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> (Guest, bool) {
        let mut guests = self.0.lock();
        let gives_way = guests.leaving.len() >= MAX_GREETING;
        if gives_way && let Some(number) = guests.crowd.pop() {
            guests.leaving.remove(&number).inspect(CancellationToken::cancel);
        }
        guests.next += 1;
        let (number, leaving) = (guests.next, CancellationToken::new());
        guests.crowd.add(number, Network::of(ip));
        guests.leaving.insert(number, leaving.clone());
        (Guest { lobby: Arc::clone(self), number, leaving }, gives_way)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.lobby.0.lock();
        guests.crowd.withdraw(self.number);
        guests.leaving.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(lobby.0.lock().leaving.len(), 1, "the relay alone is left");
    }
}

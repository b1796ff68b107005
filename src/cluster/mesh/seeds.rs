//! Where other relays may be: resolves the names that the operator gave, and keeps one dial
//! for each address behind them.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use super::{canonical, dial};

/// How often every name is resolved.
const REFRESH: Duration = Duration::from_secs(10);

/// A dial that failed has its name resolved anew, but not more often than this.
const SOONEST: Duration = Duration::from_secs(1);

/// Addresses that are dialled at most; the full mesh ends long before.
pub(super) const MAX_ADDRESSES: usize = 256;

/// A name, and what it last resolved to.
#[derive(Debug)]
struct Seed {
    name: String,
    addresses: BTreeSet<SocketAddr>,
    /// A look-up is under way: there is never more than one, since each holds a thread.
    asked: bool,
    failed: bool,
}

impl Seed {
    const fn new(name: String) -> Self {
        Self { name, addresses: BTreeSet::new(), asked: false, failed: false }
    }

    /// Takes in an answer; a failure leaves the addresses as they were.
    fn answered(&mut self, answer: io::Result<BTreeSet<SocketAddr>>) {
        self.asked = false;
        match answer {
            Ok(addresses) => {
                if self.failed {
                    tracing::info!(name = self.name, "a name of the cluster resolves again");
                }
                self.failed = false;
                self.addresses = addresses;
            }
            Err(error) => {
                if !self.failed {
                    tracing::warn!(name = self.name, %error, "cannot resolve a name of the cluster");
                }
                self.failed = true;
            }
        }
    }
}

/// Keeps a dial for each address behind `names` until `stopping`. An address that no name
/// leads to is given up.
pub(super) async fn tend(hub: Arc<Hub>, names: Vec<String>, stopping: CancellationToken) {
    let mut seeds: Vec<_> = names.into_iter().map(Seed::new).collect();
    let mut lookups = JoinSet::new();
    let mut dials = Dials { hub, stopping, given_up: HashMap::new(), tasks: JoinSet::new() };
    let mut refresh = interval(REFRESH);
    let mut asked = Instant::now();
    loop {
        let hub = &dials.hub;
        tokio::select! {
            () = dials.stopping.cancelled() => break,
            _ = refresh.tick() => {}
            () = hub.unreached.notified(), if asked.elapsed() >= SOONEST => {}
            Some(answer) = lookups.join_next() => {
                let Ok((at, answer)): Result<(usize, _), _> = answer else { continue };
                if let Some(seed) = seeds.get_mut(at) {
                    seed.answered(answer);
                }
                dials.are(wanted(&seeds, dials.takes_ipv6()));
                continue;
            }
        }
        asked = Instant::now();
        for (at, seed) in seeds.iter_mut().enumerate().filter(|(_, seed)| !seed.asked) {
            seed.asked = true;
            let name = seed.name.clone();
            lookups.spawn(async move { (at, resolve(&name).await) });
        }
    }
    while dials.tasks.join_next().await.is_some() {}
}

async fn resolve(name: &str) -> io::Result<BTreeSet<SocketAddr>> {
    Ok(lookup_host(name).await?.map(canonical).collect())
}

/// The addresses to dial: the first of them in order, so that each refresh chooses alike.
fn wanted(seeds: &[Seed], ipv6: bool) -> BTreeSet<SocketAddr> {
    let all = seeds.iter().flat_map(|seed| seed.addresses.iter().copied());
    let all: BTreeSet<_> = all.filter(|address| ipv6 || address.is_ipv4()).collect();
    if all.len() > MAX_ADDRESSES {
        tracing::warn!(
            addresses = all.len(),
            limit = MAX_ADDRESSES,
            "the cluster's names have more addresses than are dialled"
        );
    }
    all.into_iter().take(MAX_ADDRESSES).collect()
}

/// The dials, one for each address.
struct Dials {
    hub: Arc<Hub>,
    stopping: CancellationToken,
    given_up: HashMap<SocketAddr, CancellationToken>,
    tasks: JoinSet<()>,
}

impl Dials {
    /// Gives up the addresses that are not `wanted`, and starts with those that are new.
    fn are(&mut self, wanted: BTreeSet<SocketAddr>) {
        while self.tasks.try_join_next().is_some() {}
        self.given_up.retain(|address, given_up| {
            let stays = wanted.contains(address);
            if !stays {
                given_up.cancel();
            }
            stays
        });
        for address in wanted {
            self.given_up.entry(address).or_insert_with(|| {
                let given_up = self.stopping.child_token();
                self.tasks.spawn(dial::keep(Arc::clone(&self.hub), address, given_up.clone()));
                given_up
            });
        }
    }

    fn takes_ipv6(&self) -> bool {
        self.hub.address.is_ipv6()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 9_443).into()
    }

    #[test]
    fn failed_look_up_gives_no_address_up() {
        let mut seed = Seed::new("relays.test:9443".into());
        seed.answered(Ok([address(1), address(2)].into()));
        seed.answered(Err(io::Error::other("no answer")));
        assert_eq!(seed.addresses, [address(1), address(2)].into());
        seed.answered(Ok([address(2)].into()));
        assert_eq!(seed.addresses, [address(2)].into());
    }

    #[test]
    fn wanted_are_all_addresses_once_up_to_the_bound() {
        let mut seeds = [Seed::new("a:1".into()), Seed::new("b:1".into())];
        seeds[0].addresses = [address(1), address(2)].into();
        seeds[1].addresses = [address(2), "[2001:db8::1]:1".parse().unwrap()].into();
        assert_eq!((wanted(&seeds, false).len(), wanted(&seeds, true).len()), (2, 3));
        seeds[1].addresses = (0..1_000).map(|port| ([192, 0, 2, 9], port).into()).collect();
        assert_eq!(wanted(&seeds, true).len(), MAX_ADDRESSES);
    }

    #[tokio::test]
    async fn addresses_and_names_resolve() {
        assert_eq!(resolve("192.0.2.1:9443").await.unwrap(), [address(1)].into());
        assert_eq!(resolve("[::ffff:192.0.2.1]:9443").await.unwrap(), [address(1)].into());
        resolve("no port").await.unwrap_err();
    }
}

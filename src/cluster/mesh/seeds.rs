//! Where other relays may be: resolves the names that the operator gave, and keeps one dial
//! for each address behind them.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use super::{canonical, dial};
use crate::net::resolve::Resolver;

/// How often every name is resolved.
const REFRESH: Duration = Duration::from_secs(10);

/// A dial that failed has its name resolved anew, but not more often than this.
const SOONEST: Duration = Duration::from_secs(1);

/// Addresses that are dialled at most; a full mesh ends long before.
const MAX_ADDRESSES: usize = 256;

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
/// leads to is given up. Ends before only where a dial or a look-up has failed.
pub(super) async fn tend(hub: Arc<Hub>, names: Vec<String>, stopping: CancellationToken) {
    let mut seeds: Vec<_> = names.into_iter().map(Seed::new).collect();
    let mut lookups = JoinSet::new();
    let resolver = Resolver::system();
    let mut dials = Dials::new(hub, stopping);
    let mut refresh = interval(REFRESH);
    let mut asked = Instant::now();
    loop {
        let hub = Arc::clone(&dials.hub);
        let stopping = dials.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => break,
            _ = refresh.tick() => {}
            () = hub.unreached.notified(), if asked.elapsed() >= SOONEST => {}
            () = dials.failed() => break,
            Some(answer) = lookups.join_next() => {
                // One that failed would have its name resolved never again.
                let Ok((at, answer)): Result<(usize, _), _> = answer else { break };
                if let Some(seed) = seeds.get_mut(at) {
                    seed.answered(answer);
                }
                dials.are(seeds.iter().flat_map(|seed| &seed.addresses).copied().collect());
                continue;
            }
        }
        asked = Instant::now();
        let ipv6 = hub.address.is_ipv6();
        for (at, seed) in seeds.iter_mut().enumerate().filter(|(_, seed)| !seed.asked) {
            seed.asked = true;
            let (name, resolver) = (seed.name.clone(), resolver.clone());
            lookups.spawn(async move { (at, resolve(&resolver, &name, ipv6).await) });
        }
    }
    if dials.stopping.is_cancelled() {
        dials.ended().await;
    }
}

/// The addresses of a name that our socket can dial; none of them is an error.
async fn resolve(resolver: &Resolver, name: &str, ipv6: bool) -> io::Result<BTreeSet<SocketAddr>> {
    let addresses = resolver.resolve_authority(name).await?.into_iter().map(canonical);
    let addresses: BTreeSet<_> = addresses.filter(|to| ipv6 || to.is_ipv4()).collect();
    if addresses.is_empty() {
        return Err(io::Error::other("it has no address that this relay's own can dial"));
    }
    Ok(addresses)
}

/// The dials, one for each address.
struct Dials {
    hub: Arc<Hub>,
    stopping: CancellationToken,
    given_up: HashMap<SocketAddr, CancellationToken>,
    tasks: JoinSet<()>,
    /// There are more addresses than are dialled, and that was said.
    crowded: bool,
}

impl Dials {
    fn new(hub: Arc<Hub>, stopping: CancellationToken) -> Self {
        Self { hub, stopping, given_up: HashMap::new(), tasks: JoinSet::new(), crowded: false }
    }

    /// Gives up the addresses that are not `wanted`, and starts with those that are new.
    /// Of too many it takes the first in order, so that each refresh chooses alike.
    fn are(&mut self, mut wanted: BTreeSet<SocketAddr>) {
        let crowded = wanted.len() > MAX_ADDRESSES;
        if crowded && !self.crowded {
            tracing::warn!(
                addresses = wanted.len(),
                limit = MAX_ADDRESSES,
                "the cluster's names have more addresses than are dialled"
            );
        }
        self.crowded = crowded;
        while wanted.len() > MAX_ADDRESSES {
            wanted.pop_last();
        }
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

    /// Waits until a dial has failed. Cancel-safe.
    async fn failed(&mut self) {
        loop {
            match self.tasks.join_next().await {
                // It was given up.
                Some(Ok(())) => {}
                Some(Err(error)) => return tracing::error!(%error, "a dial has failed"),
                None => return std::future::pending().await,
            }
        }
    }

    /// Waits for the end of all dials, and of the links that they made.
    async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::mesh::hub::Secret;
    use crate::cluster::mesh::tests::until;
    use crate::cluster::mesh::transport;
    use crate::cluster::{Cluster, Identity};
    use crate::ids::{PublicKey, RelayId};
    use crate::net::bind::FreeBind;

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

    #[tokio::test]
    async fn addresses_and_names_resolve() {
        let resolver = Resolver::system();
        for name in ["192.0.2.1:9443", "[::ffff:192.0.2.1]:9443"] {
            assert_eq!(resolve(&resolver, name, false).await.unwrap(), [address(1)].into());
        }
        resolve(&resolver, "[2001:db8::1]:9443", true).await.unwrap();
        resolve(&resolver, "[2001:db8::1]:9443", false).await.unwrap_err();
        resolve(&resolver, "no port", true).await.unwrap_err();
    }

    fn hub() -> Arc<Hub> {
        let relay = RelayId(PublicKey([1; 32]));
        let identity = Identity {
            relay,
            boot: [0; 16],
            name: "test".into(),
            keepalive: Duration::from_secs(5),
        };
        let cluster = Cluster::new(identity, Arc::default());
        let endpoint = transport::open(([127, 0, 0, 1], 0).into(), FreeBind::Off).unwrap();
        Hub::new(cluster, relay, endpoint, address(9), None, Secret(None))
    }

    #[tokio::test]
    async fn address_that_no_name_leads_to_is_given_up() {
        let hub = hub();
        let mut dials = Dials::new(Arc::clone(&hub), CancellationToken::new());
        let dialling = async |count| {
            until("so many dials", || hub.cluster.counters().dialling.value() == count).await;
        };
        dials.are((0..1_000).map(|port| ([192, 0, 2, 9], port).into()).collect());
        dialling(i64::try_from(MAX_ADDRESSES).unwrap()).await;
        dials.are([address(1), address(2)].into());
        dialling(2).await;
        dials.are([address(2)].into());
        dialling(1).await;
        dials.stopping.cancel();
        dials.ended().await;
        dialling(0).await;
    }

    #[tokio::test]
    async fn dial_that_fails_is_noticed_and_one_that_is_given_up_is_not() {
        let mut dials = Dials::new(hub(), CancellationToken::new());
        dials.are([address(1), address(2)].into());
        dials.are([address(2)].into());
        until("one was given up", || dials.hub.cluster.counters().dialling.value() == 1).await;
        let noticed = tokio::time::timeout(Duration::from_millis(20), dials.failed()).await;
        assert!(noticed.is_err(), "one that was given up has not failed");

        dials.tasks.abort_all();

        dials.failed().await;
    }
}

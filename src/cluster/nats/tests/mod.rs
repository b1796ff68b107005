//! Tests with the real nats-server.
//!
//! A test that expects something at once has a keep-alive of an hour, so that nothing but
//! the thing itself explains that it comes.

mod credentials;
mod failures;
mod hostile;
mod lanes;
mod membership;
mod outage;
mod peer;
mod permissions;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Nats, Settings};
use crate::cluster::{Cluster, Fabric as _, Identity, Member, Reject};
use crate::ids::{PublicKey, RelayId};
use crate::metrics::{Drop, Traffic};
use crate::net::nats::testing::Server;
use crate::wire::name::testing::name;

const NAME: &str = "fleet";

/// Longest wait for anything that a test expects.
const PATIENCE: Duration = Duration::from_secs(20);

const HOUR: Duration = Duration::from_secs(3_600);

/// A keep-alive for tests that wait for somebody's death.
pub(super) const SHORT: Duration = Duration::from_millis(100);

pub(super) fn id(number: u8) -> RelayId {
    RelayId(PublicKey([number; 32]))
}

/// A relay's part in the cluster, its id and its run made of a number.
pub(super) fn cluster(number: u8, keepalive: Duration) -> Arc<Cluster> {
    let (relay, boot, name) = (id(number), [number; 16], NAME.to_owned());
    let identity = Identity { relay, boot, name, keepalive };
    Cluster::new(identity, Arc::new(Traffic::default()))
}

/// Waits for something that cannot announce itself.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// A relay's part in the cluster, with the fabric under test.
struct Relay {
    cluster: Arc<Cluster>,
    stopping: CancellationToken,
    running: AbortOnDropHandle<()>,
}

impl Relay {
    fn start(number: u8, url: &str, keepalive: Duration) -> Self {
        let settings = Settings { url: url.to_owned(), credentials: None };
        Self::start_with(number, &settings, keepalive)
    }

    /// One that is known to hear what others say.
    async fn listening(number: u8, server: &Server, keepalive: Duration) -> Self {
        Self::that_listens(number, server, || Self::start(number, &server.url(), keepalive)).await
    }

    /// The same of one that takes no silence for death.
    async fn patient(number: u8, server: &Server, keepalive: Duration) -> Self {
        let nats = Nats::new(&Settings { url: server.url(), credentials: None }).unwrap();
        let start = || Self::run(number, keepalive, |cluster, end| nats.run(cluster, end));
        Self::that_listens(number, server, start).await
    }

    async fn that_listens(number: u8, server: &Server, start: impl FnOnce() -> Self) -> Self {
        let client = async_nats::connect(server.url()).await.unwrap();
        let subject = format!("{NAME}.alive.from.{}", id(number));
        let mut beats = client.subscribe(subject.clone()).await.unwrap();
        // That this comes shows that the server has the subscription.
        client.publish(subject, Bytes::new()).await.unwrap();
        beats.next().await.unwrap();

        let relay = start();
        // Its own connection said what it subscribes to before this.
        time::timeout(PATIENCE, beats.next()).await.expect("no beat").unwrap();
        relay
    }

    fn start_with(number: u8, settings: &Settings, keepalive: Duration) -> Self {
        let nats = Nats::new(settings).unwrap();
        Self::run(number, keepalive, |cluster, stopping| cluster.run(nats, stopping))
    }

    fn run<F: Future<Output = ()> + Send + 'static>(
        number: u8,
        keepalive: Duration,
        run: impl FnOnce(Arc<Cluster>, CancellationToken) -> F,
    ) -> Self {
        let cluster = cluster(number, keepalive);
        let stopping = CancellationToken::new();
        // As the fabric itself says once it runs.
        cluster.counters().dialling.set(1);
        let running = tokio::spawn(run(Arc::clone(&cluster), stopping.clone()));
        Self { cluster, stopping, running: AbortOnDropHandle::new(running) }
    }

    async fn until_members(&self, count: usize) {
        let is_so = || self.cluster.members().len() == count;
        until(&format!("{count} members of {}", self.cluster.identity().relay), is_so).await;
    }

    async fn until_connected(&self) {
        until("a connection", || self.cluster.counters().dialling.value() == 0).await;
    }

    fn member(&self, number: u8) -> Arc<Member> {
        let mut members = self.cluster.members().into_iter();
        members.find(|member| member.relay == id(number)).expect("no member")
    }

    fn rejects(&self, reason: Reject) -> u64 {
        self.cluster.counters().rejects.of(reason).value()
    }

    async fn until_rejects(&self, reason: Reject, count: u64) {
        until(&format!("{count} of {reason:?}"), || self.rejects(reason) == count).await;
    }

    /// Packets that were dropped since the link did not take them.
    fn packets_lost(&self) -> u64 {
        self.cluster.traffic.packets_dropped(Drop::CLUSTER_LOST)
    }

    /// How many members were lost.
    fn lost(&self) -> u64 {
        self.cluster.counters().lost.value()
    }

    async fn stop(self) {
        self.stopping.cancel();
        time::timeout(PATIENCE, self.running).await.expect("it does not stop").unwrap();
    }
}

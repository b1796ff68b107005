//! Relays that serve one hub over NATS JetStream: the one that leads is the client of other hubs, and
//! after it is lost the next one is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use beacon_client::keyop::{Client, Transport};
use tempfile::TempDir;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Site;
use super::hubs::{client_at, hubs, publish, take};
use super::pki::Authority;
use crate::cluster::{Cluster, Fabric, host, wait_until};
use crate::harness::{PATIENCE, Relay};
use crate::peerbus::jetstream::Engine;

const RELAYS: usize = 2;

/// The name of the hub that the relays are.
const HUB: &str = "inner";

/// What each side publishes: some before the leader is lost, and the rest around that.
const BEFORE: u16 = 30;
const ALL: u16 = 150;

/// Payloads of the other side begin here.
const OTHER: u64 = 1_000;

struct Hub {
    cluster: Cluster,
    _engine: Engine,
    folder: TempDir,
    authority: Arc<Authority>,
}

impl Hub {
    /// Relays that are a client of another hub.
    fn start(authority: &Arc<Authority>, other: &Site) -> Self {
        let engine = Engine::start();
        let folder = tempfile::tempdir().unwrap();
        authority.write(&folder.path().join("ca.crt"));
        authority.issue(HUB).write(folder.path(), "hub");
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let config = file("relay.toml");
        let settings = format!("log_level = \"debug\"\n{}", hubs(&[("outer", other)], ""));
        fs::write(&config, settings).unwrap();
        let (cert, key, ca) = (file("hub.crt"), file("hub.key"), file("ca.crt"));
        let binds: Vec<_> = (0..RELAYS).map(|index| format!("{}:0", host(index))).collect();
        let nats = engine.flag();
        let cluster = Cluster::start(Fabric::Mesh, RELAYS, &[], |index| {
            let bind = ["--config", &config, "--keyop-bind", &binds[index]];
            let files = ["--keyop-cert", &cert, "--keyop-key", &key, "--keyop-client-ca", &ca];
            let bus = ["--cluster-keepalive=500ms", &nats];
            [&bind[..], &files, &bus].concat()
        });
        Self { cluster, _engine: engine, folder, authority: Arc::clone(authority) }
    }

    fn relay(&self, at: usize) -> &Relay {
        &self.cluster.relays[at]
    }

    /// The relay that alone is connected to the other hub, once the relays that are there agree.
    fn connected(&self, relays: &[usize]) -> usize {
        let state = |at: usize, state: &str| {
            let hubs = format!("beacon_relay_keyop_hubs{{state=\"{state}\"}}");
            self.relay(at).metric(&hubs) > 0.0
        };
        let mut found = None;
        wait_until("one relay is connected to the other hub", || {
            let connected: Vec<_> = relays.iter().filter(|at| state(**at, "connected")).collect();
            let standby = relays.iter().filter(|at| state(**at, "standby")).count();
            found = connected.first().map(|at| **at);
            connected.len() == 1 && standby == relays.len() - 1
        });
        found.expect("it was waited for")
    }

    fn client(&self, at: usize, name: &str) -> Client {
        let line = self.relay(at).wait_for_line("also listening");
        let bind = line.split_once("bind=").unwrap().1.split(' ').next().unwrap();
        let address: SocketAddr = bind.parse().unwrap();
        client_at(address, (&self.authority, self.folder.path()), HUB, name, Transport::Grpc)
    }
}

/// What one side publishes.
fn payloads(first: u64, numbers: Range<u16>) -> BTreeSet<u64> {
    numbers.map(|number| first + u64::from(number)).collect()
}

/// Takes payloads until these are there: the same record comes again where another relay leads before
/// the acknowledgement of it is known, and no other with its payload does. `ids` are of all so far.
async fn take_all(client: &mut Client, wanted: &BTreeSet<u64>, ids: &mut BTreeMap<u64, String>) {
    while !wanted.iter().all(|payload| ids.contains_key(payload)) {
        let batch = timeout(PATIENCE, client.recv()).await.unwrap().unwrap().unwrap();
        for record in batch.envelopes().map(Result::unwrap) {
            let payload: u64 = serde_json::from_slice(record.payload().as_bytes()).unwrap();
            let before = ids.insert(payload, record.id.to_string());
            assert!(before.is_none_or(|id| id == record.id), "{payload} is two records");
        }
        batch.ack().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_leader_is_the_client_of_other_hubs() {
    let authority = Arc::new(Authority::new("test CA"));
    let outer = Site::named("outer", Arc::clone(&authority), "", &[]);
    let mut inner = Hub::start(&authority, &outer);
    let leader = inner.connected(&[0, 1]);
    let rest = 1 - leader;
    assert_eq!(inner.relay(leader).metric("beacon_relay_bus_front_leading"), 1.0);
    let of_outer = (&*authority, outer.folder.path());
    let mut outside =
        client_at(outer.address, of_outer, "outer", "client-outside", Transport::Grpc);
    let mut inside = inner.client(rest, "client-inside");
    outer.wait_until_subscribed(2);
    inner.relay(rest).wait_for_metric("beacon_relay_keyop_subscribers", 1.0);
    let (before, behind) = (0..BEFORE, BEFORE..ALL);
    publish(&inside, payloads(0, before.clone()).into_iter()).await;
    publish(&outside, payloads(OTHER, before.clone()).into_iter()).await;
    let (taken, _) = take(&mut outside, usize::from(BEFORE)).await;
    assert_eq!(taken, payloads(0, before.clone()));
    let mut ids = BTreeMap::new();
    take_all(&mut inside, &payloads(OTHER, before), &mut ids).await;

    let stored = "beacon_relay_keyop_records_total{outcome=\"stored\"}";
    let losing = async {
        // Some of what follows has arrived, and the rest is on its way.
        while outer.relay.metric(stored) < f64::from(2 * BEFORE + 1) {
            yield_now().await;
        }
        inner.relay(leader).signal("KILL");
    };
    let (outgoing, incoming) = (payloads(0, behind.clone()), payloads(OTHER, behind.clone()));
    let publish_out = publish(&inside, outgoing.into_iter());
    let publish_in = publish(&outside, incoming.into_iter());
    tokio::join!(publish_out, publish_in, losing);

    inner.cluster.relays[leader].wait_until_gone();
    assert_eq!(inner.connected(&[rest]), rest);
    let (taken, _) = take(&mut outside, behind.len()).await;
    assert_eq!(taken, payloads(0, behind.clone()));
    take_all(&mut inside, &payloads(OTHER, behind), &mut ids).await;
    assert!(ids.into_keys().eq(payloads(OTHER, 0..ALL)), "no other comes");
    // Each record is stored once, however often the two relays have passed it on.
    assert_eq!(outer.relay.metric(stored), f64::from(2 * ALL));
}

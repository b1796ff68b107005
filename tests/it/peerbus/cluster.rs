//! Several relays that serve one bus, over NATS JetStream and a mesh.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::jetstream::Engine;
use super::{Adapter, envelope, register, write_secret};
use crate::cluster::{Cluster, Fabric, host, wait_until};
use crate::control::{ask, fail, say};
use crate::harness::Relay;

/// How long nobody may lead, and a receipt be away.
const ELECTION: Duration = Duration::from_secs(30);

/// The tokens of [`super::TOKENS`], one with a label.
const LABELLED: &str = "team tok\ntok-B\n";

/// Relays of one cluster, each with the door, and one NATS system that has their messages.
pub(super) struct Sites {
    cluster: Cluster,
    pub(super) engine: Engine,
    _folder: TempDir,
}

impl Sites {
    pub(super) fn start(count: usize) -> Self {
        let engine = Engine::start();
        let flags = vec![engine.flag(); count];
        Self::over(engine, &flags)
    }

    /// A relay for each of these flags, which say how it reaches NATS.
    pub(super) fn over(engine: Engine, nats: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        write_secret(&tokens, LABELLED);
        let tokens = tokens.to_str().unwrap().to_owned();
        let binds: Vec<_> = (0..nats.len()).map(|index| format!("{}:0", host(index))).collect();
        let cluster = Cluster::start(Fabric::Mesh, nats.len(), &[], |index| {
            vec![
                "--peerbus-bind",
                &binds[index],
                "--peerbus-tokens-file",
                &tokens,
                &nats[index],
                "--cluster-keepalive=500ms",
            ]
        });
        let sites = Self { cluster, engine, _folder: folder };
        sites.leader();
        sites
    }

    pub(super) fn relay(&self, at: usize) -> &Relay {
        &self.cluster.relays[at]
    }

    /// Where peers of a relay connect.
    pub(super) fn address(&self, at: usize) -> SocketAddr {
        address(self.relay(at))
    }

    /// Whether a relay says that it leads.
    pub(super) fn leads(&self, at: usize) -> bool {
        self.relay(at).metric("beacon_relay_bus_front_leading") > 0.0
    }

    /// Ends a relay at once, as a crash would, and starts another in its place.
    pub(super) fn kill(&mut self, at: usize) {
        self.relay(at).signal("KILL");
        self.cluster.relays[at].wait_until_gone();
        self.cluster.restart(at);
    }

    /// The relay that leads, once one does and all others listen to it.
    pub(super) fn leader(&self) -> usize {
        let mut leader = None;
        wait_until("one relay leads", || {
            let relays = &self.cluster.relays;
            let epoch = |relay: &Relay| relay.metric("beacon_relay_bus_front_epoch");
            let epochs: Vec<_> = relays.iter().map(epoch).collect();
            let leaders: Vec<_> = (0..relays.len()).filter(|at| self.leads(*at)).collect();
            leader = leaders.first().copied();
            leaders.len() == 1
                && epochs[0] > 0.0
                && epochs.iter().all(|one| *one >= epochs[0])
                && epochs.iter().all(|one| *one <= epochs[0])
        });
        leader.expect("it was waited for")
    }

    fn register(&self, at: usize, name: &str) -> Adapter {
        let mut adapter = Adapter::connect(self.address(at));
        let mut first = register("tok", name);
        first["receipts"] = true.into();
        adapter.say(&first);
        adapter.names();
        adapter
    }
}

fn address(relay: &Relay) -> SocketAddr {
    let line = relay.wait_for_line("also listening");
    line.split_once("bind=").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

/// The names that a peer is told of.
fn names(adapter: &mut Adapter) -> Vec<String> {
    adapter.say(&json!({"type": "peers"}));
    adapter.names()
}

#[test]
fn peers_of_all_relays_are_on_one_bus_and_operators_see_it_at_any() {
    let sites = Sites::start(3);
    let mut alice = sites.register(0, "alice");
    let mut bob = sites.register(1, "bob");
    wait_until("both know of each other", || {
        names(&mut alice) == ["alice", "bob"] && names(&mut bob) == ["alice", "bob"]
    });

    bob.say(&envelope("m1", "bob", "alice", 1));
    bob.say(&envelope("m2", "bob", "*", 2));
    assert_eq!(bob.message()["result"], "stored");
    assert_eq!(bob.message()["result"], "stored");
    let deliveries = [(); 2].map(|()| alice.delivery());
    assert!(deliveries.iter().map(|(_, body)| body).eq([&json!(1), &json!(2)]));
    alice.acknowledge("m1");
    let leader = sites.leader();
    let leads = ask(sites.relay(leader), &["status"])["cluster"]["relay"].clone();
    for (at, relay) in sites.cluster.relays.iter().enumerate() {
        let role = if at == leader { "leads" } else { "follows" };
        wait_until("each relay says who leads", || {
            let bus = &ask(relay, &["status"])["bus"];
            (&bus["role"], &bus["leader"]) == (&json!(role), &leads)
        });
    }
    for relay in &sites.cluster.relays {
        wait_until("one message waits", || ask(relay, &["queues"])["total"] == 1);
        assert_eq!(ask(relay, &["names"])["total"], 2);
    }

    // It comes back at another relay: what it has not acknowledged is there, and goes before.
    let mut again = sites.register(2, "alice");
    bob.say(&envelope("m3", "bob", "alice", 3));
    assert_eq!(again.delivery().1, 2);
    assert_eq!(again.delivery().1, 3);
    assert!(alice.read().is_none(), "the older session is cut");
}

#[test]
fn operators_act_on_mailboxes_and_names_at_any_relay() {
    let sites = Sites::start(3);
    let leader = sites.leader();
    let [one, other] = [1, 2].map(|more| sites.relay((leader + more) % 3));
    drop(sites.register(leader, "alice"));
    let mut bob = sites.register(leader, "bob");
    for key in ["m1", "m2"] {
        bob.say(&envelope(key, "bob", "alice", key));
        assert_eq!(bob.message()["result"], "stored");
    }

    for relay in [one, other, sites.relay(leader)] {
        let queue = ask(relay, &["queue", "alice", "--peek"]);
        let keys = queue["messages"].as_array().unwrap().iter().map(|message| &message["key"]);
        assert!(keys.eq([&json!("m1"), &json!("m2")]), "{queue}");
    }
    assert_eq!(say(one, &["queue", "alice", "--purge"]), "2 messages for alice removed\n");
    wait_until("nothing waits", || ask(other, &["queues"])["total"] == 0);

    let claim = |relay: &Relay, token: &str| {
        let mut adapter = Adapter::connect(address(relay));
        adapter.say(&register(token, "alice"));
        adapter.message()["type"] == "peers"
    };
    assert_eq!(say(one, &["names", "release", "alice"]), "alice belongs to nobody\n");
    assert!(claim(other, "tok-B"), "whoever comes first has it");
    assert_eq!(say(other, &["names", "bind", "alice", "team"]), "alice belongs to team\n");
    let owner = || ask(one, &["names"])["names"][0]["owner"] == "team";
    wait_until("each relay has it", owner);
    let (code, error) = fail(one.state_dir(), &["names", "release", "carol"]);
    assert_eq!((code, error.contains("nobody has the name carol")), (1, true), "{error}");
}

/// Kills the relay that leads, again and again, while two peers of others talk.
fn kill_leaders(kills: usize) {
    let mut sites = Sites::start(3);
    for round in 0..kills {
        let leader = sites.leader();
        let others = [1, 2].map(|more| (leader + more) % 3);
        let mut alice = sites.register(others[0], "alice");
        let mut bob = sites.register(others[1], "bob");
        let (killed, kill) = channel();
        let talking = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            for number in 0..100 {
                bob.say(&envelope(&format!("{round}-{number}"), "bob", "alice", number));
                if number == 40 {
                    killed.send(()).unwrap();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            for number in 0..100 {
                let receipt = bob.message();
                assert_eq!(receipt["id"], format!("{round}-{number}"));
                assert_eq!(receipt["result"], "stored", "{receipt}");
            }
            while seen.len() < 100 {
                let (key, body) = alice.delivery();
                alice.acknowledge(&key);
                if !key.starts_with(&format!("{round}-")) {
                    // Its acknowledgement was lost with the leader before.
                    continue;
                }
                let number = usize::try_from(body.as_u64().unwrap()).unwrap();
                assert!(!seen.insert(number) || number + 1 == seen.len(), "{number} is too early");
            }
            alice.settle();
        });
        kill.recv().unwrap();
        let began = Instant::now();
        sites.relay(leader).signal("KILL");
        sites.cluster.relays[leader].wait_until_gone();
        talking.join().unwrap();
        assert!(began.elapsed() < ELECTION, "{:?}", began.elapsed());
        sites.cluster.restart(leader);
    }
}

#[test]
fn peers_go_on_where_the_relay_that_leads_is_killed() {
    kill_leaders(1);
}

#[test]
#[ignore = "long: KILLS=200"]
fn soak_peers_go_on_through_two_hundred_kills_of_the_relay_that_leads() {
    let kills = std::env::var("KILLS").map_or(200, |kills| kills.parse().unwrap());
    kill_leaders(kills);
    println!("{kills} leaders were killed: no receipt was wrong, nothing came out of order");
}

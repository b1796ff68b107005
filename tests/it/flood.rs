//! Floods of connections that never log in, through a proxy, from more networks than there
//! are places: who logs in does so all the same, wherever it comes from.

use std::collections::{HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use crate::harness::Node;
use crate::over::{Over, over_plain_and_tls};
use crate::peer::Peer;
use crate::random::Random;

over_plain_and_tls!(flood_from_many_networks_shuts_no_login_out_wherever_it_comes_from);

/// Logins under the flood.
const LOGINS: u32 = 20;

/// Connections of the flood that come between two steps of a login.
const BETWEEN_STEPS: usize = 5;

/// Strangers behind the proxy, each alone in its network, who wait for ever.
struct Flood {
    wss: SocketAddr,
    random: Random,
    networks: HashSet<[u8; 3]>,
    /// Those whom the relay may still have, oldest first.
    waiting: VecDeque<Peer>,
}

impl Flood {
    fn new(wss: SocketAddr) -> Self {
        const SEED: u64 = 20_261_128;
        Self { wss, random: Random(SEED), networks: HashSet::new(), waiting: VecDeque::new() }
    }

    /// So many more come, and each is answered before the next.
    fn come(&mut self, count: usize) {
        for _ in 0..count {
            let [_, a, b, c, ..] = self.random.next().to_be_bytes();
            // The lowest and the highest networks are those of the nodes.
            let network = [a.clamp(2, 222), b, c];
            if self.networks.insert(network) {
                let address = Ipv4Addr::new(network[0], b, c, 1);
                self.waiting.push_back(come_from(self.wss, address));
            }
        }
    }
}

/// A connection that has upgraded, through a proxy that says from where it is.
fn come_from(wss: SocketAddr, address: Ipv4Addr) -> Peer {
    let mut peer = Peer::connect(wss);
    assert_eq!(peer.ask_for_upgrade(&forwarded_for(address)), 101);
    peer
}

fn forwarded_for(address: Ipv4Addr) -> String {
    format!("X-Forwarded-For: {address}\r\n")
}

fn flood_from_many_networks_shuts_no_login_out_wherever_it_comes_from(over: Over) {
    let node = Node::new(1);
    // Of 512 descriptors, 64 connections may wait for their login.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 512 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_beacon-relay")]);
    let relay = over.relay_by(command, &[&node], &["--canary-interval", "0s"]);
    let mut flood = Flood::new(relay.wss);
    flood.come(80);
    relay.wait_for_metric("pilot_beacon_wss_waiting", 64.0);

    for login in 0..LOGINS {
        let address = if login % 2 == 0 { [1, 0, 0, 1] } else { [223, 255, 255, 1] };
        // The proxy opens two connections in one moment, before it says for whom.
        let mut peer = Peer::connect(relay.wss);
        let mut other = Peer::connect(relay.wss);
        flood.come(BETWEEN_STEPS);
        assert_eq!(peer.ask_for_upgrade(&forwarded_for(address.into())), 101, "login {login}");
        assert_eq!(other.ask_for_upgrade(&forwarded_for([2, 0, 0, 1].into())), 101);
        flood.come(BETWEEN_STEPS);
        peer.authenticate(&node, 2);
    }

    let count = |outcome: &str| {
        relay.metric(&format!("pilot_beacon_wss_connections_total{{outcome=\"{outcome}\"}}"))
    };
    assert_eq!(count("auth_ok"), f64::from(LOGINS));
    assert!(count("crowded_out") >= f64::from(LOGINS) * 10.0, "{}", relay.metrics());
    // Who waited longest went first.
    let mut first = flood.waiting.pop_front().unwrap();
    first.challenge();
    assert_eq!(first.read_close(), (1013, "too many logins".to_owned()));
    let mut last = flood.waiting.pop_back().unwrap();
    last.challenge();
    assert!(last.is_silent(std::time::Duration::from_millis(20)));
}

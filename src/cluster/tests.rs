//! The packet path of one relay, with nobody else there.

use super::*;
use crate::ids::PublicKey;

struct Setup {
    traffic: Arc<Traffic>,
    cluster: Arc<Cluster>,
}

impl Setup {
    fn new() -> Self {
        let traffic = Arc::<Traffic>::default();
        let relay = RelayId(PublicKey([1; 32]));
        let keepalive = Duration::from_secs(5);
        let identity = Identity { relay, boot: [1; 16], name: "test".to_owned(), keepalive };
        Self { cluster: Cluster::new(identity, Arc::clone(&traffic)), traffic }
    }

    fn send(&self, number: u32) {
        let dest = node(number);
        let outward = Outward { sender: node(99), dest, transport: Transport::Udp, count: 1 };
        let payload: &[u8] = b"payload";
        self.cluster.forward(&outward, std::iter::once(payload), Instant::now());
    }

    fn forwards(&self, result: Forward) -> u64 {
        self.cluster.counters.forwards.of(result).value()
    }
}

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn session(serial: u64) -> Here {
    let (standing, takeover) = (Standing::Session, crate::wire::cluster::Takeover::Always);
    Here { serial, standing, takeover, credential: 7, since: None }
}

#[test]
fn node_is_looked_up_though_its_first_question_had_no_room() {
    let setup = Setup::new();
    let waiting = u32::try_from(MAX_ASKS).unwrap();
    setup.cluster.asks.lock().extend((1..=waiting).map(|number| node(1_000_000 + number)));
    setup.send(1);
    assert_eq!(setup.cluster.counters.rejects.of(Reject::NoRoom).value(), 1);
    setup.cluster.asks.lock().clear();

    setup.send(1);
    assert_eq!(*setup.cluster.asks.lock(), [node(1)]);
    setup.cluster.ask();

    assert_eq!(setup.traffic.packets_dropped(Drop::UnknownDestination), 2);
    assert_eq!(setup.cluster.locations.waiting(), 0);
}

#[test]
fn packets_that_waited_for_a_node_which_came_here_are_not_those_of_an_unknown_one() {
    let setup = Setup::new();
    // It comes before the question is asked, and another while it is.
    setup.send(1);
    setup.cluster.arrived(node(1), session(1));
    setup.cluster.arrived(node(2), session(2));
    setup.send(2);
    setup.cluster.ask();

    assert_eq!(setup.traffic.packets_dropped(Drop::Overtaken), 2);
    assert_eq!(setup.traffic.packets_dropped(Drop::UnknownDestination), 0);
    assert_eq!(setup.forwards(Forward::Overtaken), 2);
    assert_eq!((setup.traffic.packets_queued(), setup.cluster.locations.waiting()), (0, 0));
}

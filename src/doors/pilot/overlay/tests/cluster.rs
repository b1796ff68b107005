//! Packets of other relays: delivered, answered with a NACK, or refused for whom they speak.

use super::*;
use crate::cluster::{Identity, Member};
use crate::ids::{PublicKey, RelayId};
use crate::metrics::Transport;
use crate::wire::cluster::{
    Frame, Frames, Location, Ownership, Run as Flow, Takeover, add_packet, begin_packets, encode,
};
use crate::wire::name::Name;

fn relay(byte: u8) -> RelayId {
    RelayId(PublicKey([byte; 32]))
}

pub(super) fn node(number: u32) -> Name {
    NodeId::new(number).unwrap().into()
}

/// A relay with two others.
pub(super) struct Siblings {
    pub(super) fixture: Fixture,
    pub(super) cluster: Arc<Cluster>,
    pub(super) b: Arc<Member>,
    c: Arc<Member>,
}

impl Siblings {
    pub(super) fn new() -> Self {
        let traffic = Arc::<Traffic>::default();
        let identity =
            Identity { relay: relay(1), boot: [1; 16], name: "test".to_owned(), keepalive: SECOND };
        let cluster = Cluster::new(identity, Arc::clone(&traffic));
        let fixture = Fixture::in_cluster(traffic, Some(Arc::clone(&cluster)));
        let [b, c] = [2, 3].map(|byte| cluster.joined(relay(byte), String::new()));
        Self { fixture, cluster, b, c }
    }

    /// Takes in one packet of a relay, from `sender` to `dest`.
    fn packet(&self, from: &Arc<Member>, sender: u32, dest: u32) {
        let mut batch = Vec::new();
        let run = Flow { dest: node(dest), sender: node(sender), epoch: 5 };
        let at = begin_packets(&run, &mut batch);
        add_packet(at, b"payload", &mut batch);
        self.cluster.receive(from, &batch, Instant::now()).unwrap();
    }

    /// Has a home of a node say which relay has it.
    fn hears(&self, number: u32, owner: u8, ownership: Ownership) {
        let homes = self.cluster.homes(node(number));
        let home = [&self.b, &self.c].into_iter().find(|member| homes.contains(&member.relay));
        self.hears_of(home.unwrap(), number, owner, ownership);
    }

    /// Has a relay say which one has a node.
    fn hears_of(&self, from: &Arc<Member>, number: u32, owner: u8, ownership: Ownership) {
        let location = Location { owner: relay(owner), epoch: 9, ownership };
        let mut batch = Vec::new();
        encode(&Frame::Moved { id: node(number), location, ends: 0 }, &mut batch);
        self.cluster.receive(from, &batch, Instant::now()).unwrap();
    }

    /// Registers a node over UDP here.
    fn register(&mut self, number: u32) {
        let discover = [&[0x01][..], &number.to_be_bytes()].concat();
        assert_eq!(self.fixture.one(at(7), &discover, Instant::now()).len(), 1);
    }

    /// What was sent out since, in packets.
    fn sent(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        let runs = std::mem::take(&mut *self.fixture.wire.runs.lock());
        runs.into_iter().flat_map(|(to, ps)| ps.into_iter().map(move |p| (to, p))).collect()
    }
}

/// The NACKs that wait for a relay: node and epoch of each.
async fn nacks(member: &Member) -> Vec<(Name, u64)> {
    let batch = member.outbox.next_words().await.unwrap();
    let nacks = Frames::<Name>::new(&batch.bytes).filter_map(|frame| {
        if let Frame::Nack { id, epoch } = frame.unwrap() { Some((id, epoch)) } else { None }
    });
    nacks.collect()
}

#[test]
fn packet_of_another_relay_is_delivered_here() {
    let mut siblings = Siblings::new();
    siblings.register(21);
    siblings.packet(&siblings.b, 12, 21);
    let header = [0x06, 0, 0, 0, 12];
    assert_eq!(siblings.sent(), [(at(7), [&header[..], b"payload"].concat())]);
    let traffic = &siblings.fixture.relay.traffic;
    assert_eq!(traffic.packets_in(Transport::Cluster), 1);
}

#[tokio::test]
async fn packet_for_a_node_that_is_not_here_is_answered_and_never_forwarded_again() {
    let siblings = Siblings::new();
    // Its location is known: even so, the packet goes nowhere.
    siblings.hears(22, 3, Ownership::Session);
    siblings.packet(&siblings.b, 12, 22);
    assert_eq!(siblings.fixture.dropped(Drop::NOT_HERE), 1);
    assert_eq!(nacks(&siblings.b).await, [(node(22), 5)]);
    assert_eq!(siblings.cluster.counters().nacks_sent.value(), 1);
    let forwarded = siblings.fixture.relay.traffic.packets_queued();
    assert_eq!((forwarded, siblings.sent().len()), (0, 0));
}

#[test]
fn relay_speaks_for_no_node_that_is_known_to_be_somebody_elses() {
    let mut siblings = Siblings::new();
    siblings.register(21);
    // 12 has its session at relay 3, as far as is known.
    siblings.hears(12, 3, Ownership::Session);
    siblings.packet(&siblings.b, 12, 21);
    assert_eq!(siblings.fixture.dropped(Drop::SENDER_ELSEWHERE), 1);
    siblings.packet(&siblings.c, 12, 21);
    assert_eq!(siblings.fixture.dropped(Drop::SENDER_ELSEWHERE), 1);
    assert_eq!(siblings.sent().len(), 1);
    // Of 13 nothing is known, and nobody is asked.
    siblings.packet(&siblings.b, 13, 21);
    assert_eq!((siblings.sent().len(), siblings.cluster.status().looked_up), (1, 0));
}

#[test]
fn relay_that_says_it_has_a_node_of_other_homes_does_not_silence_it() {
    let mut siblings = Siblings::new();
    siblings.register(21);
    let not_home = |number: &u32| !siblings.cluster.homes(node(*number)).contains(&relay(3));
    let number = (100..).find(not_home).unwrap();
    siblings.hears_of(&siblings.c, number, 3, Ownership::Session);
    assert_eq!(siblings.cluster.status().locations, 0);
    siblings.packet(&siblings.b, number, 21);
    assert_eq!(siblings.sent().len(), 1);
}

#[test]
fn relay_speaks_for_no_node_with_a_session_here() {
    let mut siblings = Siblings::new();
    siblings.register(21);
    let _registered = log_in(&siblings.fixture.relay, 12);
    siblings.packet(&siblings.b, 12, 21);
    assert_eq!(siblings.fixture.dropped(Drop::SENDER_ELSEWHERE), 1);
    assert!(siblings.sent().is_empty());
}

#[test]
fn node_with_a_session_elsewhere_is_not_believed_over_udp() {
    let mut siblings = Siblings::new();
    siblings.hears(12, 3, Ownership::Session);
    let discover = [&[0x01][..], &12u32.to_be_bytes()].concat();
    assert_eq!(siblings.fixture.one(at(8), &discover, Instant::now()).len(), 1);
    assert_eq!(siblings.fixture.relay.table.endpoint_count(), 0);
    let punch = [&[0x03][..], &12u32.to_be_bytes(), &21u32.to_be_bytes()].concat();
    assert!(siblings.fixture.one(at(8), &punch, Instant::now()).is_empty());
    assert_eq!(siblings.fixture.dropped(PilotDrop::CLAIM_OF_WSS_NODE), 1);
    let packet = [&[0x05][..], &12u32.to_be_bytes(), &21u32.to_be_bytes()].concat();
    siblings.fixture.one(at(8), &packet, Instant::now());
    assert_eq!(siblings.fixture.dropped(PilotDrop::SENDER_IS_WSS), 1);
}

#[test]
fn packet_from_a_beacon_does_not_go_to_a_beacon_behind_another_relay() {
    let mut siblings = Siblings::new();
    siblings.hears(77, 3, Ownership::Gateway);
    siblings.fixture.relay.beacons().list([at(9)]);
    let packet = [&[0x05][..], &12u32.to_be_bytes(), &77u32.to_be_bytes()].concat();
    siblings.fixture.one(at(9), &packet, Instant::now());
    assert_eq!(siblings.fixture.dropped(PilotDrop::BEACON_LOOP), 1);
    siblings.fixture.one(at(7), &packet, Instant::now());
    assert_eq!(siblings.fixture.relay.traffic.packets_queued(), 1, "a node's packet goes there");
}

#[test]
fn bytes_that_are_no_batch_change_nothing_but_what_came_before_them() {
    let mut siblings = Siblings::new();
    siblings.register(21);
    let mut batch = Vec::new();
    let run = Flow { dest: node(21), sender: node(12), epoch: 5 };
    let at_position = begin_packets(&run, &mut batch);
    add_packet(at_position, b"payload", &mut batch);
    batch.extend([0x10, 0, 0, 0, 9, 1]);
    assert!(siblings.cluster.receive(&siblings.b, &batch, Instant::now()).is_err());
    assert_eq!(siblings.sent().len(), 1);
    assert_eq!(siblings.cluster.members().len(), 2);
}

#[test]
fn node_that_was_here_and_moved_on_is_not_denied_for_where_it_was_before() {
    let mut siblings = Siblings::new();
    siblings.register(21);
    // 12 was at relay 2, then here, and is at relay 3 now, of which nobody told us.
    siblings.hears(12, 2, Ownership::Session);
    let (ownership, takeover) = (Ownership::Session, Takeover::Always);
    let here =
        crate::proto::presence::Here { serial: 1, ownership, takeover, credential: 7, since: None };
    siblings.cluster.arrived(node(12), here);
    siblings.cluster.departed(node(12), 1);
    siblings.packet(&siblings.c, 12, 21);
    assert_eq!((siblings.sent().len(), siblings.fixture.dropped(Drop::SENDER_ELSEWHERE)), (1, 0));
}

#[test]
fn what_the_canary_sent_went_to_the_cluster_where_its_session_was_gone() {
    let siblings = Siblings::new();
    siblings.hears(22, 3, Ownership::Session);
    let relay = &siblings.fixture.relay;
    let (now, shard) = (Instant::now(), relay.traffic.shard());

    for dest in [22, 23] {
        let flow = crate::relay::Flow {
            transport: Transport::Wss,
            source: crate::peers::Source::Session(1),
            sender: node(12),
            dest: node(dest),
            packets: 0..1,
            header: 0,
            is_hidden: true,
        };
        let packet = |_| &b"payload"[..];
        shard.came_in(Transport::Wss, 1, 7);
        crate::relay::Departures::of_batch(None, packet, now, shard, 1, |out| {
            relay.router.carry(&**relay, &flow, packet, out, now, shard);
        });
    }

    assert_eq!(siblings.fixture.dropped(Drop::UNKNOWN_DESTINATION), 2);
    assert_eq!((siblings.cluster.status().looked_up, relay.traffic.unaccounted()), (0, 0));
}

//! The packet path of one relay, with nobody else there.

use super::forward::MAX_ASKS;
use super::*;
use crate::ids::PublicKey;
use crate::metrics::{Drop, Transport};
use crate::wire::cluster::{Frames, Reading, Sight, encode};
use crate::wire::name::testing::name;

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
        let dest = name(number);
        let outward = Outward {
            sender: name(99),
            dest,
            transport: Transport::Udp,
            count: 1,
            from_foreign: false,
        };
        let payload: &[u8] = b"payload";
        let forwarded = self.cluster.forward(&outward, std::iter::once(payload), Instant::now());
        assert!(forwarded.is_ok_and(|filled| filled.is_none()));
    }

    fn forwards(&self, result: Forward) -> u64 {
        self.cluster.counters.forwards.of(result).value()
    }
}

fn session(serial: u64) -> Here {
    let (ownership, takeover) = (Ownership::Session, crate::wire::cluster::Takeover::Always);
    Here { serial, ownership, takeover, credential: 7, since: None }
}

#[test]
fn peer_is_looked_up_though_its_first_question_had_no_room() {
    let setup = Setup::new();
    let waiting = u32::try_from(MAX_ASKS).unwrap();
    setup.cluster.asks.lock().extend((1..=waiting).map(|number| name(1_000_000 + number)));
    setup.send(1);
    assert_eq!(setup.cluster.counters.rejects.of(Reject::NoRoom).value(), 1);
    setup.cluster.asks.lock().clear();

    setup.send(1);
    assert_eq!(*setup.cluster.asks.lock(), [name(1)]);
    setup.cluster.ask();

    assert_eq!(setup.traffic.packets_dropped(Drop::UNKNOWN_DESTINATION), 2);
    assert_eq!(setup.cluster.locations.waiting(), 0);
}

#[test]
fn packets_that_waited_for_a_peer_which_came_here_are_not_those_of_an_unknown_one() {
    let setup = Setup::new();
    // It comes before the question is asked, and another while it is.
    setup.send(1);
    setup.cluster.arrived(name(1), session(1));
    setup.cluster.arrived(name(2), session(2));
    setup.send(2);
    setup.cluster.ask();

    assert_eq!(setup.traffic.packets_dropped(Drop::OVERTAKEN), 2);
    assert_eq!(setup.traffic.packets_dropped(Drop::UNKNOWN_DESTINATION), 0);
    assert_eq!(setup.forwards(Forward::Overtaken), 2);
    assert_eq!((setup.traffic.packets_queued(), setup.cluster.locations.waiting()), (0, 0));
}

/// Has a member tell its clock, which is ahead of ours by so much, as soon as it knows ours.
async fn tell_clock(cluster: &Cluster, member: &Arc<Member>, ahead_ms: i64) {
    member.tell_clock(cluster.now().unix_ms, Instant::now());
    let batch = member.outbox.next_words().await.unwrap();
    let readings = Frames::<Name>::new(&batch.bytes).filter_map(|frame| match frame {
        Ok(Frame::Clock(reading)) => Some(reading),
        _ => None,
    });
    let echo_ms = readings.last().expect("our clock is told").shown_ms;
    let shown_ms = echo_ms.checked_add_signed(ahead_ms).unwrap();
    let mut answer = Vec::new();
    encode(&Frame::<Name>::Clock(Reading { shown_ms, echo_ms, held_ms: 0 }), &mut answer);
    cluster.receive(member, &answer, Instant::now()).unwrap();
}

/// Within what a test machine that has other work takes for an answer.
fn about(seconds: i64, ahead_ms: Option<i64>) -> bool {
    ahead_ms.is_some_and(|ms| (ms - seconds * 1_000).abs() < 1_500)
}

#[tokio::test]
async fn relay_whose_clock_differs_from_most_others_knows_that_it_is_its_own() {
    let Setup { cluster, .. } = Setup::new();
    let members = [2, 3].map(|n| cluster.joined(RelayId(PublicKey([n; 32])), String::new()));
    assert_eq!(cluster.status().clock_ahead_ms, None);

    for member in &members {
        tell_clock(&cluster, member, 70_000).await;
    }

    let status = cluster.status();
    assert!(status.clock_is_off && about(-70, status.clock_ahead_ms), "{status:?}");
    assert!(status.members.iter().all(|member| about(70, member.clock_ahead_ms)));
    assert!(status.members.iter().all(|member| !member.clock_is_off), "{status:?}");
}

#[tokio::test]
async fn member_whose_clock_differs_from_most_others_is_named() {
    let Setup { cluster, .. } = Setup::new();
    let members = [2, 3].map(|n| cluster.joined(RelayId(PublicKey([n; 32])), String::new()));

    tell_clock(&cluster, &members[0], 0).await;
    tell_clock(&cluster, &members[1], -70_000).await;

    let status = cluster.status();
    assert!(!status.clock_is_off && about(0, status.clock_ahead_ms), "{status:?}");
    let off: Vec<_> = status.members.iter().map(|member| member.clock_is_off).collect();
    assert_eq!(off, [false, true]);
    assert!(about(-70, status.members[1].clock_ahead_ms), "{status:?}");
}

/// Another relay that answers watches, and what it is told.
struct Other {
    member: Arc<Member>,
    relay: RelayId,
}

impl Other {
    fn join(cluster: &Cluster) -> Self {
        let relay = RelayId(PublicKey([2; 32]));
        let other = Self { member: cluster.joined(relay, "there".to_owned()), relay };
        other.say(
            cluster,
            &Frame::About(About { features: About::WATCHES, told: 0, channels: None }),
        );
        other
    }

    fn say(&self, cluster: &Cluster, frame: &Frame<'_, Name>) {
        let mut batch = Vec::new();
        encode(frame, &mut batch);
        cluster.receive(&self.member, &batch, Instant::now()).unwrap();
    }

    /// Waits until it is told to watch a peer; returns the nonce.
    async fn hears_watch(&self, peer: Name) -> u32 {
        loop {
            let batch = self.member.outbox.next_words().await.expect("the link is up");
            let mut frames = Frames::<Name>::new(&batch.bytes).flatten();
            let nonce = frames.find_map(|frame| {
                let Frame::Watch { id, nonce, is_on: true } = frame else { return None };
                (id == peer).then_some(nonce)
            });
            if let Some(nonce) = nonce {
                return nonce;
            }
        }
    }
}

#[tokio::test]
async fn door_learns_of_a_peer_once_as_it_is_now_and_by_the_number_of_its_watch() {
    let Setup { cluster, .. } = Setup::new();
    let other = Other::join(&cluster);
    let peer = name(7);
    let watch = cluster.watch(peer.realm());
    let number = watch.begin(peer);
    assert_eq!(cluster.presence.lock().stats().watched, 0, "it waits for nobody");
    cluster.ask();
    let nonce = other.hears_watch(peer).await;
    let (owner, ownership) = (other.relay, Ownership::Session);
    let location = Location { owner, epoch: 5, ownership };

    for (version, sight) in
        [(1, Sight::At(location)), (2, Sight::Over(location)), (3, Sight::At(location))]
    {
        other.say(&cluster, &Frame::Locate { id: peer, nonce, version, serial: version, sight });
    }
    watch.changed().await;
    assert_eq!(watch.take(), [Change { peer, number, is_elsewhere: true }]);
    assert_eq!((watch.take(), cluster.watched(peer)), (vec![], Some(true)));

    // What is ended and begun before anybody has heard goes on, under the new number.
    watch.end(peer, number);
    let later = watch.begin(peer);
    cluster.ask();
    assert_eq!(watch.take(), [Change { peer, number: later, is_elsewhere: true }]);
    watch.end(peer, later);
    cluster.ask();
    let after = |time| Now { at: Instant::now() + time, ..cluster.now() };
    cluster.watching.expire(&mut cluster.presence.lock(), after(Duration::ZERO));
    assert_eq!(cluster.watched(peer), Some(true), "it may be begun anew");
    cluster.watching.expire(&mut cluster.presence.lock(), after(watching::LINGER));
    assert_eq!((watch.take(), cluster.watched(peer)), (vec![], None));
}

#[test]
fn relay_that_tells_its_clients_another_address_is_seen_and_one_that_tells_nothing_is_not() {
    let Setup { cluster, .. } = Setup::new();
    cluster.tell_alike(3);
    let other = Other::join(&cluster);
    let differs = || cluster.status().members[0].tells_another_address;
    assert!(!differs());
    other.say(&cluster, &Frame::About(About { features: 0, told: 4, channels: None }));
    assert!(differs());
    other.say(&cluster, &Frame::About(About { features: 0, told: 3, channels: None }));
    assert!(!differs());
}

//! Two relays whose doors talk, with nothing between them but a test.

use parking_lot::Mutex;
use std::collections::VecDeque;

use super::*;
use crate::cluster::{Identity, Said};
use crate::ids::{PublicKey, RelayId};
use crate::metrics::Traffic;
use crate::wire::cluster::{About, ChannelRealms, Frames, encode};
use crate::wire::name::Name;

const REALM: Realm = Realm(200);
const OTHER: Realm = Realm(255);

/// A door that remembers.
#[derive(Default)]
struct Door {
    channels: Mutex<Vec<Arc<Channel>>>,
    heard: Mutex<VecDeque<Vec<u8>>>,
    /// How many messages had come at the end of each batch.
    settled: Mutex<Vec<usize>>,
}

impl ChannelOwner for Door {
    fn channel_up(&self, channel: &Arc<Channel>) {
        assert_eq!(channel.say(b"hello", false, Instant::now()), Said::Queued);
        self.channels.lock().push(Arc::clone(channel));
    }

    fn channel_down(&self, channel: &Channel) {
        self.channels.lock().retain(|other| other.number != channel.number);
    }

    fn channel_heard(&self, channel: &Channel, message: &[u8], _: Instant) -> bool {
        assert!(self.channels.lock().iter().any(|known| known.number == channel.number));
        self.heard.lock().push_back(message.to_vec());
        message != b"nonsense"
    }

    fn channels_settled(&self, _: Instant) {
        self.settled.lock().push(self.heard.lock().len());
    }
}

impl Door {
    fn channel(&self) -> Arc<Channel> {
        let channels = self.channels.lock();
        let [channel] = &**channels else { panic!("{} channels", channels.len()) };
        Arc::clone(channel)
    }

    fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().drain(..).collect()
    }
}

struct Relay {
    cluster: Arc<Cluster>,
    door: Arc<Door>,
    /// The other one.
    member: Arc<Member>,
}

struct Pair {
    relays: [Relay; 2],
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let relay = |own: u8, other: u8| {
            let identity = Identity {
                relay: RelayId(PublicKey([own; 32])),
                boot: [own; 16],
                name: "test".to_owned(),
                keepalive: Duration::from_secs(5),
            };
            let cluster = Cluster::new(identity, Arc::<Traffic>::default());
            let door = Arc::<Door>::default();
            let weak: Weak<dyn ChannelOwner> = Arc::<Door>::downgrade(&door);
            cluster.own_channels(REALM, weak);
            let member = cluster.joined(RelayId(PublicKey([other; 32])), String::new());
            Relay { cluster, door, member }
        };
        Self { relays: [relay(1, 2), relay(2, 1)], now: Instant::now() }
    }

    fn say(&self, to: usize, frame: &Frame<'_, Name>) {
        let mut batch = Vec::new();
        encode(frame, &mut batch);
        let Relay { cluster, member, .. } = &self.relays[to];
        cluster.receive(member, &batch, self.now).unwrap();
    }

    /// Both say that doors of theirs talk: these, or as a relay whose only one is for all.
    fn offer_realms(&self, realms: Option<&[Realm]>) {
        let channels = realms.map(|realms| realms.iter().map(|realm| realm.0).collect());
        for to in [0, 1] {
            let about = About { features: About::CHANNELS, told: 0, channels };
            self.say(to, &Frame::About(about));
        }
    }

    fn offer(&self) {
        self.offer_realms(None);
    }

    /// Each relay has another door that talks.
    fn add_doors(&self, realm: Realm) -> [Arc<Door>; 2] {
        [0, 1].map(|relay| {
            let door = Arc::<Door>::default();
            let weak: Weak<dyn ChannelOwner> = Arc::<Door>::downgrade(&door);
            self.relays[relay].cluster.own_channels(realm, weak);
            door
        })
    }

    /// Moves what waits, but for what `loses`, until nothing does; the time goes on meanwhile.
    fn carry(&mut self, mut loses: impl FnMut(usize, &Frame<'_, Name>) -> bool) {
        for _ in 0..4 {
            self.now += PAUSE;
            for Relay { cluster, member, .. } in &self.relays {
                cluster.keep_channels(member, self.now);
            }
            for from in [0, 1, 0, 1] {
                while let Some(batch) = self.relays[from].member.outbox.pop_channel() {
                    for frame in Frames::<Name>::new(&batch).map(Result::unwrap) {
                        if !loses(from, &frame) {
                            self.say(1 - from, &frame);
                        }
                    }
                }
            }
        }
    }

    fn hears_hello(&self) {
        for Relay { door, .. } in &self.relays {
            assert_eq!(door.heard(), [b"hello"]);
        }
        assert_eq!(self.relays[0].door.channel().number, self.relays[1].door.channel().number);
    }
}

#[test]
fn messages_of_any_length_come_whole_and_in_order_behind_what_is_said_first() {
    let mut pair = Pair::new();
    pair.carry(|_, _| false);
    assert!(pair.relays[0].door.channels.lock().is_empty(), "nobody has said that it talks");
    pair.offer();
    pair.carry(|_, _| false);
    pair.hears_hello();
    let messages = [0, 1, 64_999, 65_000, 65_001, 300_000].map(|length| vec![7; length]);
    for from in [0, 1] {
        let channel = pair.relays[from].door.channel();
        for message in &messages {
            assert_eq!(channel.say(message, false, pair.now), Said::Queued);
        }
        pair.carry(|_, frame| {
            let mut bytes = Vec::new();
            encode(frame, &mut bytes);
            assert!(bytes.len() <= 65_536, "a frame of {} bytes", bytes.len());
            false
        });
        assert_eq!(pair.relays[1 - from].door.heard(), messages);
    }
}

#[test]
fn door_is_told_of_the_end_of_a_batch_once_and_behind_all_its_messages() {
    let mut pair = Pair::new();
    pair.offer();
    pair.carry(|_, _| false);
    pair.hears_hello();
    let channel = pair.relays[0].door.channel();
    (0..3).for_each(|_| assert_eq!(channel.say(b"x", false, pair.now), Said::Queued));
    let mut batch = Vec::new();
    while let Some(part) = pair.relays[0].member.outbox.pop_channel() {
        batch.extend_from_slice(&part);
    }

    let Relay { cluster, member, door } = &pair.relays[1];
    door.settled.lock().clear();
    cluster.receive(member, &batch, pair.now).unwrap();

    assert_eq!(*door.settled.lock(), [3]);
}

#[test]
fn channel_that_loses_anything_begins_anew_for_both() {
    for lost_from in [0, 1] {
        let mut pair = Pair::new();
        pair.offer();
        pair.carry(|_, _| false);
        pair.hears_hello();
        let before = pair.relays[0].door.channel().number;
        let channel = pair.relays[lost_from].door.channel();
        channel.say(b"lost", false, pair.now);
        channel.say(b"behind", false, pair.now);
        let mut is_lost = false;
        pair.carry(|from, _| from == lost_from && !std::mem::replace(&mut is_lost, true));
        pair.hears_hello();
        assert_ne!(pair.relays[0].door.channel().number, before);
        assert_eq!(channel.say(b"late", false, pair.now), Said::Queued, "and goes nowhere");
        pair.carry(|_, _| false);
        assert!(pair.relays.iter().all(|relay| relay.door.heard().is_empty()));
    }
}

#[test]
fn what_is_said_of_a_channel_may_be_lost_as_well() {
    let mut pair = Pair::new();
    pair.offer();
    let mut losses = 3;
    pair.carry(|_, _| {
        losses = i32::max(losses - 1, -1);
        losses >= 0
    });
    pair.carry(|_, _| false);
    for Relay { door, .. } in &pair.relays {
        assert_eq!(door.heard().last().unwrap(), b"hello");
    }
    assert_eq!(pair.relays[0].door.channel().number, pair.relays[1].door.channel().number);
}

#[test]
fn nonsense_ends_a_channel_and_so_does_the_link() {
    let mut pair = Pair::new();
    pair.offer();
    pair.carry(|_, _| false);
    pair.hears_hello();
    let before = pair.relays[1].door.channel().number;
    pair.relays[0].door.channel().say(b"nonsense", false, pair.now);
    pair.carry(|_, _| false);
    assert_ne!(pair.relays[1].door.channel().number, before);
    let Relay { cluster, member, door } = &pair.relays[0];
    cluster.left(member, "test");
    assert!(door.channels.lock().is_empty());
}

#[test]
fn what_may_be_lost_goes_first_and_what_may_not_ends_the_channel() {
    let mut pair = Pair::new();
    pair.offer();
    pair.carry(|_, _| false);
    pair.hears_hello();
    let channel = pair.relays[0].door.channel();
    let message = vec![0; 1 << 20];
    let queued = (0..32).filter(|_| channel.say(&message, true, pair.now) == Said::Queued).count();
    assert_eq!(queued, 7);
    assert_eq!(channel.say(&message, true, pair.now), Said::Lost);
    let kept = (0..32).take_while(|_| channel.say(&message, false, pair.now) == Said::Queued);
    assert_eq!(kept.count(), 8);
    pair.carry(|_, _| false);
    pair.hears_hello();
}

#[test]
fn each_door_has_channels_of_its_own() {
    let mut pair = Pair::new();
    let others = pair.add_doors(OTHER);
    pair.offer_realms(Some(&[REALM, OTHER]));
    pair.carry(|_, _| false);
    pair.hears_hello();
    assert!(others.iter().all(|other| other.heard() == [b"hello"]));
    for from in [0, 1] {
        for number in 0..100_u8 {
            let door = if number % 3 == 0 { &others[from] } else { &pair.relays[from].door };
            let message = vec![number; 30_000];
            assert_eq!(door.channel().say(&message, false, pair.now), Said::Queued);
        }
        pair.carry(|_, _| false);
        let heard = |door: &Door| door.heard().into_iter().map(|message| message[0]).collect();
        let (of_other, of_door): (Vec<u8>, Vec<u8>) = (0..100).partition(|number| number % 3 == 0);
        let heard: [Vec<u8>; 2] =
            [&others[1 - from], &pair.relays[1 - from].door].map(|d| heard(d));
        assert_eq!(heard, [of_other, of_door]);
    }
}

#[test]
fn door_that_says_too_much_costs_no_other_its_channel_or_its_turn() {
    let mut pair = Pair::new();
    let others = pair.add_doors(OTHER);
    pair.offer_realms(Some(&[REALM, OTHER]));
    pair.carry(|_, _| false);
    pair.hears_hello();
    let before = others[0].channel().number;
    let (loud, quiet) = (pair.relays[0].door.channel(), others[0].channel());
    let message = vec![0; 1 << 20];
    while loud.say(&message, false, pair.now) == Said::Queued {}
    quiet.say(b"quiet", false, pair.now);

    // Its turn comes behind one batch of the other's.
    let outbox = &pair.relays[0].member.outbox;
    let batches = [(); 2].map(|()| outbox.pop_channel().unwrap());
    assert!(batches.iter().any(|batch| batch.ends_with(b"quiet")));
    batches.iter().for_each(|batch| {
        let Relay { cluster, member, .. } = &pair.relays[1];
        cluster.receive(member, batch, pair.now).unwrap();
    });
    assert_eq!(others[1].heard(), [&b"hello"[..], b"quiet"]);
    pair.carry(|_, _| false);
    assert_eq!(others[0].channel().number, before);
    assert_ne!(pair.relays[0].door.channel().number, loud.number);
}

#[test]
fn door_that_the_other_relay_does_not_have_opens_nothing() {
    let mut pair = Pair::new();
    let others = pair.add_doors(OTHER);
    let offered: ChannelRealms = [REALM.0].into_iter().collect();
    pair.offer_realms(Some(&[REALM]));
    pair.carry(|_, frame| {
        let Frame::Channel(said) = frame else { panic!("{frame:?}") };
        assert!(offered.contains(said.realm));
        false
    });
    pair.hears_hello();
    assert!(others.iter().all(|other| other.channels.lock().is_empty()));
}

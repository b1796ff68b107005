//! The limits of channels: who meets one is told which, and what nobody reads takes no room.

use super::*;

impl Fixture {
    /// A session subscribes these channels; why it ends, if it does.
    fn subscribe(
        &mut self,
        (mailbox, generation): (MailboxId, u64),
        names: &[&str],
        is_ephemeral: bool,
    ) -> Option<Withdrawn> {
        let channels = names.iter().map(|name| Arc::from(*name)).collect();
        let subscription = Subscription { channels, is_ephemeral };
        self.bus.subscribe(mailbox, generation, &subscription, self.now, &mut self.turn);
        self.finish().effects.iter().find_map(|effect| match effect {
            Effect::Withdraw { why, .. } => Some(*why),
            Effect::Deliver { .. } | Effect::Records { .. } | Effect::Load(_) => None,
        })
    }
}

/// A bus with room for so many channels and cursors, and two sessions.
fn crowded(channels: usize, cursors: usize) -> (Fixture, (MailboxId, u64), (MailboxId, u64)) {
    let channels = ChannelLimits { channels, cursors, ..ChannelLimits::default() };
    let mut fixture = Fixture::new(Limits { channels, ..Limits::default() });
    let sessions = [("alice", ALICE, 1), ("bob", BOB, 2)].map(|(name, owner, generation)| {
        let mailbox = fixture.claim(name, owner);
        fixture.open(mailbox, generation);
        (mailbox, generation)
    });
    let [alice, bob] = sessions;
    (fixture, alice, bob)
}

#[test]
fn subscriber_is_told_which_limit_it_meets() {
    let (mut fixture, alice, bob) = crowded(3, 2);
    assert_eq!(fixture.subscribe(alice, &["a", "b"], false), None);
    assert_eq!(fixture.subscribe(bob, &["c"], false), Some(Withdrawn::Cursors));
    assert_eq!(fixture.subscribe(bob, &["c"], true), None, "it leaves no cursor");
    assert_eq!(fixture.subscribe(bob, &["a", "c", "d"], true), Some(Withdrawn::Channels));

    let names: Vec<_> = (0..=MOST_CHANNELS_OF_PEER).map(|number| number.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (mut fixture, alice, _) = crowded(10_000, 100_000);
    let (_, all_but_one) = names.split_last().unwrap();
    assert_eq!(fixture.subscribe(alice, all_but_one, false), None);
    assert_eq!(fixture.subscribe(alice, &names, false), Some(Withdrawn::ChannelsOfPeer));
    // Its cursors stay where it parts from a channel.
    assert_eq!(fixture.subscribe(alice, &["another"], false), Some(Withdrawn::ChannelsOfPeer));
}

#[test]
fn peer_that_goes_from_channel_to_channel_takes_no_room_from_others() {
    let (mut fixture, alice, bob) = crowded(3, 100);
    for round in 0..5 {
        let names = ["x", "y", "z"].map(|name| format!("{name}{round}"));
        assert_eq!(fixture.subscribe(alice, &names.each_ref().map(|name| &**name), true), None);
    }
    assert_eq!(fixture.subscribe(bob, &["a"], false), Some(Withdrawn::Channels), "all are read");
    assert_eq!(fixture.subscribe(alice, &["x4"], true), None);
    assert_eq!(fixture.subscribe(bob, &["a", "b"], false), None);
    assert_eq!(fixture.bus.channel_totals().channels, 3);
}

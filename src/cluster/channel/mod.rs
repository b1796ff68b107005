//! Channels: what a door here and the same door at another relay tell each other, in order and
//! whole, for as long as nothing is lost. Each door that talks has channels of its own, which do
//! not wait for each other.
//!
//! Of two relays that with the lower id opens a channel, once the other has said that its door
//! talks. What cannot go on, for want of room or since something was lost, ends for both doors, and
//! a new channel begins after a moment: each door tells what the other has to know from the
//! beginning.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::line::{Channel, Current, Line, say};
use super::{Cluster, Member};
use crate::wire::cluster::{self, ChannelRealms, ChannelWord, Frame};
use crate::wire::name::Realm;

/// From one channel to the next of the same two relays; and until what has no answer is said again.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest message: a record of 8 MiB, and some room.
const MAX_MESSAGE: usize = 9 << 20;

/// A door that talks over channels.
pub trait ChannelOwner: Send + Sync {
    /// A channel begins: says what the other door has to know. Nothing comes over it before.
    fn channel_up(&self, channel: &Arc<Channel>);

    /// A channel is over.
    fn channel_down(&self, channel: &Channel);

    /// A message came over a channel; false where it is none, which ends the channel.
    ///
    /// What comes of it may wait for [`Self::channels_settled`].
    fn channel_heard(&self, channel: &Channel, message: &[u8], now: Instant) -> bool;

    /// The batch is over that had messages of channels; of which doors is not said.
    fn channels_settled(&self, _now: Instant) {}
}

/// What doors talk by, each with its realm.
pub(super) type Owners = Vec<(Realm, Weak<dyn ChannelOwner>)>;

impl Cluster {
    /// Has the door of a realm talk over channels to the same door at each other relay that has it;
    /// the first call for a realm counts.
    pub fn own_channels(&self, realm: Realm, owner: Weak<dyn ChannelOwner>) {
        {
            let mut owners = self.channels.write();
            if owners.iter().all(|(of, _)| *of != realm) {
                owners.push((realm, owner));
            }
        }
        let now = Instant::now();
        for member in self.members() {
            member.outbox.say(&Frame::About(self.about()), now);
        }
    }

    /// The realms of the doors that talk; `None` where there is none.
    pub(super) fn channel_realms(&self) -> Option<ChannelRealms> {
        let owners = self.channels.read();
        (!owners.is_empty()).then(|| owners.iter().map(|(realm, _)| realm.0).collect())
    }

    /// The doors that talk.
    fn channel_owners(&self) -> Vec<(Realm, Arc<dyn ChannelOwner>)> {
        let owners = self.channels.read();
        owners.iter().filter_map(|(realm, owner)| Some((*realm, owner.upgrade()?))).collect()
    }

    fn channel_owner(&self, realm: u8) -> Option<(Realm, Arc<dyn ChannelOwner>)> {
        let owners = self.channels.read();
        let (realm, owner) = owners.iter().find(|(of, _)| of.0 == realm)?;
        Some((*realm, owner.upgrade()?))
    }

    /// Whether it is ours to open channels to this relay.
    fn opens(&self, member: &Member) -> bool {
        self.identity.relay < member.relay
    }

    /// Opens channels that are due, ends broken ones, and says again what has no answer.
    pub(super) fn keep_channels(&self, member: &Arc<Member>, now: Instant) {
        for (realm, owner) in self.channel_owners() {
            self.keep_channel(member, realm, &*owner, now);
        }
    }

    fn keep_channel(
        &self,
        member: &Arc<Member>,
        realm: Realm,
        owner: &dyn ChannelOwner,
        now: Instant,
    ) {
        let line = member.lines.of(realm);
        let mut line = line.lock();
        let is_broken = line.current.as_ref().is_some_and(|current| current.channel.is_broken());
        if is_broken {
            let over = self.abandon(&mut line, member, realm, now);
            drop(line);
            return tell_down(owner, over);
        }
        if now < line.due || !member.lines.offers(realm) {
            return;
        }
        line.due = now + PAUSE;
        if !self.opens(member) {
            if let Some(number) = line.reset {
                say(&member.outbox, realm, number, ChannelWord::Reset, now);
            }
            return;
        }
        if line.current.as_ref().is_some_and(|current| current.is_accepted) {
            return;
        }
        let Ok(number) = getrandom::u64() else { return };
        let over = line.current.take();
        member.outbox.clear_channel(realm.0);
        say(&member.outbox, realm, number, ChannelWord::Open, now);
        let current = Current::begin((member.relay, &member.outbox), realm, number, false);
        // Before anything can come over it: that waits for the lock of the line.
        owner.channel_up(&current.channel);
        line.current = Some(current);
        drop(line);
        tell_down(owner, over);
    }

    /// Takes in what another relay says of a channel, or over it.
    pub(super) fn receive_channel(
        &self,
        member: &Arc<Member>,
        said: cluster::Channel<'_>,
        now: Instant,
    ) {
        let cluster::Channel { realm, number, word } = said;
        let Some((realm, owner)) = self.channel_owner(realm) else { return };
        let line = member.lines.of(realm);
        let mut line = line.lock();
        let mut over = None;
        match word {
            ChannelWord::Open if !self.opens(member) => {
                if !line.is(number) {
                    over = line.current.take();
                    line.reset = None;
                    member.outbox.clear_channel(realm.0);
                    say(&member.outbox, realm, number, ChannelWord::Accept, now);
                    let to = (member.relay, &member.outbox);
                    let current = Current::begin(to, realm, number, true);
                    owner.channel_up(&current.channel);
                    line.current = Some(current);
                }
            }
            ChannelWord::Accept if line.is(number) => {
                if let Some(current) = &mut line.current {
                    current.is_accepted = true;
                }
            }
            ChannelWord::Reset if self.opens(member) && line.is(number) => {
                over = self.abandon(&mut line, member, realm, now);
            }
            ChannelWord::Part { seq, is_last, bytes } if line.is(number) => {
                let Some(current) = &mut line.current else { return };
                let is_next = seq == current.seq;
                current.seq = current.seq.wrapping_add(1);
                if !is_next || current.parts.len() + bytes.len() > MAX_MESSAGE {
                    over = self.abandon(&mut line, member, realm, now);
                } else if !is_last {
                    current.parts.extend_from_slice(bytes);
                } else {
                    let channel = Arc::clone(&current.channel);
                    let mut parts = std::mem::take(&mut current.parts);
                    drop(line);
                    let message = if parts.is_empty() {
                        bytes
                    } else {
                        parts.extend_from_slice(bytes);
                        &parts
                    };
                    if !owner.channel_heard(&channel, message, now) {
                        tracing::warn!(relay = %member.relay, "a relay broke the rules of a channel");
                        channel.close();
                    }
                    return;
                }
            }
            ChannelWord::Open
            | ChannelWord::Accept
            | ChannelWord::Reset
            | ChannelWord::Part { .. } => {}
        }
        drop(line);
        tell_down(&*owner, over);
    }

    /// A batch that had messages of channels is over.
    pub(super) fn settle_channels(&self, now: Instant) {
        self.channel_owners().iter().for_each(|(_, owner)| owner.channels_settled(now));
    }

    /// The link to a relay is gone, and its channels with it.
    pub(super) fn end_channels(&self, member: &Member) {
        for (realm, owner) in self.channel_owners() {
            let over = member.lines.of(realm).lock().current.take();
            tell_down(&*owner, over);
        }
    }

    /// Ends a channel: another begins after a pause.
    fn abandon(
        &self,
        line: &mut Line,
        member: &Member,
        realm: Realm,
        now: Instant,
    ) -> Option<Current> {
        let over = line.current.take()?;
        line.due = now + PAUSE;
        member.outbox.clear_channel(realm.0);
        if !self.opens(member) {
            let number = over.channel.number;
            line.reset = Some(number);
            say(&member.outbox, realm, number, ChannelWord::Reset, now);
        }
        tracing::info!(relay = %member.relay, "a channel to another relay begins anew");
        Some(over)
    }
}

fn tell_down(owner: &dyn ChannelOwner, over: Option<Current>) {
    if let Some(Current { channel, .. }) = over {
        channel.close();
        owner.channel_down(&channel);
    }
}

#[cfg(test)]
mod tests;

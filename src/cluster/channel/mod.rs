//! Channels: what a door here and the same door at another relay tell each other, in order and
//! whole, for as long as nothing is lost.
//!
//! Of two relays that with the lower id opens a channel, once the other has said that its door
//! talks. What cannot go on, for want of room or since something was lost, ends for both doors, and
//! a new channel begins after a moment: each door tells what the other has to know from the
//! beginning.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::line::{Channel, Current, Line, say};
use super::{Cluster, Member};
use crate::wire::cluster::{self, ChannelWord, Frame};
use crate::wire::name::Realm;

/// From one channel to the next of the same two relays; and until what has no answer is said again.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest message.
const MAX_MESSAGE: usize = 4 << 20;

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

    /// The batch is over that had messages of channels.
    fn channels_settled(&self, now: Instant);
}

/// What the door of one realm talks by.
pub(super) type Owner = (Realm, Weak<dyn ChannelOwner>);

impl Cluster {
    /// Has the door of a realm talk over channels to the same door at each other relay that has it;
    /// the first call counts.
    pub fn own_channels(&self, realm: Realm, owner: Weak<dyn ChannelOwner>) {
        self.channels.get_or_init(|| (realm, owner));
        let now = Instant::now();
        for member in self.members() {
            member.outbox.say(&Frame::About(self.about()), now);
        }
    }

    fn channel_owner(&self) -> Option<(Realm, Arc<dyn ChannelOwner>)> {
        let (realm, owner) = self.channels.get()?;
        Some((*realm, owner.upgrade()?))
    }

    /// Whether it is ours to open channels to this relay.
    fn opens(&self, member: &Member) -> bool {
        self.identity.relay < member.relay
    }

    /// Another relay has said that its door talks.
    pub(super) fn channel_offered(&self, member: &Member) {
        member.line.lock().is_offered = true;
    }

    /// Opens channels that are due, ends broken ones, and says again what has no answer.
    pub(super) fn keep_channel(&self, member: &Arc<Member>, now: Instant) {
        let Some((realm, owner)) = self.channel_owner() else { return };
        let mut line = member.line.lock();
        let is_broken = line.current.as_ref().is_some_and(|current| current.channel.is_broken());
        if is_broken {
            let over = self.abandon(&mut line, member, realm, now);
            drop(line);
            return tell_down(&*owner, over);
        }
        if !line.is_offered || now < line.due {
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
        member.outbox.clear_channel();
        say(&member.outbox, realm, number, ChannelWord::Open, now);
        let current = Current::begin(&member.outbox, realm, number, false);
        // Before anything can come over it: that waits for the lock of the line.
        owner.channel_up(&current.channel);
        line.current = Some(current);
        drop(line);
        tell_down(&*owner, over);
    }

    /// Takes in what another relay says of a channel, or over it.
    pub(super) fn receive_channel(
        &self,
        member: &Arc<Member>,
        said: cluster::Channel<'_>,
        now: Instant,
    ) {
        let Some((realm, owner)) = self.channel_owner() else { return };
        let cluster::Channel { realm: of, number, word } = said;
        if of != realm.0 {
            return;
        }
        let mut line = member.line.lock();
        let mut over = None;
        match word {
            ChannelWord::Open if !self.opens(member) => {
                if !line.is(number) {
                    over = line.current.take();
                    line.reset = None;
                    member.outbox.clear_channel();
                    say(&member.outbox, realm, number, ChannelWord::Accept, now);
                    let current = Current::begin(&member.outbox, realm, number, true);
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
        if let Some((_, owner)) = self.channel_owner() {
            owner.channels_settled(now);
        }
    }

    /// The link to a relay is gone, and its channel with it.
    pub(super) fn end_channel(&self, member: &Member) {
        let over = member.line.lock().current.take();
        if let Some((_, owner)) = self.channel_owner() {
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
        member.outbox.clear_channel();
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

//! What a relay of a cluster does as time passes: signs of life, silence, questions and
//! repetitions, and what it says in the log of others.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval};

use super::clock::{Clocks, Say, is_off};
use super::{Cluster, DEAD_AFTER, Forward, TICK};
use crate::wire::cluster::Frame;

impl Cluster {
    /// Says signs of life, asks and repeats what is due, for ever.
    pub(super) async fn keep_time(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said_alive = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.asking.notified() => {
                    self.ask();
                    continue;
                }
            }
            let now = Instant::now();
            let alive = now >= said_alive + self.identity.keepalive;
            if alive {
                said_alive = now;
            }
            for member in self.members() {
                if alive {
                    member.outbox.say(&Frame::Alive, now);
                    // As what is said once of a link might be lost.
                    member.outbox.say(&Frame::About(self.about()), now);
                    member.tell_clock(self.now().unix_ms, now);
                }
                self.keep_channels(&member, now);
                if alive && self.draining.load(Ordering::Relaxed) {
                    // Once might be lost.
                    member.outbox.say(&Frame::Draining, now);
                }
                if member.silence(now) > self.identity.keepalive * DEAD_AFTER {
                    member.ending.cancel();
                }
            }
            if alive {
                self.watch_clocks(now);
                self.watch_takeovers(now);
                self.compare_told(now);
            }
            let expired = self.locations.expire(now);
            self.counters.forwards.of(Forward::LookupExpired).add(expired);
            let repairs = std::mem::take(&mut *self.repairs.lock());
            let now = self.now();
            let mut presence = self.presence.lock();
            for (peer, serial) in repairs {
                presence.not_here(peer, serial, now);
            }
            self.watching.expire(&mut presence, now);
            presence.timeout(now);
            self.settle(presence, now);
        }
    }

    /// Says in the log whose clock is off, ours or that of members.
    fn watch_clocks(&self, now: Instant) {
        let members = self.members();
        let clocks = Clocks::of(members.iter().filter_map(|member| member.clock_ahead_ms()));
        let own_is_off = clocks.own_is_off();
        let ahead_ms = clocks.own_ahead_ms;
        match self.clock_notice.about(own_is_off, now) {
            Say::Off => {
                tracing::warn!(ahead_ms, "this relay's clock is off those of the other relays");
            }
            Say::RightAgain => tracing::info!(ahead_ms, "this relay's clock is right again"),
            Say::Nothing => {}
        }
        for member in members {
            let ahead_ms = member.clock_ahead_ms();
            // Where ours is off, theirs are not to blame.
            let their_fault = !own_is_off && ahead_ms.is_some_and(is_off);
            let relay = member.relay;
            match member.clock_notice.about(their_fault, now) {
                Say::Off => tracing::warn!(%relay, ahead_ms, "the clock of another relay is off"),
                Say::RightAgain => {
                    tracing::info!(%relay, ahead_ms, "the clock of another relay is right again");
                }
                Say::Nothing => {}
            }
        }
    }

    /// Says in the log which members take over more peers than one may.
    fn watch_takeovers(&self, now: Instant) {
        for member in self.members() {
            let held_back = self.presence.lock().taken_by(member.relay).held_back;
            let is_more = held_back > member.held_back.swap(held_back, Ordering::Relaxed);
            let relay = member.relay;
            match member.takeover_notice.about(is_more, now) {
                Say::Off => {
                    tracing::warn!(%relay, held_back, "a relay takes over more nodes than one may");
                }
                Say::RightAgain => {
                    tracing::info!(%relay, held_back, "no more takeovers of a relay are held back");
                }
                Say::Nothing => {}
            }
        }
    }

    /// Says in the log which members tell their peers another address than this relay, so that
    /// peers of one do not come to it where another sends them.
    fn compare_told(&self, now: Instant) {
        let own = self.about().told;
        for member in self.members() {
            let relay = member.relay;
            match member.told_notice.about(member.tells_otherwise(own), now) {
                Say::Off => {
                    tracing::warn!(%relay, "another relay tells its clients another address");
                }
                Say::RightAgain => {
                    tracing::info!(%relay, "another relay tells its clients the same address again");
                }
                Say::Nothing => {}
            }
        }
    }

    /// Looks up what the packet path asked for, and watches whom doors want to.
    pub(super) fn ask(&self) {
        let asks = std::mem::take(&mut *self.asks.lock());
        let now = self.now();
        let mut presence = self.presence.lock();
        for peer in asks {
            presence.look_up(peer, now);
        }
        self.watching.hear(&mut presence, now);
        self.settle(presence, now);
    }
}

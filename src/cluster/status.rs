//! What operators see of the cluster: the table of members, and the families of a scrape.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;
use serde::Serialize;

use super::clock::{Clocks, is_off};
use super::{Cluster, LostMember, Member};
use crate::metrics::family;
use crate::proto::presence;

/// The cluster at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// Our id.
    pub relay: String,
    /// The cluster's name.
    pub name: String,
    /// The other relays.
    pub members: Vec<MemberStatus>,
    /// Relays that were members within the last hour, and are gone without having drained.
    pub lost: Vec<LostMember>,
    /// Peers here that others are told of.
    pub nodes: usize,
    /// Peers that this relay is home to.
    pub homed: usize,
    /// Peers elsewhere whose location is known.
    pub locations: usize,
    /// Peers that are looked up.
    pub looked_up: usize,
    /// Peers whose coming and going at other relays this relay watches.
    pub watched: usize,
    /// Watches of relays, this one included, at this one as a home.
    pub watchers: usize,
    /// Words that are repeated until they are answered.
    pub outstanding: usize,
    /// Whether another relay has this one's key.
    pub cloned: bool,
    /// Live sessions that relays took over from each other, as far as this relay had a say in it.
    pub takeovers: u64,
    /// The same of peers that had proved nothing there: endpoints, and peers behind
    /// foreign servers.
    pub unproved_takeovers: u64,
    /// By how much this relay's clock is ahead of those of most others, in milliseconds;
    /// `None` where they have not told.
    pub clock_ahead_ms: Option<i64>,
    /// Whether that is more than the cluster should live with.
    pub clock_is_off: bool,
}

/// One other relay.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemberStatus {
    /// Its id.
    pub relay: String,
    /// Where the link leads.
    pub address: String,
    /// `up`, `silent` where a sign of life is missing, or `draining`.
    pub state: &'static str,
    /// Age of the link.
    pub seconds: u64,
    /// For how long nothing was heard of it.
    pub silent_ms: u128,
    /// What waits for it, in bytes.
    pub waiting_bytes: usize,
    /// By how much its clock is ahead of this relay's, in milliseconds; `None` where it has
    /// not told.
    pub clock_ahead_ms: Option<i64>,
    /// Live sessions of other relays that it took over, as far as this relay had a say in it.
    pub takeovers: u64,
    /// The same of peers that had proved nothing there: endpoints, and peers behind
    /// foreign servers.
    pub unproved_takeovers: u64,
    /// Times that either was held back, repeats among them: it took over too many.
    pub takeovers_held_back: u64,
    /// Whether its clock, and not this relay's, is the one that is off.
    pub clock_is_off: bool,
    /// Whether it tells its clients another address than this relay does.
    pub tells_another_address: bool,
}

impl Cluster {
    /// Whether a member that was silent for so long misses a sign of life: one and a half
    /// keep-alives, since none comes on the dot.
    pub(super) fn is_overdue(&self, silence: Duration) -> bool {
        silence > self.identity.keepalive * 3 / 2
    }

    /// The cluster at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let now = Instant::now();
        let stats = self.presence.lock().stats();
        let members = self.members();
        let clocks = Clocks::of(members.iter().filter_map(|member| member.clock_ahead_ms()));
        let own_is_off = clocks.own_is_off();
        let members = members.into_iter().map(|member: Arc<Member>| {
            let clock_ahead_ms = member.clock_ahead_ms();
            let taken = self.presence.lock().taken_by(member.relay);
            let silence = member.silence(now);
            let state = if member.is_draining() {
                "draining"
            } else if self.is_overdue(silence) {
                "silent"
            } else {
                "up"
            };
            MemberStatus {
                relay: member.relay.to_string(),
                address: member.address.clone(),
                state,
                seconds: now.saturating_duration_since(member.since).as_secs(),
                silent_ms: silence.as_millis(),
                waiting_bytes: member.outbox.bytes(),
                clock_ahead_ms,
                takeovers: taken.sessions,
                unproved_takeovers: taken.unproved,
                takeovers_held_back: taken.held_back,
                clock_is_off: !own_is_off && clock_ahead_ms.is_some_and(is_off),
                tells_another_address: member.tells_otherwise(self.about().told),
            }
        });
        Status {
            relay: self.identity.relay.to_string(),
            name: self.identity.name.clone(),
            members: members.collect(),
            lost: self.lost.at(now),
            nodes: stats.locals,
            homed: stats.entries,
            locations: self.locations.count(),
            looked_up: self.locations.waiting(),
            watched: stats.watched,
            watchers: stats.watchers,
            outstanding: stats.outstanding,
            cloned: self.clone.is_there(self.identity.keepalive, now),
            takeovers: stats.takeovers,
            unproved_takeovers: stats.unproved_takeovers,
            clock_ahead_ms: clocks.own_ahead_ms,
            clock_is_off: own_is_off,
        }
    }

    /// What fabrics and presence have refused, in one family.
    fn rejects(&self) -> MetricFamily {
        let of_presence = self.presence.lock().stats().denied;
        let of_presence = presence::Denied::ALL.iter().map(|r| r.word()).zip(of_presence);
        let samples: Vec<_> =
            self.counters.rejects.iter().chain(of_presence).map(|(word, n)| ([word], n)).collect();
        family::counts(
            "pilot_beacon_cluster_rejects_total",
            "What was refused of other relays and strangers.",
            &["reason"],
            samples.iter().map(|(words, count)| (words.as_slice(), *count)),
        )
    }

    /// Appends the cluster's families to a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        let status = self.status();
        let counters = self.counters();
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let number = |number: usize| number as f64;
        let in_state = |state| number(status.members.iter().filter(|m| m.state == state).count());
        #[allow(clippy::cast_precision_loss)] // a few hundred at most
        let (dialling, greeting) =
            (counters.dialling.value() as f64, counters.greeting.value() as f64);
        let labelled = |name: &str, help: &str, label: &str, samples: &[(&str, f64)]| {
            let samples: Vec<_> = samples.iter().map(|(word, value)| ([*word], *value)).collect();
            let samples = samples.iter().map(|(words, value)| (words.as_slice(), *value));
            family::gauge_values(name, help, &[label], samples)
        };
        #[allow(clippy::cast_precision_loss)] // milliseconds of thousands of years
        let own_skew = status.clock_ahead_ms.map_or(0.0, |ms| ms as f64 / 1_000.0);
        let widest = status.members.iter().filter_map(|m| m.clock_ahead_ms).map(i64::unsigned_abs);
        #[allow(clippy::cast_precision_loss)]
        let widest_skew = widest.max().unwrap_or(0) as f64 / 1_000.0;
        families.extend([
            labelled(
                "pilot_beacon_cluster_clock_skew_seconds",
                "By how much clocks of the cluster differ.",
                "of",
                &[("own", own_skew), ("widest", widest_skew)],
            ),
            family::gauge_value(
                "pilot_beacon_cluster_address_mismatches",
                "Other relays that tell their clients another address than this one.",
                number(status.members.iter().filter(|m| m.tells_another_address).count()),
            ),
            family::gauge_value(
                "pilot_beacon_cluster_members",
                "Relays of the cluster, this one included.",
                number(status.members.len() + 1),
            ),
            labelled(
                "pilot_beacon_cluster_links",
                "Links to other relays.",
                "state",
                &[
                    ("up", in_state("up")),
                    ("silent", in_state("silent")),
                    ("draining", in_state("draining")),
                    ("dialling", dialling),
                    ("greeting", greeting),
                ],
            ),
            labelled(
                "pilot_beacon_cluster_presence_entries",
                "Peers, by what is known of them.",
                "kind",
                &[
                    ("here", number(status.nodes)),
                    ("homed", number(status.homed)),
                    ("location", number(status.locations)),
                    ("looked_up", number(status.looked_up)),
                    ("watched", number(status.watched)),
                    ("watcher", number(status.watchers)),
                    ("outstanding", number(status.outstanding)),
                ],
            ),
            labelled(
                "pilot_beacon_cluster_waiting_bytes",
                "Bytes that wait for other relays.",
                "of",
                &[("all", number(status.members.iter().map(|m| m.waiting_bytes).sum()))],
            ),
            family::labelled(
                "pilot_beacon_cluster_forwards_total",
                "Packets for peers that are not here.",
                "result",
                &counters.forwards,
            ),
            family::labelled(
                "pilot_beacon_cluster_lookups_total",
                "Look-ups that ended.",
                "result",
                &counters.lookups,
            ),
            counters.lookup_time.family(
                "pilot_beacon_cluster_lookup_seconds",
                "Time from a question to its answer.",
            ),
            family::labelled(
                "pilot_beacon_cluster_lane_packets_total",
                "Packets that links of the mesh took, by what carried them.",
                "lane",
                &counters.lane_packets,
            ),
            family::labelled(
                "pilot_beacon_cluster_watch_frames_total",
                "Control messages about watches that this relay sent.",
                "kind",
                &counters.watch_frames,
            ),
            self.rejects(),
        ]);
        for (name, help, count) in [
            (
                "takeovers_total",
                "Live sessions that relays took over from each other, as this one saw.",
                status.takeovers,
            ),
            (
                "unproved_takeovers_total",
                "Live endpoints and peers of foreign servers that relays took over, as this one saw.",
                status.unproved_takeovers,
            ),
        ] {
            let name = format!("pilot_beacon_cluster_{name}");
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            families.push(family::counter_value(&name, help, count as f64));
        }
        for (name, help, counter) in [
            ("batches_total", "Batches of packets that links took.", &counters.batches),
            ("batched_packets_total", "Packets in those batches.", &counters.batched_packets),
            ("nacks_sent_total", "Runs of packets for peers not here.", &counters.nacks_sent),
            ("joined_total", "Relays that became members.", &counters.joined),
            ("lost_total", "Members that left or were lost.", &counters.lost),
            ("panics_total", "Panics that ended one link, or one connection.", &counters.panics),
        ] {
            let name = format!("pilot_beacon_cluster_{name}");
            families.push(family::counter(&name, help, counter));
        }
    }
}

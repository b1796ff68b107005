//! What operators see of the bus of a cluster at one relay, and whether it is as it should be.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Front, Log, State};
use crate::bus::Unanswered;
use crate::bus::health::{Health, Trouble};
use crate::store::{Leadership, Outage};

/// How long nobody leads, or NATS is away, before that is trouble: an election takes so long.
const ELECTION: Duration = Duration::from_secs(6);

/// How long the leader may answer nothing although something waits: longer than a message waits
/// for room.
const SILENCE: Duration = Duration::from_secs(15);

/// The message bus of a cluster, as one of its relays sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Status {
    /// What this relay does.
    pub role: Role,
    /// The id of the relay that leads, as far as the log says.
    pub leader: Option<String>,
    /// The epoch of the leader that this relay listens to.
    pub epoch: Option<u64>,
    /// For how long it has listened to that, or to nobody.
    pub seconds: u64,
    /// What peers here have sent that the leader has not answered.
    pub unanswered_bytes: usize,
    /// For how long it has answered nothing although something waits.
    pub unanswered_seconds: u64,
    /// Sessions here.
    pub sessions: usize,
    /// Names with a session at some relay.
    pub names: usize,
    /// What is wrong.
    pub trouble: Option<String>,
}

/// What a relay does for the bus of its cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It has the bus.
    Leads,
    /// It passes on what its peers say to the relay that leads.
    Follows,
    /// It listens to no leader: nobody leads, or there is no link to who does.
    Waits,
}

/// The leader that is listened to, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Led {
    /// None where there is none.
    pub(super) epoch: Option<u64>,
    pub(super) since: Instant,
    /// There was none before.
    is_first: bool,
}

impl Led {
    pub(super) const fn nobody(now: Instant) -> Self {
        Self { epoch: None, since: now, is_first: true }
    }

    pub(super) fn note(&mut self, epoch: Option<u64>, now: Instant) {
        if self.epoch != epoch {
            *self = Self { epoch, since: now, is_first: false };
        }
    }
}

/// What has no answer, and since when nothing of it was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    bytes: usize,
    since: Instant,
}

impl Waiting {
    pub(super) const fn nothing(now: Instant) -> Self {
        Self { bytes: 0, since: now }
    }

    /// Notes what there is: less than before is an answer.
    pub(super) const fn note(&mut self, bytes: usize, now: Instant) {
        if bytes < self.bytes || self.bytes == 0 {
            self.since = now;
        }
        self.bytes = bytes;
    }

    /// For how long nothing was answered although something waits.
    pub(super) fn time(&self, now: Instant) -> Duration {
        let time = now.saturating_duration_since(self.since);
        if self.bytes == 0 { Duration::ZERO } else { time }
    }
}

impl Front {
    /// Whether messages are taken.
    #[must_use]
    pub fn health(&self) -> Health {
        let outage = self.log.outage();
        let lead = self.lead.read().clone();
        if let Some(lead) = lead {
            let health = lead.bus().health();
            return match outage {
                // A bus that has nothing to commit does not notice.
                Some(outage) if health == Health::Serving && !lead.may_serve() => {
                    Health::Unavailable(outage.into())
                }
                Some(_) | None => health,
            };
        }
        let now = Instant::now();
        let (led, waiting) = {
            let state = self.state.lock();
            (state.led, state.waiting)
        };
        let is_long = |since: Instant| now.saturating_duration_since(since) >= ELECTION;
        if led.epoch.is_none() {
            let trouble = Trouble { reason: unled(&*self.log), since: led.since };
            // An election takes some time, but a relay that starts serves once it knows a leader.
            let is_trouble = led.is_first || is_long(led.since);
            return if is_trouble { Health::Unavailable(trouble) } else { Health::Serving };
        }
        let silent = waiting.time(now);
        if silent >= SILENCE {
            let reason = "the relay that leads the message bus answers nothing".to_owned();
            return Health::Limited(Trouble { reason, since: waiting.since });
        }
        match outage {
            Some(outage) if is_long(outage.since) => {
                let reason = format!("another relay serves, this one could not: {}", outage.reason);
                Health::Limited(Trouble { reason, since: outage.since })
            }
            Some(_) | None => Health::Serving,
        }
    }

    /// Why something has no answer.
    pub(super) fn unanswered(&self, state: &State) -> Unanswered {
        let Led { epoch, since, .. } = state.led;
        Unanswered::Unavailable(match epoch {
            Some(_) => {
                let reason = "the relay that leads the message bus does not answer".to_owned();
                Trouble { reason, since: Instant::now() }
            }
            None => Trouble { reason: unled(&*self.log), since },
        })
    }

    /// The bus at this moment, as this relay sees it.
    #[must_use]
    pub fn status(&self) -> Status {
        let health = self.health();
        let is_leading = self.lead.read().is_some();
        let known = *self.log.leadership().borrow();
        let now = Instant::now();
        let state = self.state.lock();
        let Led { epoch, since, .. } = state.led;
        let role = match epoch {
            _ if is_leading => Role::Leads,
            Some(_) => Role::Follows,
            None => Role::Waits,
        };
        let leader = match known {
            _ if is_leading => Some(self.relay.to_string()),
            // The log may be behind the leader that is listened to.
            Leadership::There { epoch: known, relay }
                if epoch.is_none_or(|epoch| epoch == known) =>
            {
                Some(relay.to_string())
            }
            Leadership::There { .. } | Leadership::Here { .. } | Leadership::Nobody => None,
        };
        Status {
            role,
            leader,
            epoch,
            seconds: now.saturating_duration_since(since).as_secs(),
            unanswered_bytes: state.front.bytes(),
            unanswered_seconds: state.waiting.time(now).as_secs(),
            sessions: state.front.sessions(),
            names: state.front.names(),
            trouble: (health != Health::Serving).then(|| health.to_string()),
        }
    }
}

/// Why there is no leader that this relay listens to.
pub(in crate::bus) fn unled(log: &dyn Log) -> String {
    let known = *log.leadership().borrow();
    match (known, log.outage()) {
        (Leadership::Here { .. }, _) => "this relay is about to lead the message bus".to_owned(),
        (Leadership::There { relay, .. }, None) => {
            format!("there is no link to relay {relay}, which leads the message bus")
        }
        (Leadership::Nobody, None) => "no relay leads the message bus".to_owned(),
        (Leadership::There { .. } | Leadership::Nobody, Some(outage)) => {
            format!("no relay that leads the message bus is reached: {}", outage.reason)
        }
    }
}

impl From<Outage> for Trouble {
    fn from(Outage { reason, since }: Outage) -> Self {
        Self { reason, since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_answer_while_something_waits() {
        let t0 = Instant::now();
        let after = |seconds| t0 + Duration::from_secs(seconds);
        let mut waiting = Waiting::nothing(t0);
        assert_eq!(waiting.time(after(9)), Duration::ZERO, "nothing waits");
        waiting.note(10, after(10));
        waiting.note(20, after(12));
        assert_eq!(waiting.time(after(13)), Duration::from_secs(3), "more is no answer");
        waiting.note(15, after(14));
        assert_eq!(waiting.time(after(15)), Duration::from_secs(1));
        waiting.note(0, after(16));
        assert_eq!(waiting.time(after(99)), Duration::ZERO);
    }
}

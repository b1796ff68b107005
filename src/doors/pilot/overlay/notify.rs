//! Notify: tells a node that a handshake waits for it at the registry (SPEC §2.8).
//!
//! Only an operator has that sent, and a node hears it once a minute at most: each makes it
//! ask the registry.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Overlay;
use crate::ids::NodeId;
use crate::peers::{Arrival, Record};
use crate::relay::{Departures, Target};
use crate::session::Notified;
use crate::wire::beacon::{NOTIFY_POLL, encode_notify};

/// A node is notified at most once in this time.
const INTERVAL: Duration = Duration::from_secs(60);

/// Nodes that can be notified within [`INTERVAL`].
const MOST_NODES: usize = 4_096;

/// Who was notified, and when.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<HashMap<NodeId, Instant>>);

/// Why a node was not notified.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotNotified {
    /// It has neither a session nor an endpoint here.
    #[error("it is not here; ask where `beacon-relay explain` says that it is")]
    NotHere,
    /// It was notified within the last minute.
    #[error("it was notified {0} s ago, which may be done once a minute; try again then")]
    TooSoon(u64),
    /// As many other nodes were notified within the last minute as may be.
    #[error("{MOST_NODES} other nodes were notified within a minute; try again later")]
    TooMany,
    /// Its endpoint is silent, and has had what such an endpoint gets in a second.
    #[error(
        "its UDP address has been silent for two minutes, and gets no more for now; wait until it is heard of"
    )]
    Quiet,
}

impl Notices {
    /// Notes that a node is notified, where it may be.
    fn take(&self, node: NodeId, now: Instant) -> Result<(), NotNotified> {
        let mut last = self.0.lock();
        last.retain(|_, at| now < *at + INTERVAL);
        if let Some(at) = last.get(&node) {
            return Err(NotNotified::TooSoon(now.saturating_duration_since(*at).as_secs()));
        }
        if last.len() >= MOST_NODES {
            return Err(NotNotified::TooMany);
        }
        last.insert(node, now);
        Ok(())
    }
}

impl Overlay {
    /// Tells a node to ask the registry: over its session, or else at its endpoint, from the
    /// address that it knows this relay by.
    ///
    /// # Errors
    /// Why it was not told.
    pub fn notify(&self, node: NodeId, now: Instant) -> Result<Notified, NotNotified> {
        let mut packet = Vec::with_capacity(2);
        encode_notify(NOTIFY_POLL, &mut packet);
        if let Some(session) = self.table.session(node.into()) {
            self.notices.take(node, now)?;
            let record = Record { head: &packet, body: &[] };
            let arrival = Arrival::ours(now);
            session.push(std::iter::once(record), &arrival);
            session.flush(now);
            return Ok(Notified::Session);
        }
        let endpoint = self.table.endpoint(node.into(), now).ok_or(NotNotified::NotHere)?;
        if endpoint.quiet && !self.may_disturb(endpoint.address, now) {
            return Err(NotNotified::Quiet);
        }
        self.notices.take(node, now)?;
        let shard = self.traffic.shard();
        Departures::of_batch(
            Some(self.socket_of(0)),
            |_| &[],
            now,
            shard,
            0,
            |out| out.send(Target::of(&endpoint), &packet),
        );
        Ok(Notified::Endpoint(endpoint.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        NodeId::new(u32::try_from(number).unwrap()).unwrap()
    }

    #[test]
    fn node_is_notified_once_a_minute_and_so_are_many_others() {
        let (notices, t0) = (Notices::default(), Instant::now());
        for number in 1..=MOST_NODES {
            assert_eq!(notices.take(node(number), t0), Ok(()));
        }
        let later = t0 + INTERVAL - Duration::from_secs(1);
        assert_eq!(notices.take(node(1), later), Err(NotNotified::TooSoon(59)));
        assert_eq!(notices.take(node(MOST_NODES + 1), later), Err(NotNotified::TooMany));
        assert_eq!(notices.take(node(1), t0 + INTERVAL), Ok(()));
        assert_eq!(notices.0.lock().len(), 1, "nobody is remembered for longer");
    }
}

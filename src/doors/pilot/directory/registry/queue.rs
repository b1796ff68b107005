//! Requests that wait for a connection to the registry: what a node waits for goes before
//! look-ups that only refresh what is remembered.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep_until};

use super::in_flight::MAX_LOOKUPS;
use super::{Call, Request};
use crate::ids::NodeId;

/// Most requests that wait in the first lane: the look-ups, and room for registrations and lists.
const MAX_URGENT: usize = MAX_LOOKUPS + 16;

/// Most requests that wait in the second lane: what is asked by the clock, and some refreshes.
const MAX_LATER: usize = 256;

/// A request that waits for so long is worth one more connection.
const BACKLOG: Duration = Duration::from_millis(50);

/// How soon a request should go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lane {
    /// Somebody waits for it.
    Urgent,
    /// When nothing urgent waits.
    Later,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    urgent: VecDeque<Request>,
    later: VecDeque<Request>,
}

impl Lanes {
    const fn lane(&mut self, lane: Lane) -> &mut VecDeque<Request> {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Later => &mut self.later,
        }
    }
}

impl Queue {
    /// Adds a request, or gives it back where there is no room.
    pub(super) fn push(&self, request: Request) -> Result<(), Request> {
        let mut lanes = self.lanes.lock();
        let limit = match request.lane {
            Lane::Urgent => MAX_URGENT,
            Lane::Later => MAX_LATER,
        };
        let lane = lanes.lane(request.lane);
        if lane.len() >= limit {
            drop(lanes);
            return Err(request);
        }
        lane.push_back(request);
        drop(lanes);
        self.added.notify_waiters();
        Ok(())
    }

    /// Adds the requests of a connection that broke, before all others. There were no more than
    /// there are look-ups.
    pub(super) fn give_back(&self, requests: impl DoubleEndedIterator<Item = Request>) {
        let mut lanes = self.lanes.lock();
        for request in requests.rev() {
            lanes.lane(request.lane).push_front(request);
        }
        drop(lanes);
        self.added.notify_waiters();
    }

    /// Moves the question about a node that waits in the second lane into the first one.
    pub(super) fn promote(&self, node: NodeId) {
        let mut lanes = self.lanes.lock();
        let asks =
            |request: &Request| matches!(&request.call, Call::Lookup(ask) if ask.node() == node);
        let Some(at) = lanes.later.iter().position(asks) else { return };
        let Some(mut request) = lanes.later.remove(at) else { return };
        request.lane = Lane::Urgent;
        request.asked = Instant::now();
        lanes.urgent.push_back(request);
    }

    /// The next request of a lane that somebody still waits for, where the first one has waited
    /// for `age`.
    pub(super) fn take(&self, lane: Lane, age: Duration, wait: Duration) -> Option<Request> {
        let now = Instant::now();
        // Dropped outside of the lock: that tells whoever asked.
        let mut over = Vec::new();
        let mut lanes = self.lanes.lock();
        let lane = lanes.lane(lane);
        let request = loop {
            let Some(first) = lane.front() else { break None };
            if first.is_over(now, wait) {
                over.extend(lane.pop_front());
            } else if now < first.asked + age {
                break None;
            } else {
                break lane.pop_front();
            }
        };
        drop(lanes);
        request
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let lanes = self.lanes.lock();
        lanes.urgent.is_empty() && lanes.later.is_empty()
    }

    /// Drops everything that waits.
    pub(super) fn clear(&self) {
        let lanes = std::mem::take(&mut *self.lanes.lock());
        drop(lanes);
    }

    /// Ends with the next request that is added, from when it is enabled on.
    pub(super) fn added(&self) -> Notified<'_> {
        self.added.notified()
    }

    /// Waits until a request waits.
    pub(super) async fn waiting(&self) {
        loop {
            let mut added = std::pin::pin!(self.added());
            added.as_mut().enable();
            if !self.is_empty() {
                return;
            }
            added.await;
        }
    }

    /// Waits until a request has waited for a while.
    pub(super) async fn backlog(&self) {
        loop {
            self.waiting().await;
            let oldest = {
                let lanes = self.lanes.lock();
                let asked = |request: Option<&Request>| request.map(|request| request.asked);
                asked(lanes.urgent.front()).into_iter().chain(asked(lanes.later.front())).min()
            };
            let Some(oldest) = oldest else { continue };
            if Instant::now() >= oldest + BACKLOG {
                return;
            }
            sleep_until(oldest + BACKLOG).await;
        }
    }
}

//! Many streams watched by one thread: epoll(7), level-triggered.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// Events of one wait.
const EVENTS: usize = 256;

/// The streams that a thread watches, each by a number of its caller's.
pub(super) struct Readiness {
    poll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Readiness {
    pub(super) fn new() -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { poll, events: Vec::with_capacity(EVENTS) })
    }

    pub(super) fn add(&self, stream: &impl AsFd, number: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        Ok(epoll::add(&self.poll, stream, data, epoll::EventFlags::IN)?)
    }

    pub(super) fn remove(&self, stream: &impl AsFd) {
        // One that is closed has gone already.
        let _gone = epoll::delete(&self.poll, stream);
    }

    /// Waits for streams that can be read, for so long at most; their numbers.
    pub(super) fn wait(&mut self, most: Duration) -> Vec<usize> {
        let wait = Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() };
        let room = rustix::buffer::spare_capacity(&mut self.events);
        if epoll::wait(&self.poll, room, Some(&wait)).is_err() {
            // A signal: the caller waits again.
            return Vec::new();
        }
        let numbers = self.events.drain(..);
        numbers.map(|event| usize::try_from(event.data.u64()).unwrap_or(usize::MAX)).collect()
    }
}

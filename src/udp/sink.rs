//! Where the datagrams go.

use std::time::Instant;

use crate::net::udp::{Datagrams, Received};

/// Takes the datagrams that anybody sends, a whole received batch at a time.
pub trait DatagramSink: Send + Sync + 'static {
    /// What the sink keeps for each receiving thread, and no other thread touches: the rate
    /// limits of the flows that the kernel gives to that thread's socket.
    type Worker: Send;

    /// What a thread begins with, of which there are `threads`.
    fn worker(&self, threads: usize) -> Self::Worker;

    /// Takes the datagrams of one receive, which came to `socket` at `now`. It runs on the
    /// thread that received them and must not wait: meanwhile nobody reads that socket. A panic
    /// ends the batch alone, and is counted.
    fn datagrams(
        &self,
        worker: &mut Self::Worker,
        socket: &dyn Datagrams,
        batch: &Received,
        now: Instant,
    );
}

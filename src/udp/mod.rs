//! A way in over UDP: one socket and one thread a core, run to completion.
//!
//! Each thread receives a batch and hands it to the [`DatagramSink`], which sends what comes of
//! it on the same socket. The kernel spreads the flows over the sockets, and keeps each on one.
//! Nothing here knows what a datagram holds.

mod canary;
mod expected;
mod sink;
mod sockets;
mod threads;

pub use canary::{Canary, CanaryError, SECRET, Script, Sockets};
pub use expected::Exchange;
pub use sink::DatagramSink;
pub use sockets::{adopt, open};
pub use threads::{Threads, Turns};

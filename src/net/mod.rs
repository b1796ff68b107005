//! Sockets without policy: streams, listeners, datagrams, TLS.

pub mod bind;
pub mod calls;
pub mod dial;
pub mod entrance;
pub(crate) mod head;
pub mod inherited;
pub mod listener;
pub mod local;
pub mod notify;
pub mod options;
pub mod resolve;
mod stream;
pub mod tls;
pub mod udp;

pub use stream::{Records, Stream};

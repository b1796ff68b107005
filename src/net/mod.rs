//! Sockets without policy: streams, listeners, datagrams, TLS.

pub mod calls;
pub mod entrance;
pub mod inherited;
pub mod listener;
pub mod notify;
mod stream;
pub mod tls;
pub mod udp;

pub use stream::Stream;

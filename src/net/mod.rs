//! Sockets without policy: streams, listeners, datagrams, TLS.

pub mod calls;
pub mod listener;
mod stream;
pub mod tls;
pub mod udp;

pub use stream::Stream;

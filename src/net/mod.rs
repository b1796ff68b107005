//! Sockets without policy: streams, listeners, datagrams, TLS.

pub mod bind;
pub mod calls;
pub mod entrance;
pub(crate) mod head;
pub mod inherited;
pub mod listener;
pub mod local;
pub mod nats;
pub mod notify;
pub mod quic;
mod shown;
mod stream;
pub mod tls;
pub mod udp;

/// What dials: nodes use it too.
pub use beacon_client::net::{dial, options, resolve, words};
pub use shown::Shown;
pub use stream::{Longest, Records, Stream};

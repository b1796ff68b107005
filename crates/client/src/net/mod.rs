//! How a connection is made: the name's addresses, TCP to the first that answers, TLS.
//!
//! Relays dial with it as well.

pub mod dial;
pub mod options;
pub mod resolve;
pub mod tls;
pub mod words;

//! (being written)

pub mod tls;

//! Decisions without IO: every input, the time among it, is an argument.

pub mod backoff;
pub mod crowd;
pub mod endpoint;
pub mod gossip;
pub mod limit;
pub mod login;
pub mod network;
mod newcomers;
pub mod presence;
pub mod route;
pub mod takeover;
pub mod translators;
pub mod watch;

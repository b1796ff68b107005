//! Decisions of `beacon-relay`, without IO: every input, the time among it, is an argument.
//!
//! A test or a simulation therefore goes the same way each time. clippy.toml bans clocks,
//! randomness and sockets; the seeds of hash tables are the only exception, and no decision
//! depends on the order of such a table.
//!
//! # Layout
//!
//! - [`bus`]: names, mailboxes, and what becomes of messages;
//! - [`front`]: a bus that several relays serve, with simulated relays;
//! - [`middleman`]: topics, grants, and who answers which request;
//! - [`login`]: which text a login signs, and whether its key counts;
//! - [`endpoint`]: who may claim which UDP endpoint;
//! - [`gossip`]: which nodes the beacons of the fleet serve;
//! - [`presence`]: which relay of a cluster has which node, with a simulated cluster;
//! - [`takeover`]: sessions of a node that replace each other;
//! - [`limit`], [`crowd`], [`network`] and [`translators`]: bounds for clients and networks;
//! - [`backoff`] and [`watch`]: when to try again, when a file has changed.

#![forbid(unsafe_code)]
// A test's time has to begin somewhere.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod backoff;
pub mod bus;
pub mod crowd;
pub mod endpoint;
pub mod front;
pub mod gossip;
pub mod limit;
pub mod login;
pub mod middleman;
pub mod network;
mod newcomers;
pub mod presence;
#[cfg(test)]
mod simulated;
pub mod takeover;
pub mod translators;
pub mod watch;

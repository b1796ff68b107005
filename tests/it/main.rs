//! Tests of the whole.
#![allow(clippy::unwrap_used)]

mod activation;
mod caddy;
mod cells;
mod changes;
mod client;
mod cluster;
mod config;
mod deploy;
mod doctor;
mod drain;
mod floors;
mod gossip;
mod harness;
mod hostile;
mod idle;
mod login;
mod noise;
mod page;
mod peer;
mod prometheus;
mod proxy;
mod punch;
mod random;
mod readiness;
mod registry;
mod rogue;
mod sessions;
mod soak;
mod start;
mod stranger;
mod stuck;
mod udp;
mod unix;
mod upgrade;
mod veth;

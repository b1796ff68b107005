//! Tests of the whole.
#![allow(clippy::unwrap_used)]

mod caddy;
mod cells;
mod client;
mod config;
mod floors;
mod gossip;
mod harness;
mod idle;
mod noise;
mod peer;
mod prometheus;
mod punch;
mod registry;
mod start;
mod udp;
mod veth;

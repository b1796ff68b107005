//! Tests of the whole.
#![allow(clippy::unwrap_used)]

mod caddy;
mod cells;
mod client;
mod config;
mod harness;
mod peer;
mod prometheus;
mod punch;
mod udp;

//! Tests of the whole.
#![allow(clippy::unwrap_used)]

mod caddy;
mod cells;
mod client;
mod config;
mod floors;
mod harness;
mod peer;
mod prometheus;

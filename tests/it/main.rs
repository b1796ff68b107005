//! Tests of the whole.
#![allow(clippy::unwrap_used)]

mod caddy;
mod cells;
mod client;
mod config;
mod floors;
mod harness;
mod idle;
mod peer;
mod prometheus;

//! Tests of the whole.
#![allow(clippy::unwrap_used)]

mod caddy;
mod client;
mod config;
mod harness;
mod prometheus;

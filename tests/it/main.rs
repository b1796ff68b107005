//! Tests of the whole.
#![allow(clippy::unwrap_used)]

mod caddy;
mod cells;
mod changes;
mod client;
mod config;
mod harness;
mod hostile;
mod login;
mod peer;
mod prometheus;
mod rogue;
mod sessions;
mod stranger;
mod stuck;
mod unix;
mod upgrade;

//! Tests of the whole.
#![allow(clippy::unwrap_used)]

mod client;
mod config;

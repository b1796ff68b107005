//! The subcommands.

pub mod connect;
pub mod demo;

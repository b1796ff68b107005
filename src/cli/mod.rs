//! The subcommands.

pub mod demo;

//! The `beacon-relay` program.

use std::process::ExitCode;

/// Of the program alone: who embeds the library chooses for itself.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    beacon_relay::cli::run(std::env::args_os())
}

//! The `beacon-relay` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    beacon_relay::cli::run(std::env::args_os())
}

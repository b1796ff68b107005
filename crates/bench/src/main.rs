//! The `beacon-bench` program.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match beacon_bench::run(&beacon_bench::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("beacon-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

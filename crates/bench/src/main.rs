//! The `beacon-bench` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    match beacon_bench::run(&beacon_bench::parse::<beacon_bench::Args>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("beacon-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

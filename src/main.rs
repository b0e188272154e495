//! The `prefixd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefixd::cli::run().unwrap_or_else(|error| {
        eprintln!("prefixd: {error:#}");
        ExitCode::FAILURE
    })
}

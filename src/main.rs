//! The `prefixd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // SAFETY: this is the first thing that the process does.
    unsafe { prefixd::config::prepare_mlx() };
    prefixd::cli::run().unwrap_or_else(|error| {
        eprintln!("prefixd: {error:#}");
        ExitCode::FAILURE
    })
}

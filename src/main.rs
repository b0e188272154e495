//! The `prefixd` program.

use std::io::Write;

fn main() -> ! {
    // SAFETY: this is the first thing that the process does.
    unsafe { prefixd::config::prepare_mlx() };
    let fine = prefixd::cli::run().unwrap_or_else(|error| {
        eprintln!("prefixd: {error:#}");
        false
    });
    // What could still be done about a standard output that takes nothing?
    drop(std::io::stdout().flush());
    // Without the exit handlers of libraries: MLX's run after CUDA's driver has shut down, and then abort the process.
    // SAFETY: nothing of this program is left to be done.
    unsafe { libc::_exit(i32::from(!fine)) }
}

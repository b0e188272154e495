//! mlx-c's interface as bindgen reads it, over MLX's own binaries.
//!
//! A stand-in for the crate of the same name and version, which builds on macOS only. Beside the generated bindings it
//! holds what mlx-rs expects and mlx-c lacks off Apple silicon: half-precision access (`half`), a clock (`clock`) and a signed
//! `char` (`pad`).

#[cfg(not(target_vendor = "apple"))]
mod clock;
mod half;
mod pad;

// Linked for the symbol it exports, which libmlx looks up at run time.
#[cfg(target_os = "linux")]
use prefixd_blas as _;

pub use bindings::*;
pub use half::*;
pub use pad::*;

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    reason = "generated from C"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

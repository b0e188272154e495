//! Builds mlx-sys over MLX's own binaries, with no git host, no cmake and no root.
//!
//! 1. `mlx`: the library and its headers, out of the official wheel or out of `PREFIXD_MLX_DIR`.
//! 2. `mlx_c`: mlx-c's C++ files, out of the published mlx-sys crate, compiled against those headers.
//! 3. `bindings`: what bindgen reads in mlx-c's C headers.
//!
//! Dependents read `DEP_MLX_LIB` (the directory of the library, for an rpath) and `DEP_MLX_ROOT` (the tree it is in).
//! What is downloaded lies under the target directory, is verified by SHA-256 and is fetched once.

mod bindings;
mod mlx;
mod mlx_c;
mod pip;
mod platform;

use std::process::ExitCode;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Cargo shows one line per `cargo::error`.
            for line in why.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    for path in ["build", "include", "mlx-c"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let platform = platform::Platform::of_build()?;
    let mlx = mlx::locate(&platform)?;
    let source = mlx_c::source()?;
    mlx_c::compile(&source, &mlx)?;
    bindings::generate(&source, &platform)?;

    let lib = mlx.lib.display();
    println!("cargo::rustc-link-search=native={lib}");
    println!("cargo::rustc-link-lib=dylib=mlx");
    println!("cargo::metadata=lib={lib}");
    println!("cargo::metadata=root={}", mlx.root.display());
    Ok(())
}

//! Lets every binary, test, bench and example of this package find the MLX library it was built against.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(lib) = std::env::var("DEP_MLX_LIB") else {
        println!(
            "cargo::error=DEP_MLX_LIB is not set: mlx-sys must be the one in native/mlx-sys ([patch.crates-io])"
        );
        return;
    };
    // For the bench that measures the BLAS beside the library.
    let root = std::env::var("DEP_MLX_ROOT").unwrap_or_default();
    println!("cargo::rustc-env=PREFIXD_MLX_ROOT={root}");
    // As separate arguments, since a path may hold a comma.
    for argument in ["-rpath", &lib] {
        println!("cargo::rustc-link-arg=-Xlinker");
        println!("cargo::rustc-link-arg={argument}");
    }
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // RUNPATH, not RPATH: LD_LIBRARY_PATH comes first, so another libmlx.so (CUDA's) can be chosen at run time.
        println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags");
        // libmlx finds the executable's BLAS before its own.
        println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol=cblas_sgemm");
    }
}

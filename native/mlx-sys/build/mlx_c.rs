//! Compiles mlx-c, the C interface that mlx-rs calls, out of the source that the published mlx-sys crate carries.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::mlx::Mlx;
use crate::platform::variable;

/// The root of mlx-c's source. Cargo downloads and verifies the crate by the lock file beside `mlx-c/Cargo.toml`.
pub fn source() -> Result<PathBuf, String> {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("mlx-c/Cargo.toml");
    let output = Command::new(variable("CARGO")?)
        .args(["metadata", "--format-version=1", "--locked", "--manifest-path"])
        .arg(&manifest)
        // Flags for the platform built for, which the one that builds may not know.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .map_err(|why| format!("cargo metadata did not start: {why}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "mlx-c's source comes from the mlx-sys crate, which cargo could not fetch: {}",
            said.trim()
        ));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|why| format!("cargo metadata: {why}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let found = packages
        .filter(|package| package["name"] == "mlx-sys")
        .find_map(|package| package["manifest_path"].as_str());
    let source = found.map(|path| Path::new(path).with_file_name("src").join("mlx-c"));
    source
        .filter(|dir| dir.is_dir())
        .ok_or_else(|| format!("cargo metadata of {} names no mlx-sys", manifest.display()))
}

/// Compiles and links every file of mlx-c, optimized in every profile.
pub fn compile(source: &Path, mlx: &Mlx) -> Result<(), String> {
    let files = files_ending(source, "cpp")?;
    let shim = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("include/format.h");
    // macOS: std::format is in the C++ library from 13.3, and the wheels from 14. cc's default is older than both.
    if env::var_os("MACOSX_DEPLOYMENT_TARGET").is_none() {
        // SAFETY: a build script, with no other thread yet.
        unsafe { env::set_var("MACOSX_DEPLOYMENT_TARGET", "14.0") };
    }
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .debug(false)
        .warnings(false)
        // Errors name the line that raised them: `mlx/c/ops.cpp`, not where this machine keeps the file.
        .flag(format!("-fmacro-prefix-map={}/=", source.display()))
        .flag("-include")
        .flag(&shim)
        .include(source)
        .include(&mlx.include)
        .files(files);
    build.try_compile("mlxc").map_err(|why| {
        format!(
            "compiling mlx-c needs a C++20 compiler (g++ 12, clang 16 or newer; CXX names another one): {why}"
        )
    })
}

/// The files of `mlx/c` with this extension, sorted.
pub fn files_ending(source: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let dir = source.join("mlx/c");
    let entries = fs::read_dir(&dir).map_err(|why| format!("{}: {why}", dir.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> =
        paths.collect::<Result<_, _>>().map_err(|why| format!("{}: {why}", dir.display()))?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}

//! Finds MLX: the tree that `PREFIXD_MLX_DIR` names, or the wheel's.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::pip;
use crate::platform::Platform;

/// An unpacked MLX of the right version.
pub struct Mlx {
    pub root: PathBuf,
    pub include: PathBuf,
    pub lib: PathBuf,
}

pub fn locate(platform: &Platform) -> Result<Mlx, String> {
    println!("cargo::rerun-if-env-changed=PREFIXD_MLX_DIR");
    let named = env::var_os("PREFIXD_MLX_DIR").filter(|dir| !dir.is_empty());
    let root = match named {
        Some(dir) => fs::canonicalize(&dir).map_err(|why| {
            format!("PREFIXD_MLX_DIR is {}, expected an unpacked MLX: {why}", dir.to_string_lossy())
        })?,
        None => pip::unpacked(platform.mlx, platform.cross, &platform.cache)?,
    };
    let mlx = Mlx { include: root.join("mlx/include"), lib: root.join("mlx/lib"), root };
    let library = mlx.lib.join(platform.library);
    if !library.is_file() {
        return Err(format!(
            "found no {}; expected mlx/lib and mlx/include in {}",
            library.display(),
            mlx.root.display()
        ));
    }
    // Cargo then runs this script again once the library is gone or replaced.
    println!("cargo::rerun-if-changed={}", library.display());
    let found = version(&mlx.include.join("mlx/version.h"))?;
    let expected = platform.mlx.version;
    if found != expected {
        return Err(format!("{} holds MLX {found}, expected {expected}", mlx.root.display()));
    }
    Ok(mlx)
}

/// `MAJOR.MINOR.PATCH` out of the header's three `#define`s.
fn version(header: &Path) -> Result<String, String> {
    let text = fs::read_to_string(header).map_err(|why| format!("{}: {why}", header.display()))?;
    let part = |name: &str| {
        let value =
            text.lines().find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name)).map(str::trim);
        value.ok_or_else(|| format!("{} defines no {name}", header.display()))
    };
    let [major, minor, patch] = ["MLX_VERSION_MAJOR", "MLX_VERSION_MINOR", "MLX_VERSION_PATCH"].map(part);
    Ok(format!("{}.{}.{}", major?, minor?, patch?))
}

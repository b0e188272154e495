//! Generates the Rust side of mlx-c's headers with bindgen.
//!
//! bindgen needs libclang at build time: a system one (or the one `LIBCLANG_PATH` names) where there is one, else the
//! libclang wheel.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mlx_c::files_ending;
use crate::pip;
use crate::platform::{Platform, out_dir};

pub fn generate(source: &Path, platform: &Platform) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");
    provide_libclang(platform)?;
    let mut builder = bindgen::Builder::default()
        .clang_arg(format!("-I{}", source.display()))
        // mlx-c declares half-precision access only where the C compiler has the types. Ours is in half.rs, the same
        // on every platform, so its header is skipped by its own include guard.
        .clang_arg("-DMLX_HALF_H")
        // The C library's own, with types that vary.
        .blocklist_function("malloc|realloc")
        // Declared in pad.rs, with the type that mlx-rs has.
        .blocklist_function("mlx_pad")
        .layout_tests(false)
        .generate_comments(false);
    if let Some(include) = compiler_headers() {
        // Last in line: the wheel's libclang comes without stddef.h and its kin.
        builder = builder.clang_arg("-idirafter").clang_arg(include.display().to_string());
    }
    for header in files_ending(source, "h")? {
        builder = builder.header(header.to_string_lossy());
    }
    let bindings = builder.generate().map_err(|why| format!("bindgen on mlx-c's headers: {why}"))?;
    let file = out_dir()?.join("bindings.rs");
    bindings.write_to_file(&file).map_err(|why| format!("{}: {why}", file.display()))
}

fn provide_libclang(platform: &Platform) -> Result<(), String> {
    let Err(missing) = clang_sys::load() else {
        return Ok(());
    };
    let wheel = pip::unpacked(platform.libclang, None, &platform.cache).map_err(|why| {
        format!("bindgen needs libclang: install it (libclang-dev), name its directory in LIBCLANG_PATH, or mend this: {why}")
    })?;
    let data = format!("{}-{}.data", platform.libclang.name, platform.libclang.version);
    // SAFETY: a build script, with no other thread yet.
    unsafe { env::set_var("LIBCLANG_PATH", wheel.join(data).join("platlib/clang/native")) };
    clang_sys::load().map_err(|why| {
        format!("libclang: the system has none ({missing}) and the wheel's does not load: {why}")
    })
}

/// The directory of the C compiler's own headers.
fn compiler_headers() -> Option<PathBuf> {
    let compiler = cc::Build::new().try_get_compiler().ok()?;
    let output = Command::new(compiler.path()).arg("-print-file-name=include").output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}

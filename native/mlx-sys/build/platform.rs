//! What differs between the platforms: which wheels, and where downloads are kept.

use std::env;
use std::path::PathBuf;

/// A wheel by exact version, with the SHA-256 of every file that may stand for it.
pub struct Wheel {
    pub name: &'static str,
    pub version: &'static str,
    pub sha256: &'static [&'static str],
}

/// The platform built for.
pub struct Platform {
    pub mlx: &'static Wheel,
    /// Of the platform that builds.
    pub libclang: &'static Wheel,
    /// The library MLX's wheel must hold.
    pub library: &'static str,
    /// Where wheels are kept: under the target directory, shared by all profiles.
    pub cache: PathBuf,
    /// pip's name of the platform built for, where that is not the one that builds. pip is asked for that platform's
    /// wheel then.
    pub cross: Option<&'static str>,
}

static LINUX_X86_64: [Wheel; 2] = [
    Wheel {
        name: "mlx-cpu",
        version: "0.32.2",
        sha256: &["fc5d31b90fc4f457b2f9614ed45651a567d22a6a11a03d114a90a4e10bdd8878"],
    },
    Wheel {
        name: "libclang",
        version: "18.1.1",
        sha256: &["c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b"],
    },
];

static LINUX_AARCH64: [Wheel; 2] = [
    Wheel {
        name: "mlx-cpu",
        version: "0.32.2",
        sha256: &["d0f94625588b51a878786dd51cec5617894ce586cf3c94645ce1b64e24c27c0b"],
    },
    Wheel {
        name: "libclang",
        version: "18.1.1",
        sha256: &["54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592"],
    },
];

static MACOS_ARM64: [Wheel; 2] = [
    // One file per macOS release (14, 15, 26); pip takes the newest that runs.
    Wheel {
        name: "mlx-metal",
        version: "0.32.2",
        sha256: &[
            "3825fff379dbc107dd3413e564a06caeaa24819910ec49c0439e454c06a1b9b8",
            "55a369250d220b2cf10213a87a2ac1b1a420608c5b35b1df4e7147ac8e32f121",
            "e6abeac9ac5265830c9c1541b6f96e9be37a85c2446763a46ad466c63a3837ab",
        ],
    },
    Wheel {
        name: "libclang",
        version: "18.1.1",
        sha256: &["0b2e143f0fac830156feb56f9231ff8338c20aecfe72b4ffe96f19e5a1dbb69a"],
    },
];

impl Platform {
    pub fn of_build() -> Result<Self, String> {
        let (host, target) = (variable("HOST")?, variable("TARGET")?);
        let ([mlx, _], tag) = wheels(&target)?;
        let ([_, libclang], _) = wheels(&host)?;
        Ok(Self {
            mlx,
            libclang,
            library: if target.contains("apple") { "libmlx.dylib" } else { "libmlx.so" },
            cache: cache()?,
            cross: (host != target).then_some(tag),
        })
    }
}

/// The wheels for a triple, and pip's name of the oldest system that MLX's runs on.
fn wheels(triple: &str) -> Result<(&'static [Wheel; 2], &'static str), String> {
    match triple {
        "x86_64-unknown-linux-gnu" => Ok((&LINUX_X86_64, "manylinux_2_35_x86_64")),
        "aarch64-unknown-linux-gnu" => Ok((&LINUX_AARCH64, "manylinux_2_35_aarch64")),
        "aarch64-apple-darwin" => Ok((&MACOS_ARM64, "macosx_14_0_arm64")),
        _ => Err(format!(
            "MLX has no wheel for {triple}; there are wheels for x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu and \
             aarch64-apple-darwin"
        )),
    }
}

/// `OUT_DIR` is `TARGET_DIR/PROFILE/build/PACKAGE/out`.
fn cache() -> Result<PathBuf, String> {
    let out = out_dir()?;
    let target = out.ancestors().nth(4);
    let target =
        target.ok_or_else(|| format!("OUT_DIR is {}, which is in no target directory", out.display()))?;
    Ok(target.join("mlx-wheels"))
}

pub fn out_dir() -> Result<PathBuf, String> {
    variable("OUT_DIR").map(PathBuf::from)
}

pub fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|why| format!("{name}, which cargo sets for a build script: {why}"))
}

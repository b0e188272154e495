//! Fetches a wheel with pip, which verifies its SHA-256, and unpacks it with Python's zipfile.
//!
//! A wheel appears in the cache by a rename, so an interrupted or concurrent build never leaves half of one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::platform::Wheel;

/// The directory of the unpacked wheel, fetched if the cache lacks it. `foreign` names the platform it is for, where
/// that is not this machine's.
pub fn unpacked(wheel: &Wheel, foreign: Option<&str>, cache: &Path) -> Result<PathBuf, String> {
    let dir = cache.join(format!("{}-{}-{}", wheel.name, wheel.version, digest(wheel)));
    if dir.is_dir() {
        return Ok(dir);
    }
    let work = cache.join(format!("fetching-{}-{}", wheel.name, process::id()));
    let done = fetch(wheel, foreign, &work).and_then(|tree| match fs::rename(&tree, &dir) {
        Err(_) if dir.is_dir() => Ok(()), // another build was first
        renamed => renamed.map_err(|why| format!("{} -> {}: {why}", tree.display(), dir.display())),
    });
    let cleared = fs::remove_dir_all(&work).map_err(|why| format!("{}: {why}", work.display()));
    done.and(cleared).map(|()| dir)
}

/// Names the cache entry by what it was verified against.
fn digest(wheel: &Wheel) -> &str {
    wheel.sha256.first().and_then(|hash| hash.get(..12)).unwrap_or("unpinned")
}

fn fetch(wheel: &Wheel, foreign: Option<&str>, work: &Path) -> Result<PathBuf, String> {
    let Wheel { name, version, sha256 } = wheel;
    let create = |dir: &Path| fs::create_dir_all(dir).map_err(|why| format!("{}: {why}", dir.display()));
    let (download, tree) = (work.join("download"), work.join("tree"));
    create(&download)?;

    let hashes = sha256.join(" --hash=sha256:");
    let wanted = work.join("requirements.txt");
    fs::write(&wanted, format!("{name}=={version} --hash=sha256:{hashes}\n"))
        .map_err(|why| format!("{}: {why}", wanted.display()))?;

    // Isolated mode keeps a user's `--target` or `--user` defaults out; an index set in the environment stays.
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest"])
        .arg(&download)
        .arg("--requirement")
        .arg(&wanted);
    if let Some(platform) = foreign {
        pip.args(["--platform", platform]);
    }
    run(&mut pip).map_err(|why| {
        format!(
            "fetching {name} {version} needs Python 3 with pip 20.3 or newer (python3, python3-pip), a network on the \
             first build, and glibc 2.35 or macOS 14; {why}"
        )
    })?;

    let files = fs::read_dir(&download).map_err(|why| format!("{}: {why}", download.display()))?;
    let file = files
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|kind| kind == "whl"));
    let file = file
        .ok_or_else(|| format!("pip downloaded no wheel of {name} {version} into {}", download.display()))?;
    create(&tree)?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&file).arg(&tree))?;
    Ok(tree)
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|why| format!("{program} did not start: {why}"))?;
    if output.status.success() {
        return Ok(());
    }
    // pip warns of every retry; what went wrong comes last.
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("WARNING")).collect();
    Err(format!("{program} ended with {}: {}", output.status, said.join(" ").trim()))
}

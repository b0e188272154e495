//! The golden cases: every folder of `tests/golden`, so that no family is forgotten by a test.

use std::path::{Path, PathBuf};

/// The folder of one case.
pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

/// All of them, by name.
pub fn cases() -> Vec<String> {
    let entries = std::fs::read_dir(golden("")).unwrap();
    let folders = entries.map(Result::unwrap).filter(|entry| entry.path().join("config.json").is_file());
    let mut names: Vec<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 5, "found only {names:?}");
    names
}

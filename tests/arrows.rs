//! The arrows of ARCHITECTURE.md: which module may name which, who may name a crate, and what packages are built from.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules of the server, and which others each may name: only the wiring (`app`, `cli`) names `mlx`.
const MODULES: [(&str, &[&str]); 13] = [
    ("api", &["prompt", "scheduler", "wording"]),
    ("app", &["api", "config", "mlx", "prompt", "scheduler", "service", "source"]),
    ("cli", &["app", "config", "machine", "mlx", "prompt", "source"]),
    ("config", &["wording"]),
    ("lfs", &[]),
    ("machine", &[]),
    ("mlx", &["lfs", "python_json"]),
    ("prompt", &["lfs", "python_json"]),
    ("python_json", &[]),
    ("scheduler", &[]),
    ("service", &[]),
    ("source", &["config"]),
    ("wording", &[]),
];

/// What is not everybody's to name, and whose it is.
const NAMES: [(&str, &[&str]); 6] = [
    ("mlx_rs", &["mlx"]),
    ("mlx_sys", &["mlx"]),
    ("actix_web", &["api", "app"]),
    ("tokio", &["api", "app", "cli", "machine", "scheduler"]),
    ("llguidance", &["prompt"]),
    ("std::fs", &["app", "cli", "config", "machine", "mlx", "prompt", "source"]),
];

/// Packages that compile without these.
const APART: [&str; 3] = ["prefixd-cache", "prefixd-engine", "prefixd-migrations"];
const HEAVY: [&str; 6] = ["mlx-rs", "mlx-sys", "actix-web", "tokio", "hyper", "prefixd"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file under `dir`, with the top-level module that it belongs to.
fn sources(dir: &Path, module: Option<&str>, found: &mut Vec<(String, PathBuf)>) {
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = module.unwrap_or(&name);
        if entry.is_dir() {
            sources(&entry, Some(module), found);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            found.push((module.to_owned(), entry.clone()));
        }
    }
}

/// Code without comments, where names may be told to people.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether `code` has `name` as a whole word.
fn names(code: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (code[..at].chars().next_back(), code[at + name.len()..].chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[test]
fn a_module_names_only_those_that_it_may() {
    let mut found = Vec::new();
    sources(&root().join("src"), None, &mut found);
    assert!(found.len() > 100, "{} files", found.len());
    let allowed: BTreeMap<&str, &[&str]> = MODULES.into();
    let mut wrong = Vec::new();
    for (module, path) in &found {
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let may = allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not in the table"));
        let code = code(path);
        assert!(
            !code.contains("crate::{"),
            "{}: one `use` a module, so that arrows can be read",
            path.display()
        );
        for (other, _) in MODULES {
            if other != module && !may.contains(&other) && names(&code, &format!("crate::{other}")) {
                wrong.push(format!("{} names {other}", path.display()));
            }
        }
        for (name, whose) in NAMES {
            if !whose.contains(&module.as_str()) && names(&code, name) {
                wrong.push(format!("{} names {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_cache_and_the_contract_compile_without_mlx_http_and_tokio() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let dependencies = package.get("dependencies").and_then(toml::Value::as_array);
        let names = dependencies.into_iter().flatten().filter_map(|name| name.as_str()?.split(' ').next());
        needs.entry(package["name"].as_str().unwrap()).or_default().extend(names);
    }
    for package in APART {
        let (mut seen, mut next) = (BTreeSet::new(), vec![package]);
        while let Some(name) = next.pop() {
            if seen.insert(name) {
                next.extend(&needs[name]);
            }
        }
        assert!(seen.len() > 5, "{package}: {seen:?}");
        let heavy: Vec<_> = HEAVY.iter().filter(|name| seen.contains(**name)).collect();
        assert!(heavy.is_empty(), "{package} is built from {heavy:?}");
    }
}

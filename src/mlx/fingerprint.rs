//! Identity of a loaded model: everything that decides the bytes of a block besides its tokens, and nothing that
//! changes from run to run.
//!
//! 1. Weights count by content: two files with the same bytes are the same model wherever they lie, and a file that
//!    was rewritten in place is another one.
//! 2. Each part is written with its name and length, so that no two sets of parts run together.

use std::path::{Path, PathBuf};

use prefixd_cache::Fingerprint;

use super::backend::Arithmetic;
use super::config::ModelConfig;
use super::error::LoadError;
use super::kv::{KvSpec, Vectors};
use super::weights::{LoadProgress, LoadStage, read_if_there};

/// Raised whenever the same inputs lead to other bytes: another encoding, another kernel's rounding.
const VERSION: &str = "3";
/// Files besides the weights that decide what a prompt's tokens mean.
const FILES: [&str; 4] = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// A further place of the chat template.
const TEMPLATE_JSON: &str = "chat_template.json";

/// The fingerprint of the model in `dir`, served with these shapes, formats and arithmetic.
pub fn fingerprint(
    dir: &Path,
    weights: &[PathBuf],
    config: &ModelConfig,
    spec: &KvSpec,
    arithmetic: Arithmetic,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Fingerprint, LoadError> {
    let mut parts = Parts(blake3::Hasher::new_derive_key("prefixd model fingerprint"));
    parts.add("version", VERSION.as_bytes());
    for (name, digest) in digests(weights, progress)? {
        parts.add(&format!("weights {name}"), &digest);
    }
    for name in FILES {
        let digest = read_if_there(&dir.join(name))?.map(|bytes| *blake3::hash(&bytes).as_bytes());
        parts.add(name, digest.as_ref().map_or(&[], |digest| digest.as_slice()));
    }
    // What is read since it came later counts only where it is, so that other models keep their blocks.
    if let Some(bytes) = read_if_there(&dir.join(TEMPLATE_JSON))? {
        parts.add(TEMPLATE_JSON, blake3::hash(&bytes).as_bytes());
    }
    parts.add("kv setting", spec.setting.to_string().as_bytes());
    parts.add("kv group", super::kv::GROUP.to_string().as_bytes());
    parts.add("kv shape", shapes(spec).as_bytes());
    parts.add("layers", format!("{:?}", spec.masks).as_bytes());
    if spec.latent {
        parts.add("latents", format!("{:?} {:?}", spec.formats, spec.sides_of(0)).as_bytes());
    }
    if let Some(states) = &spec.states {
        parts.add("states", format!("{states:?}").as_bytes());
    }
    parts.add("rope", format!("{:?} {:?}", config.rope, config.window_rope).as_bytes());
    parts.add("activations", arithmetic.float_name().as_bytes());
    Ok(Fingerprint::from_bytes(*parts.0.finalize().as_bytes()))
}

/// Heads and their size: once where all layers are alike.
fn shapes(spec: &KvSpec) -> String {
    let each = (0..spec.masks.len()).map(|layer| spec.sides_of(layer)[0]);
    let mut each: Vec<_> = each.map(|Vectors { heads, width }| format!("{heads} x {width}")).collect();
    if each.windows(2).all(|pair| pair[0] == pair[1]) {
        each.truncate(1);
    }
    each.join(", ")
}

struct Parts(blake3::Hasher);

impl Parts {
    fn add(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }
}

fn digests(
    weights: &[PathBuf],
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Vec<(String, [u8; 32])>, LoadError> {
    let mut files = Vec::new();
    for path in weights {
        let bytes =
            std::fs::metadata(path).map_err(|source| LoadError::Read { path: path.clone(), source })?.len();
        files.push((path, bytes));
    }
    let total_bytes = files.iter().map(|(_, bytes)| bytes).sum();
    let mut done_bytes = 0;
    let mut digests = Vec::new();
    for (path, bytes) in files {
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        digests.push((name, *hasher.finalize().as_bytes()));
        done_bytes += bytes;
        progress(LoadProgress { stage: LoadStage::Digest, done: done_bytes, total: total_bytes });
    }
    Ok(digests)
}

//! The tensors of a model directory: found, loaded, and handed out by name and shape.
//!
//! 1. Every tensor that a model asks for is there with the shape it expects, or loading fails and names it.
//! 2. Every tensor that is there was asked for, or is known not to matter, or loading fails and names it.
//! 3. What is handed out is evaluated.

mod experts;
mod file;
mod fp8;

pub(super) use fp8::BLOCK as FP8_BLOCK;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};
use serde_json::Value;

use super::array::settle;
use super::error::{LoadError, plain_words};
use super::gate::Mlx;
use super::memory::MemoryNeed;

/// Names the file of each tensor, where there are several.
const INDEX: &str = "model.safetensors.index.json";

/// Beginnings of names that a text model has no use for, some of which stand behind `model.`.
const FOREIGN: [&str; 7] = [
    "vision_tower.",
    "multi_modal_projector.",
    "visual.",
    "vision_embedder.",
    "embed_vision.",
    "audio_tower.",
    "embed_audio.",
];

/// How far loading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// What is being done.
    pub stage: LoadStage,
    /// Done in this stage: bytes of weights, or tokens of the start-up check.
    pub done: u64,
    /// Altogether.
    pub total: u64,
}

/// What loading does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStage {
    /// Computing the digest of the weight files.
    Digest,
    /// Reading and preparing the weights.
    Weights,
    /// Checking the loaded model.
    Check,
}

/// The weight files of a model directory, sorted by name, each whole.
///
/// An index that does not fit what is there counts for nothing beside a `model.safetensors`: it is left over from another
/// form of the model.
pub fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let (index, single) = (dir.join(INDEX), dir.join("model.safetensors"));
    let indexed = read_if_there(&index)?.map(|text| indexed(dir, &index, &text)).transpose();
    let files = match indexed {
        Ok(Some(files)) => files,
        Ok(None) if !single.is_file() => numbered(dir)?,
        Err(error) if !single.is_file() => return Err(error),
        Ok(None) => vec![single],
        Err(error) => {
            tracing::warn!("model.safetensors is read, and the index beside it is not: {error}");
            vec![single]
        }
    };
    files.iter().try_for_each(|path| file::check(path))?;
    Ok(files)
}

/// The files that an index names, all of them there.
fn indexed(dir: &Path, index: &Path, text: &[u8]) -> Result<Vec<PathBuf>, LoadError> {
    let malformed = |reason: String| LoadError::Malformed { path: index.to_owned(), reason };
    if let Some(reason) = crate::lfs::pointer(text) {
        return Err(malformed(reason.into()));
    }
    let json: Value =
        serde_json::from_slice(text).map_err(|error| malformed(format!("not JSON: {error}")))?;
    let map = json.get("weight_map").and_then(Value::as_object).filter(|map| !map.is_empty());
    let map = map
        .ok_or_else(|| malformed("expected an object weight_map that names a file for each tensor".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let plain = |name: &&str| Path::new(name).file_name().is_some_and(|file| file == *name);
        let name = file.as_str().filter(plain);
        names.insert(name.ok_or_else(|| malformed(format!("{tensor} is in {file}, expected a file name")))?);
    }
    let missing: Vec<&str> = names.iter().copied().filter(|name| !dir.join(name).is_file()).collect();
    if !missing.is_empty() {
        return Err(malformed(format!("it names files that are not there: {}", some(&missing))));
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Files that are numbered by their names (`model-00001-of-00002.safetensors`) and have no index.
fn numbered(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let entries =
        std::fs::read_dir(dir).map_err(|source| LoadError::Read { path: dir.to_owned(), source })?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let number = |name: &str| -> Option<(usize, usize)> {
        let (at, of) = name.strip_prefix("model-")?.strip_suffix(".safetensors")?.split_once("-of-")?;
        Some((at.parse().ok()?, of.parse().ok()?))
    };
    let found: BTreeMap<(usize, usize), String> =
        names.filter_map(|name| number(&name).map(|number| (number, name))).collect();
    let Some(of) = found.keys().next().map(|(_, of)| *of) else {
        return Err(LoadError::Weights(format!(
            "{}: neither model.safetensors nor {INDEX} is there, nor files model-00001-of-…",
            dir.display()
        )));
    };
    let whole = found.keys().copied().eq((1..=of).map(|at| (at, of)));
    if !whole {
        let names: Vec<&str> = found.values().map(String::as_str).collect();
        let (dir, names) = (dir.display(), some(&names));
        return Err(LoadError::Weights(format!("{dir}: expected {of} files and no others, found {names}")));
    }
    Ok(found.into_values().map(|name| dir.join(name)).collect())
}

/// The first few of many names.
fn some(names: &[&str]) -> String {
    let more = if names.len() > 5 { format!(", … ({} in all)", names.len()) } else { String::new() };
    names.iter().take(5).copied().collect::<Vec<_>>().join(", ") + &more
}

/// A file's bytes, or `None` when there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, LoadError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Read { path: path.to_owned(), source }),
    }
}

/// A tensor's or module's name as text models have it: what a model of text and images puts before it is left out.
pub fn text_name(name: &str) -> String {
    match name.strip_prefix("model.language_model.") {
        Some(rest) => format!("model.{rest}"),
        None => name.strip_prefix("language_model.").unwrap_or(name).to_owned(),
    }
}

/// Tensors not yet handed out.
pub struct Weights {
    tensors: HashMap<String, Array>,
    /// Split modules, by the names of their parts.
    origins: HashMap<String, String>,
    done_bytes: u64,
    total_bytes: u64,
}

impl Weights {
    /// Opens every weight file. The bytes are read when a tensor is taken, and floats of 8 bits are numbers then.
    pub fn open(mx: &Mlx, files: &[PathBuf]) -> Result<Self, LoadError> {
        let mut tensors = HashMap::new();
        for path in files {
            let loaded = Array::load_safetensors(path).map_err(|error| {
                let reason = plain_words(&error.to_string());
                LoadError::Malformed { path: path.clone(), reason }
            })?;
            for (name, array) in loaded {
                if tensors.insert(text_name(&name), array).is_some() {
                    return Err(LoadError::Weights(format!("{name} is there twice")));
                }
            }
        }
        fp8::decode_all(mx, &mut tensors)?;
        let total_bytes = tensors.values().map(|array| array.nbytes() as u64).sum();
        Ok(Self { tensors, origins: HashMap::new(), done_bytes: 0, total_bytes })
    }

    /// Replaces module `whole` of `parent`, whose outputs are those of `parts` one after the other, by these.
    pub fn split(
        &mut self,
        mx: &Mlx,
        parent: &str,
        whole: &str,
        parts: &[(&str, usize)],
    ) -> Result<(), LoadError> {
        self.split_heads(mx, parent, whole, 1, parts)
    }

    /// The same where each of `heads` has outputs of all parts: those of the first head come first, part by part.
    pub fn split_heads(
        &mut self,
        _: &Mlx,
        parent: &str,
        whole: &str,
        heads: usize,
        parts: &[(&str, usize)],
    ) -> Result<(), LoadError> {
        let whole = format!("{parent}.{whole}");
        if !self.contains(&format!("{whole}.weight")) {
            return Err(LoadError::Weights(format!("{whole}.weight is missing")));
        }
        let outputs: usize = parts.iter().map(|(_, count)| count).sum();
        for kind in ["weight", "scales", "biases", "bias"] {
            let Some(array) = self.tensors.remove(&format!("{whole}.{kind}")) else { continue };
            let found = array.shape();
            if found.first() != Some(&((heads * outputs) as i32)) {
                return Err(LoadError::Weights(format!(
                    "{whole}.{kind} has shape {found:?}, expected {} rows",
                    heads * outputs
                )));
            }
            let rest = &found[1..];
            let by_head = array.reshape(&[&[heads as i32, outputs as i32], rest].concat())?;
            let mut from = 0;
            for (part, count) in parts {
                let to = from + *count as i32;
                let own = by_head.try_index((.., from..to))?;
                let own = own.reshape(&[&[(heads * count) as i32], rest].concat())?.contiguous()?;
                self.tensors.insert(format!("{parent}.{part}.{kind}"), own);
                from = to;
            }
        }
        let origin = self.module(&whole).to_owned();
        let origins = parts.iter().map(|(part, _)| (format!("{parent}.{part}"), origin.clone()));
        self.origins.extend(origins);
        Ok(())
    }

    /// Gives a module, and those within it, another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        let behind =
            |name: &String| name.strip_prefix(from).filter(|rest| rest.starts_with('.')).map(str::to_owned);
        let inside: Vec<String> = self.tensors.keys().filter_map(behind).collect();
        for rest in inside {
            let Some(array) = self.tensors.remove(&format!("{from}{rest}")) else { continue };
            let module = rest.rsplit_once('.').map_or("", |(module, _)| module);
            let origin = self.module(&format!("{from}{module}")).to_owned();
            self.origins.insert(format!("{to}{module}"), origin);
            self.tensors.insert(format!("{to}{rest}"), array);
        }
    }

    /// Replaces modules of `parent` by one whose outputs are theirs one after the other. They come from one module.
    pub fn join(&mut self, _: &Mlx, parent: &str, parts: &[&str], whole: &str) -> Result<(), LoadError> {
        for kind in ["weight", "scales", "biases", "bias"] {
            let each =
                parts.iter().filter_map(|part| self.tensors.remove(&format!("{parent}.{part}.{kind}")));
            let each: Vec<Array> = each.collect();
            if !each.is_empty() {
                self.tensors.insert(format!("{parent}.{whole}.{kind}"), mlx_rs::ops::concatenate(&each, 0)?);
            }
        }
        let origin = parts.first().and_then(|part| self.origins.get(&format!("{parent}.{part}")).cloned());
        self.origins.extend(origin.map(|origin| (format!("{parent}.{whole}"), origin)));
        Ok(())
    }

    /// The module that config.json knows as `path`'s: another one when that was split.
    pub fn module<'a>(&'a self, path: &'a str) -> &'a str {
        self.origins.get(path).map_or(path, String::as_str)
    }

    /// What it takes to hold all of them.
    pub fn memory(&self) -> MemoryNeed {
        MemoryNeed::of(self.tensors.values().map(|array| array.nbytes() as u64))
    }

    /// Is a tensor of this name left?
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes a tensor of numbers, as `float` when it is a float; `None` leaves its type.
    pub fn take(
        &mut self,
        mx: &Mlx,
        name: &str,
        shape: &[usize],
        float: Option<Dtype>,
    ) -> Result<Array, LoadError> {
        let array =
            self.tensors.remove(name).ok_or_else(|| LoadError::Weights(format!("{name} is missing")))?;
        if array.shape().iter().map(|&dim| dim as usize).ne(shape.iter().copied()) {
            let found = array.shape();
            return Err(LoadError::Weights(format!("{name} has shape {found:?}, expected {shape:?}")));
        }
        let dtype = array.dtype();
        let array = match dtype {
            Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16 => array.as_dtype(float.unwrap_or(dtype))?,
            Dtype::Uint32 => array,
            // Exponents, which some codes have for scales.
            Dtype::Uint8 if name.ends_with(".scales") => array,
            _ => {
                return Err(LoadError::Weights(format!(
                    "{name} is {dtype:?}, expected float32, float16, bfloat16, uint32 where quantized, or F8_E4M3 with \
                     {name}_scale_inv beside it"
                )));
            }
        };
        settle(mx, [&array]).map_err(|error| LoadError::Weights(format!("{name}: {error}")))?;
        self.done_bytes += array.size() as u64 * super::array::item_bytes(dtype) as u64;
        Ok(array)
    }

    /// Takes a tensor as it is, to be put back in another form.
    pub fn remove(&mut self, name: &str) -> Option<Array> {
        self.tensors.remove(name)
    }

    /// Puts a tensor in.
    pub fn insert(&mut self, name: String, array: Array) {
        self.tensors.insert(name, array);
    }

    /// Drops a tensor that is not needed.
    pub fn discard(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Drops the layers from this one on.
    pub fn discard_layers(&mut self, from: usize) {
        let number =
            |name: &str| name.strip_prefix("model.layers.")?.split('.').next()?.parse::<usize>().ok();
        self.tensors.retain(|name, _| number(name).is_none_or(|layer| layer < from));
    }

    /// Drops the tensors whose names begin so.
    pub fn discard_all(&mut self, beginning: &str) {
        self.tensors.retain(|name, _| !name.starts_with(beginning));
    }

    /// Bytes of the files taken so far, and altogether.
    pub fn progress(&self) -> LoadProgress {
        LoadProgress { stage: LoadStage::Weights, done: self.done_bytes, total: self.total_bytes }
    }

    /// Fails when tensors are left that should have mattered.
    pub fn finish(self) -> Result<(), LoadError> {
        let mut left: Vec<_> = self
            .tensors
            .into_keys()
            .filter(|name| {
                let name = name.strip_prefix("model.").unwrap_or(name);
                !FOREIGN.iter().any(|foreign| name.starts_with(foreign))
            })
            // Older files carry the frequencies that the configuration already determines.
            .filter(|name| !name.ends_with("rotary_emb.inv_freq"))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        left.sort();
        let left: Vec<&str> = left.iter().map(String::as_str).collect();
        Err(LoadError::Weights(format!(
            "{} tensors have no place in this model: {}",
            left.len(),
            some(&left)
        )))
    }
}

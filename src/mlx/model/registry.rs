//! The families that can be served: to add one is a file beside this one and an entry in [`FAMILIES`].

use std::path::Path;

use serde_json::Value;

use super::{
    Model, deepseek_v2, deepseek_v3, gemma3, gemma4, glm4_moe, glm4_moe_lite, gpt_oss, lfm2, llama, mistral,
    mistral4, nemotron_h, phi3, qwen2, qwen3, qwen3_5, qwen3_5_moe, qwen3_moe, qwen3_next,
};
use crate::mlx::config::ModelConfig;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;
use crate::mlx::quantization::Quantization;

/// Every family, in the order that people read.
pub const FAMILIES: [&Family; 19] = [
    &llama::FAMILY,
    &mistral::FAMILY,
    &mistral4::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &qwen3_moe::FAMILY,
    &qwen3_next::FAMILY,
    &qwen3_5::FAMILY,
    &qwen3_5_moe::FAMILY,
    &phi3::FAMILY,
    &gemma3::FAMILY,
    &gemma4::FAMILY,
    &gpt_oss::FAMILY,
    &glm4_moe::FAMILY,
    &glm4_moe_lite::FAMILY,
    &deepseek_v2::FAMILY,
    &deepseek_v3::FAMILY,
    &lfm2::FAMILY,
    &nemotron_h::FAMILY,
];

/// Builds a model out of its tensors.
pub type Loader = fn(&Mlx, &mut Source<'_>) -> Result<Box<dyn Model>, LoadError>;

/// A model family.
#[derive(Debug)]
pub struct Family {
    /// What `model_type` of config.json may be.
    pub model_types: &'static [&'static str],
    /// What layers keep of a sequence.
    pub states: &'static [State],
    /// Reads config.json, but for `quantization`, which is everybody's.
    pub config: fn(Fields<'_>) -> Result<ModelConfig, LoadError>,
    /// Takes the model's tensors.
    pub load: Loader,
}

/// What a layer keeps of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Keys and values of every token.
    Full,
    /// Keys and values of the last tokens.
    Window,
    /// One vector of every token for all heads, and a key.
    Latent,
    /// A state after all tokens.
    Recurrent,
}

impl State {
    /// As the user reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Window => "window",
            Self::Latent => "latent",
            Self::Recurrent => "recurrent",
        }
    }
}

/// The family of the model in `dir`, and its configuration, checked.
pub fn open(dir: &Path) -> Result<(&'static Family, ModelConfig), LoadError> {
    let path = dir.join("config.json");
    let text = std::fs::read(&path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
    let json: Value = crate::python_json::parse(&text)
        .map_err(|error| {
            crate::lfs::pointer(&text).map_or_else(|| format!("not JSON: {error}"), str::to_owned)
        })
        .map_err(|reason| LoadError::Malformed { path, reason })?;
    let fields = Fields(&json);
    let found = fields.text("model_type")?.unwrap_or("absent");
    let family = FAMILIES.into_iter().find(|family| family.model_types.contains(&found));
    let family = family
        .ok_or_else(|| LoadError::Family { found: found.to_owned(), nearest: nearest(found).join(", ") })?;
    let mut config = (family.config)(fields)?;
    config.quantization = Quantization::parse(&json)?;
    Ok((family, config.check()?))
}

/// The three supported values of `model_type` that are most like `found`.
fn nearest(found: &str) -> Vec<&'static str> {
    let mut all: Vec<_> = FAMILIES.iter().flat_map(|family| family.model_types).copied().collect();
    all.sort_by(|a, b| strsim::jaro_winkler(b, found).total_cmp(&strsim::jaro_winkler(a, found)));
    all.truncate(3);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_type_has_one_family() {
        let mut all: Vec<_> = FAMILIES.iter().flat_map(|family| family.model_types).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn what_is_spelled_alike_is_near() {
        assert_eq!(nearest("qwen3_moes")[0], "qwen3_moe");
        assert_eq!(nearest("Llama")[0], "llama");
    }
}

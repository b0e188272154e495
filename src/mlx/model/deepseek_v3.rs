//! DeepSeek V3 and R1, and Kimi K2, which has their layers: attention over latents, a few dense layers, then experts chosen by
//! groups, where a learned number favours some, beside one that every token goes to.
//!
//! mlx-lm leaves out layer 61, whatever the number of layers; here those that stand behind the last one are left out.

use super::prenorm::PreNorm;
use super::{Family, State};
use crate::mlx::config::{Defaults, Head, Latents, ModelConfig, RoutedExperts, Router, Windows, masks};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;

/// Its entry in the registry.
pub const FAMILY: Family = Family {
    model_types: &["deepseek_v3", "kimi_k2"],
    states: &[State::Latent],
    config,
    load: PreNorm::load_with_experts,
};

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults::default().read(fields)?;
    config.head = Head::Separate;
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    Latents::default().read(fields, &mut config)?;
    let (layers, router) = (config.masks.len(), Router { normalized: true, factor: 1.0 });
    config.experts = RoutedExperts::default().read(fields, layers, |sizes| router.read(fields, sizes))?;
    Ok(config)
}

//! Mistral Small 4, text: attention over latents whose queries grow louder far into a sequence, and experts beside one that every
//! token goes to. It comes as text model of a `mistral3` as well.

use super::prenorm::PreNorm;
use super::{Family, Model, State};
use crate::mlx::config::{
    Defaults, Head, Latents, ModelConfig, RoutedExperts, Routing, Windows, groups, masks,
};
use crate::mlx::cpu::rotate::Pairs;
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;

/// Its entry in the registry.
pub const FAMILY: Family = Family { model_types: &["mistral4"], states: &[State::Latent], config, load };

/// Reads the configuration of the text model.
pub fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults::default().read(fields)?;
    if config.head == Head::AsStored {
        config.head = Head::Separate;
    }
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    Latents { base: 100_000.0, ..Latents::default() }.read(fields, &mut config)?;
    if config.rope.long_queries.is_none() {
        return Err(LoadError::Config("rope_parameters.llama_4_scaling_beta is missing".into()));
    }
    if fields.flag("rope_interleave")? == Some(false) {
        config.rope.pairs = Pairs::Halves;
    }
    let layers = config.masks.len();
    config.experts = RoutedExperts::default().read(fields, layers, |[count, chosen]| {
        Ok(Routing::SoftmaxThenTop {
            groups: groups(fields, 2)?.check(count, chosen)?,
            normalized: fields.flag("norm_topk_prob")?.unwrap_or(true),
            factor: fields.number("routed_scaling_factor")?.unwrap_or(1.0) as f32,
        })
    })?;
    Ok(config)
}

/// Takes the tensors, where gates and ups of all experts may be one.
pub fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    if let Some(experts) = &source.config.experts {
        for layer in 0..experts.layers.len() {
            let mlp = format!("model.layers.{layer}.mlp");
            let [apart, ours] = [format!("{mlp}.experts"), format!("{mlp}.switch_mlp")];
            source.weights.split_experts(mx, &apart, &ours, experts.width)?;
        }
    }
    PreNorm::load_with_experts(mx, source)
}

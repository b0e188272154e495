//! Qwen3 with experts: Qwen3's attention, and in most layers a choice of small MLPs in place of one.

use super::prenorm::PreNorm;
use super::{Family, Model, State, qwen3};
use crate::mlx::config::{Experts, Groups, ModelConfig, Routing};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;

/// Its entry in the registry.
pub const FAMILY: Family = Family { model_types: &["qwen3_moe"], states: &[State::Full], config, load };

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = qwen3::config(fields)?;
    let count = fields.need("num_experts")?;
    let step = fields.count("decoder_sparse_step")?.unwrap_or(1);
    if step == 0 {
        return Err(LoadError::Config("decoder_sparse_step is 0, expected at least 1".into()));
    }
    let dense = fields.counts("mlp_only_layers")?.unwrap_or_default();
    let sparse = |layer: usize| count > 0 && !dense.contains(&layer) && (layer + 1).is_multiple_of(step);
    config.experts = Some(Experts {
        count,
        chosen: fields.need("num_experts_per_tok")?,
        width: fields.need("moe_intermediate_size")?,
        routing: Routing::SoftmaxThenTop {
            groups: Groups::ONE,
            normalized: fields.flag("norm_topk_prob")?.unwrap_or(false),
            factor: 1.0,
        },
        layers: (0..config.masks.len()).map(sparse).collect(),
        module: "mlp.switch_mlp",
        router: "mlp.gate",
        bias: false,
        scales: None,
        shared: None,
        shared_gate: None,
        narrow: None,
    });
    Ok(config)
}

fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    let count = source.config.experts.as_ref().map_or(0, |experts| experts.count);
    source.weights.stack_experts(mx, source.config.masks.len(), count)?;
    PreNorm::load(mx, source)
}

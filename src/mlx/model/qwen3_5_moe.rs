//! Qwen3.5 and 3.6 with experts in place of one MLP, and one more that a gate opens for every token.

use super::{Family, Model, State, qwen3_5};
use crate::mlx::config::{Experts, Groups, ModelConfig, Routing};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;

/// Its entry in the registry. `qwen3_5_moe` has a vision tower, which is left out.
pub const FAMILY: Family = Family {
    model_types: &["qwen3_5_moe", "qwen3_5_moe_text"],
    states: &[State::Full, State::Recurrent],
    config,
    load,
};

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let fields = qwen3_5::text(fields);
    // No layer is dense, so that nothing is that wide.
    let mut config = qwen3_5::config(fields, fields.count("moe_intermediate_size")?)?;
    let layers = vec![true; config.layers()];
    config.experts = Some(experts(fields, layers, true)?);
    Ok(config)
}

/// The experts of `layers`. Weights of the chosen are renormalized unless the file says otherwise, where that is `normalized`.
pub fn experts(fields: Fields<'_>, layers: Vec<bool>, normalized: bool) -> Result<Experts, LoadError> {
    let normalized = fields.flag("norm_topk_prob")?.unwrap_or(normalized);
    Ok(Experts {
        count: fields.need("num_experts")?,
        chosen: fields.need("num_experts_per_tok")?,
        width: fields.need("moe_intermediate_size")?,
        routing: Routing::SoftmaxThenTop { groups: Groups::ONE, normalized, factor: 1.0 },
        layers,
        module: "mlp.switch_mlp",
        router: "mlp.gate",
        bias: false,
        scales: None,
        shared: Some(("mlp.shared_expert", fields.need("shared_expert_intermediate_size")?)),
        shared_gate: Some("mlp.shared_expert_gate"),
        narrow: None,
    })
}

fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    let (config, weights) = (source.config, &mut source.weights);
    let width = config.experts.as_ref().map_or(0, |experts| experts.width);
    for layer in 0..config.layers() {
        let mlp = format!("model.layers.{layer}.mlp");
        weights.split_experts(mx, &format!("{mlp}.experts"), &format!("{mlp}.switch_mlp"), width)?;
    }
    qwen3_5::load(mx, source)
}

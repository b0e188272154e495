//! gpt-oss: window and full layers in turns, attention sinks, biases everywhere, and experts stored in MXFP4.

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};

use super::prenorm::PreNorm;
use super::{Family, Model, State};
use crate::mlx::config::{
    AttentionBias, Defaults, Experts, Head, ModelConfig, Routing, Windows, masks, rotation,
};
use crate::mlx::cpu::activation::{Activation, CLAMP};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::gate::Mlx;
use crate::mlx::layer::Source;
use crate::mlx::weights::Weights;

/// Its entry in the registry.
pub const FAMILY: Family =
    Family { model_types: &["gpt_oss"], states: &[State::Full, State::Window], config, load };

const EXPERTS: &str = "mlp.experts";

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let activation = (Activation::ClampedSwiglu, "silu");
    let defaults = Defaults { head_dim: Some(64), context: 131_072, activation, ..Defaults::default() };
    let mut config = defaults.read(fields)?;
    let clamp = fields.number("swiglu_limit")?.unwrap_or(f64::from(CLAMP));
    if (clamp - f64::from(CLAMP)).abs() > f64::EPSILON {
        return Err(LoadError::Unsupported { key: "swiglu_limit", found: clamp.to_string(), expected: "7" });
    }
    config.head = Head::Separate;
    config.attention_bias = AttentionBias::All;
    config.sinks = true;
    let windows = Windows::Period { period: 2, window: 128, layers: None };
    config.masks = masks(fields, windows, config.context_tokens)?;
    config.rope = rotation(fields, config.head_dim, 150_000.0, config.context_tokens, None)?;
    config.experts = Some(Experts {
        count: fields.need("num_local_experts")?,
        chosen: fields.count("num_experts_per_tok")?.unwrap_or(4),
        width: config.intermediate,
        routing: Routing::TopThenSoftmax,
        layers: vec![true; config.masks.len()],
        module: EXPERTS,
        router: "mlp.router",
        bias: true,
        scales: None,
        shared: None,
        shared_gate: None,
        narrow: None,
    });
    Ok(config)
}

fn load(mx: &Mlx, source: &mut Source<'_>) -> Result<Box<dyn Model>, LoadError> {
    for layer in 0..source.config.masks.len() {
        let experts = format!("model.layers.{layer}.{EXPERTS}");
        as_mlx_has_them(mx, &mut source.weights, &experts)?;
    }
    PreNorm::load(mx, source)
}

/// Hugging Face stores codes as bytes in groups, and the rows of gates and ups in turns, gates first.
fn as_mlx_has_them(_: &Mlx, weights: &mut Weights, path: &str) -> Result<(), LoadError> {
    for (stored, ours) in [("_blocks", "weight"), ("_scales", "scales"), ("_bias", "bias")] {
        let codes = |name: &str, array: Array| {
            let words = |array: &Array| array.view_dtype(Dtype::Uint32)?.flatten(-2, None);
            let words = if stored == "_blocks" { words(&array) } else { Ok(array) };
            words.map_err(|error| LoadError::Weights(format!("{name}: {error}")))
        };
        let name = format!("{path}.gate_up_proj{stored}");
        if let Some(array) = weights.remove(&name) {
            let array = codes(&name, array)?;
            let mut turns = array.shape().to_vec();
            if let Some(rows) = turns.get_mut(1) {
                *rows /= 2;
                turns.insert(2, 2);
            }
            let turns = array.reshape(&turns)?;
            for (i, part) in [(0, "gate_proj"), (1, "up_proj")] {
                let rows = turns.try_index((.., .., i))?.contiguous()?;
                weights.insert(format!("{path}.{part}.{ours}"), rows);
            }
        }
        let name = format!("{path}.down_proj{stored}");
        if let Some(array) = weights.remove(&name) {
            weights.insert(format!("{path}.down_proj.{ours}"), codes(&name, array)?);
        }
    }
    Ok(())
}

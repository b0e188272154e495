//! How many layers a model has, and what each of them sees.

use serde_json::Value;

use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::mask::Mask;

/// More layers than any model has: a broken file should not cost memory.
const MOST_LAYERS: usize = 1000;

/// Which layers have a window when `layer_types` does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// None.
    Never,
    /// All, when `sliding_window` is set.
    AllIfSet,
    /// All but every `period`-th, of `window` tokens unless `sliding_window` says otherwise; `layers` of them unless
    /// `num_hidden_layers` does.
    Period {
        /// Distance between layers that see everything.
        period: usize,
        /// Tokens of a window.
        window: usize,
        /// Number of layers.
        layers: Option<usize>,
    },
}

/// Number of layers.
pub fn layer_count(fields: Fields<'_>, default: Option<usize>) -> Result<usize, LoadError> {
    let layers = fields.count("num_hidden_layers")?.or(default);
    let layers = layers.ok_or_else(|| LoadError::Config("num_hidden_layers is missing".into()))?;
    if layers > MOST_LAYERS {
        return Err(LoadError::Config(format!(
            "num_hidden_layers is {layers}, expected at most {MOST_LAYERS}"
        )));
    }
    Ok(layers)
}

/// One mask a layer: from `layer_types` where given, else as the family has it. A window as long as the longest sequence
/// is none.
pub fn masks(fields: Fields<'_>, windows: Windows, context_tokens: usize) -> Result<Vec<Mask>, LoadError> {
    let (default_window, default_layers) = match windows {
        Windows::Period { window, layers, .. } => (Some(window), layers),
        Windows::Never | Windows::AllIfSet => (None, None),
    };
    let window = fields.count("sliding_window")?.or(default_window);
    let windowed = || match window {
        Some(tokens) if tokens >= context_tokens => Ok(Mask::Causal),
        Some(tokens) => Ok(Mask::Window { tokens }),
        None => Err(LoadError::Config("a sliding_attention layer without sliding_window".into())),
    };
    let layers = layer_count(fields, default_layers)?;
    if let Some(kinds) = fields.0.get("layer_types").and_then(Value::as_array) {
        if kinds.len() != layers {
            return Err(LoadError::Config(format!("{} layer_types for {layers} layers", kinds.len())));
        }
        return kinds
            .iter()
            .map(|kind| match kind.as_str() {
                Some("full_attention") => Ok(Mask::Causal),
                Some("sliding_attention") => windowed(),
                _ => Err(LoadError::Unsupported {
                    key: "layer_types",
                    found: kind.to_string(),
                    expected: "full_attention, sliding_attention",
                }),
            })
            .collect();
    }
    match windows {
        Windows::AllIfSet if window.is_some() => Ok(vec![windowed()?; layers]),
        Windows::Never | Windows::AllIfSet => Ok(vec![Mask::Causal; layers]),
        Windows::Period { period: 0, .. } => Err(LoadError::Config("sliding_window_pattern is 0".into())),
        Windows::Period { period, .. } => (1..=layers)
            .map(|layer| if layer.is_multiple_of(period) { Ok(Mask::Causal) } else { windowed() })
            .collect(),
    }
}

/// The last `count` layers read the keys and values of the last of the others with the same mask: its number, for each of them.
pub fn shared(masks: &[Mask], count: usize) -> Result<Vec<usize>, LoadError> {
    let Some((own, sharing)) = masks.len().checked_sub(count).map(|own| masks.split_at(own)) else {
        let layers = masks.len();
        return Err(LoadError::Config(format!("{count} of {layers} layers read another's keys and values")));
    };
    let kept = |(behind, mask): (usize, &Mask)| {
        own.iter().rposition(|own| own == mask).ok_or_else(|| {
            let layer = own.len() + behind;
            LoadError::Config(format!(
                "layer {layer} reads another's keys and values, but no layer of its kind keeps any"
            ))
        })
    };
    sharing.iter().enumerate().map(kept).collect()
}

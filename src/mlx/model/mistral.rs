//! Mistral, Ministral 3 and Devstral, text: Llama's layers. A `sliding_window` without `layer_types` is every layer's, as
//! Mistral 7B v0.1 was trained (mlx-lm computes full attention there). Ministral 3 makes queries far into a sequence louder.

use serde_json::Value;

use super::{Family, State, mistral4};
use crate::mlx::config::{Defaults, ModelConfig, Windows, base_of, masks, rotation};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;

/// Its entry in the registry. `mistral3` is a text model of one of the other types with a vision tower, which is left out.
pub const FAMILY: Family = Family {
    model_types: &["mistral", "ministral3", "mistral3"],
    states: &[State::Full, State::Window],
    config,
    load: mistral4::load,
};

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let kind = fields.text("model_type")?;
    if kind == Some("mistral3") {
        let text = fields.0.get("text_config").filter(|text| text.is_object());
        let text = text.ok_or_else(|| missing("an object text_config"))?;
        return match Fields(text).text("model_type")? {
            Some("mistral" | "ministral3") => config(Fields(text)),
            Some("mistral4") => mistral4::config(Fields(text)),
            other => Err(LoadError::Unsupported {
                key: "text_config.model_type",
                found: other.unwrap_or("absent").to_owned(),
                expected: "mistral, ministral3, mistral4",
            }),
        };
    }
    let mut config = Defaults::default().read(fields)?;
    config.masks = masks(fields, Windows::AllIfSet, config.context_tokens)?;
    if kind == Some("ministral3") && fields.0.get("rope_parameters").is_none_or(Value::is_null) {
        return Err(missing("rope_parameters"));
    }
    let base = base_of(fields)?.unwrap_or(10_000.0);
    config.rope = rotation(fields, config.head_dim, base, config.context_tokens, None)?;
    if kind == Some("ministral3") && config.rope.long_queries.is_none() {
        return Err(missing("rope_parameters.llama_4_scaling_beta"));
    }
    Ok(config)
}

fn missing(what: &str) -> LoadError {
    LoadError::Config(format!("{what} is missing"))
}

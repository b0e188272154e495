//! How a model's weights are quantized: bits and group size, with exceptions by module.

use std::collections::HashMap;

use serde_json::Value;

use super::error::LoadError;
use super::fields::Fields;

/// Affine quantization of one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// Bits of a code.
    pub bits: usize,
    /// Weights that share a scale and a bias.
    pub group: usize,
}

/// The model's setting and the modules with one of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantization {
    default: Affine,
    modules: HashMap<String, Affine>,
}

impl Quantization {
    /// Reads `quantization` of a configuration. `None` when the weights are not quantized.
    pub fn parse(config: &Value) -> Result<Option<Self>, LoadError> {
        let Some(Value::Object(object)) = config.get("quantization") else {
            let foreign =
                config.get("quantization_config").or(config.pointer("/text_config/quantization_config"));
            return match foreign.filter(|value| !value.is_null()) {
                None => Ok(None),
                Some(foreign) => Err(LoadError::Unsupported {
                    key: "quantization_config",
                    found: foreign.get("quant_method").unwrap_or(foreign).to_string(),
                    expected: "MLX's own \"quantization\" {bits, group_size}, or none",
                }),
            };
        };
        let default = affine(Fields(&config["quantization"]), None)?;
        let mut modules = HashMap::new();
        for (name, value) in object {
            if value.is_object() {
                modules.insert(name.clone(), affine(Fields(value), Some(default))?);
            }
        }
        Ok(Some(Self { default, modules }))
    }

    /// The setting of the module at `path`, if its weights turn out to be quantized.
    pub fn of(&self, path: &str) -> Affine {
        self.modules.get(path).copied().unwrap_or(self.default)
    }
}

fn affine(fields: Fields<'_>, default: Option<Affine>) -> Result<Affine, LoadError> {
    if let Some(mode) = fields.text("mode")?.filter(|mode| *mode != "affine") {
        return Err(LoadError::Unsupported {
            key: "quantization.mode",
            found: mode.to_owned(),
            expected: "affine",
        });
    }
    let missing = |key| LoadError::Config(format!("quantization without {key}"));
    let bits = fields.count("bits")?.or(default.map(|d| d.bits)).ok_or_else(|| missing("bits"))?;
    let group =
        fields.count("group_size")?.or(default.map(|d| d.group)).ok_or_else(|| missing("group_size"))?;
    if !matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) || !matches!(group, 32 | 64 | 128) {
        return Err(LoadError::Unsupported {
            key: "quantization",
            found: format!("{bits} bits in groups of {group}"),
            expected: "2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128",
        });
    }
    Ok(Affine { bits, group })
}

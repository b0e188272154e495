//! How a model's weights are quantized: bits and group size, with exceptions by module.

use std::collections::HashMap;

use serde_json::Value;

use super::error::LoadError;
use super::fields::Fields;
use super::mxfp4;
use super::weights::text_name;

/// What weights may be stored as.
pub const WEIGHT_FORMATS: [&str; 3] = [
    "bf16, f16, f32",
    "MLX affine with 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128, module by module",
    "mxfp4",
];

/// How the weights of one module are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// A scale and a bias for each group.
    Affine(Affine),
    /// [`super::mxfp4`].
    Mxfp4,
}

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
    default: Coding,
    modules: HashMap<String, Coding>,
}

impl Quantization {
    /// Reads `quantization` of a configuration. `None` when the weights are not quantized.
    pub fn parse(config: &Value) -> Result<Option<Self>, LoadError> {
        let Some(Value::Object(object)) = config.get("quantization") else {
            let foreign =
                config.get("quantization_config").or(config.pointer("/text_config/quantization_config"));
            let foreign = foreign.filter(|value| !value.is_null());
            return match foreign {
                None => Ok(None),
                Some(foreign) if foreign["quant_method"] == "mxfp4" => {
                    Ok(Some(Self { default: Coding::Mxfp4, modules: HashMap::new() }))
                }
                Some(foreign) => Err(LoadError::Unsupported {
                    key: "quantization_config",
                    found: foreign.get("quant_method").unwrap_or(foreign).to_string(),
                    expected: "MLX's own \"quantization\" {bits, group_size}, quant_method mxfp4, or none",
                }),
            };
        };
        let default = coding(Fields(&config["quantization"]), None)?;
        let mut modules = HashMap::new();
        for (name, value) in object {
            if value.is_object() {
                modules.insert(text_name(name), coding(Fields(value), Some(default))?);
            }
        }
        Ok(Some(Self { default, modules }))
    }

    /// The setting of the module at `path`, if its weights turn out to be quantized.
    pub fn of(&self, path: &str) -> Coding {
        self.modules.get(path).copied().unwrap_or(self.default)
    }
}

fn coding(fields: Fields<'_>, default: Option<Coding>) -> Result<Coding, LoadError> {
    match fields.text("mode")?.unwrap_or("affine") {
        "affine" => {}
        "mxfp4" => {
            let [bits, group] = ["bits", "group_size"].map(|key| fields.count(key));
            let (bits, group) = (bits?.unwrap_or(mxfp4::BITS), group?.unwrap_or(mxfp4::GROUP));
            if (bits, group) != (mxfp4::BITS, mxfp4::GROUP) {
                return Err(LoadError::Unsupported {
                    key: "quantization",
                    found: format!("mxfp4 with {bits} bits in groups of {group}"),
                    expected: "mxfp4 with 4 bits in groups of 32",
                });
            }
            return Ok(Coding::Mxfp4);
        }
        mode => {
            return Err(LoadError::Unsupported {
                key: "quantization.mode",
                found: mode.to_owned(),
                expected: "affine, mxfp4",
            });
        }
    }
    let default = match default {
        Some(Coding::Affine(affine)) => Some(affine),
        Some(Coding::Mxfp4) | None => None,
    };
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
    Ok(Coding::Affine(Affine { bits, group }))
}

//! How a model's weights are quantized: bits and group size, with exceptions by module.

use std::collections::HashMap;

use serde_json::Value;

use super::error::LoadError;
use super::fields::Fields;
use super::microfloat::{Format, MXFP4};
use super::weights::{FP8_BLOCK as BLOCK, text_name};

/// What weights may be stored as.
pub const WEIGHT_FORMATS: [&str; 4] = [
    "bf16, f16, f32",
    "MLX affine with 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128, module by module",
    "mxfp4, mxfp8, nvfp4",
    "fp8 (e4m3 with a scale for each matrix or each 128 x 128 of it), which become bf16 when they are loaded",
];

/// How the weights of one module are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// A scale and a bias for each group.
    Affine(Affine),
    /// [`super::microfloat`].
    Micro(&'static Format),
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
                    Ok(Some(Self { default: Coding::Micro(&MXFP4), modules: HashMap::new() }))
                }
                Some(foreign) if foreign["quant_method"] == "fp8" => blocks(foreign).map(|()| None),
                Some(foreign) => Err(LoadError::Unsupported {
                    key: "quantization_config",
                    found: foreign.get("quant_method").unwrap_or(foreign).to_string(),
                    expected: "MLX's own \"quantization\" {bits, group_size}, quant_method mxfp4 or fp8, or none",
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

/// Refuses floats of 8 bits that [`super::weights`] does not read.
fn blocks(config: &Value) -> Result<(), LoadError> {
    let size = config.get("weight_block_size").filter(|size| !size.is_null()).map(ToString::to_string);
    let format = config["fmt"].as_str().unwrap_or("e4m3");
    if format == "e4m3" && size.as_ref().is_none_or(|size| *size == format!("[{BLOCK},{BLOCK}]")) {
        return Ok(());
    }
    Err(LoadError::Unsupported {
        key: "quantization_config",
        found: format!("fp8 in {format} with weight_block_size {}", size.as_deref().unwrap_or("absent")),
        expected: "fp8 in e4m3 with weight_block_size [128,128], or without it",
    })
}

fn coding(fields: Fields<'_>, default: Option<Coding>) -> Result<Coding, LoadError> {
    match fields.text("mode")?.unwrap_or("affine") {
        "affine" => {}
        mode => {
            let format = Format::named(mode).ok_or_else(|| LoadError::Unsupported {
                key: "quantization.mode",
                found: mode.to_owned(),
                expected: "affine, mxfp4, mxfp8, nvfp4",
            })?;
            let [bits, group] = ["bits", "group_size"].map(|key| fields.count(key));
            let (bits, group) = (bits?.unwrap_or(format.bits), group?.unwrap_or(format.group));
            if (bits, group) != (format.bits, format.group) {
                return Err(LoadError::Unsupported {
                    key: "quantization",
                    found: format!("{mode} with {bits} bits in groups of {group}"),
                    expected: "mxfp4 with 4 bits in groups of 32, mxfp8 with 8 in 32, nvfp4 with 4 in 16",
                });
            }
            return Ok(Coding::Micro(format));
        }
    }
    let default = match default {
        Some(Coding::Affine(affine)) => Some(affine),
        Some(Coding::Micro(_)) | None => None,
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

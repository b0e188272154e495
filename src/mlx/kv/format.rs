//! How keys and values are stored: a setting for each side, and the planes an array of vectors becomes.

use std::fmt;
use std::str::FromStr;

use mlx_rs::{Array, Dtype};
use prefixd_cache::Dtype as BlockDtype;

use crate::mlx::array::{Result, item_bytes};
use crate::mlx::cpu::store::Encoding;
use crate::mlx::gate::Mlx;

/// Elements that share a scale and a bias.
pub const GROUP: usize = 64;

/// How one side is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// f32, for comparison with references.
    F32,
    /// f16.
    F16,
    /// Affine codes of 8 bits, groups of 64 with f16 scale and bias.
    Affine8,
    /// Affine codes of 4 bits, groups of 64 with f16 scale and bias.
    Affine4,
}

/// The user's choice: bits of keys and of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvSetting {
    /// Keys.
    pub keys: Format,
    /// Values.
    pub values: Format,
}

/// Why a KV setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvSettingError {
    /// Not one of the settings.
    #[error("KV setting {0:?} is unknown; expected k8v4, 16, 8, 4 or 32")]
    Unknown(String),
    /// The model's heads do not divide into groups.
    #[error(
        "KV setting {setting} cannot carry this model: its head size {head_dim} is not a multiple of the \
         quantization group {GROUP}; choose 16"
    )]
    HeadSize {
        /// What was asked for.
        setting: String,
        /// Elements of a head.
        head_dim: usize,
    },
}

/// One array of a stored side: `[heads, tokens, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Appended to the side's name; empty when the side is one plane.
    pub suffix: &'static str,
    /// Element type in memory.
    pub dtype: Dtype,
    /// Element type in a block.
    pub block_dtype: BlockDtype,
    /// Vectors per token.
    pub heads: usize,
    /// Elements per vector.
    pub width: usize,
}

/// What a token leaves in one side of a layer: `heads` vectors of `width` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// Vectors per token.
    pub heads: usize,
    /// Elements of each, before encoding.
    pub width: usize,
}

impl Plane {
    /// Bytes of one vector.
    pub fn vector_bytes(&self) -> usize {
        self.width * item_bytes(self.dtype)
    }

    /// Bytes of one token.
    pub fn token_bytes(&self) -> usize {
        self.heads * self.vector_bytes()
    }
}

impl KvSetting {
    /// 8-bit keys, 4-bit values.
    pub const DEFAULT: Self = Self { keys: Format::Affine8, values: Format::Affine4 };
    /// f32, what a reference would hold.
    pub const REFERENCE: Self = Self { keys: Format::F32, values: Format::F32 };

    /// Refuses a model that the setting cannot carry.
    pub fn check(self, head_dim: usize) -> std::result::Result<(), KvSettingError> {
        let quantized = [self.keys, self.values].iter().any(|format| format.bits() < 16);
        if quantized && !head_dim.is_multiple_of(GROUP) {
            return Err(KvSettingError::HeadSize { setting: self.to_string(), head_dim });
        }
        Ok(())
    }
}

impl FromStr for KvSetting {
    type Err = KvSettingError;

    fn from_str(text: &str) -> std::result::Result<Self, KvSettingError> {
        let both = |format| Self { keys: format, values: format };
        match text {
            "k8v4" => Ok(Self::DEFAULT),
            "32" => Ok(both(Format::F32)),
            "16" => Ok(both(Format::F16)),
            "8" => Ok(both(Format::Affine8)),
            "4" => Ok(both(Format::Affine4)),
            _ => Err(KvSettingError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for KvSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, values) = (self.keys.bits(), self.values.bits());
        if keys == values { write!(f, "{keys}") } else { write!(f, "k{keys}v{values}") }
    }
}

impl Format {
    /// Bits of one element, without scales.
    pub fn bits(self) -> usize {
        match self {
            Self::F32 => 32,
            Self::F16 => 16,
            Self::Affine8 => 8,
            Self::Affine4 => 4,
        }
    }

    /// The same, as the host's kernels know it.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::F32 => Encoding::F32,
            Self::F16 => Encoding::F16,
            Self::Affine8 => Encoding::Affine8,
            Self::Affine4 => Encoding::Affine4,
        }
    }

    /// How many planes a side has.
    pub fn plane_count(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Affine8 | Self::Affine4 => 3,
        }
    }

    /// The planes of a side.
    pub fn planes(self, Vectors { heads, width }: Vectors) -> Vec<Plane> {
        let plane = |suffix, dtype, block_dtype, width| Plane { suffix, dtype, block_dtype, heads, width };
        let half = |suffix, width| plane(suffix, Dtype::Float16, BlockDtype::F16, width);
        match self {
            Self::F32 => vec![plane("", Dtype::Float32, BlockDtype::F32, width)],
            Self::F16 => vec![half("", width)],
            Self::Affine8 | Self::Affine4 => vec![
                plane(".packed", Dtype::Uint32, BlockDtype::U32, width * self.bits() / 32),
                half(".scales", width / GROUP),
                half(".biases", width / GROUP),
            ],
        }
    }

    /// Bytes of one token, all planes together.
    pub fn token_bytes(self, vectors: Vectors) -> usize {
        self.planes(vectors).iter().map(Plane::token_bytes).sum()
    }

    /// Turns `[…, head_dim]` into planes `[…, width]`, lazily. What enters a cache is turned once and never again; on the host
    /// `cpu::encode` does the same.
    pub fn encode(self, _: &Mlx, vectors: &Array) -> Result<Vec<Array>> {
        let bits = self.bits() as i32;
        Ok(match self {
            Self::F32 => vec![vectors.as_dtype(Dtype::Float32)?],
            Self::F16 => vec![vectors.as_dtype(Dtype::Float16)?],
            Self::Affine8 | Self::Affine4 => {
                let half = vectors.as_dtype(Dtype::Float16)?;
                let (codes, scales, biases) = mlx_rs::ops::quantize(&half, GROUP as i32, bits)?;
                vec![codes, scales, biases]
            }
        })
    }

    /// Turns planes `[…, width]` back into `[…, head_dim]`: f16, or f32 for [`Format::F32`].
    pub fn decode(self, _: &Mlx, planes: &[Array]) -> Result<Array> {
        let bits = self.bits() as i32;
        match (self, planes) {
            (Self::F32 | Self::F16, [vectors]) => Ok(vectors.clone()),
            (Self::Affine8 | Self::Affine4, [codes, scales, biases]) => {
                Ok(mlx_rs::ops::dequantize(codes, scales, biases, GROUP as i32, bits)?)
            }
            _ => Err(crate::mlx::error::MlxError::backend(format!("{} planes for {self:?}", planes.len()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_as_they_are_written_and_others_are_refused() {
        for text in ["k8v4", "16", "8", "4", "32"] {
            assert_eq!(text.parse::<KvSetting>().unwrap().to_string(), text);
        }
        let error = "q4".parse::<KvSetting>().unwrap_err().to_string();
        assert!(error.contains("q4") && error.contains("k8v4"), "{error}");
    }

    #[test]
    fn a_head_that_groups_do_not_divide_is_refused() {
        let error = KvSetting::DEFAULT.check(80).unwrap_err().to_string();
        assert!(error.contains("80") && error.contains("64"), "{error}");
        assert!("16".parse::<KvSetting>().unwrap().check(80).is_ok());
    }

    #[test]
    fn the_host_encodes_as_mlx_does_to_the_last_bit() {
        let owner = prefixd_engine::Gate::new(|_| Err(prefixd_engine::GateError::Closed)).enter().unwrap();
        let mx = owner.thread();
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let mut vectors: Vec<f32> =
            (0..400 * GROUP).map(|i| random() * ((i / GROUP) as f32 - 200.0)).collect();
        // All the same, all zero, one side of zero only, tiny, and what rounds to halves that are subnormal or end at a tie.
        vectors[..GROUP].fill(3.25);
        vectors[GROUP..2 * GROUP].fill(0.0);
        vectors[2 * GROUP..3 * GROUP].iter_mut().for_each(|x| *x = x.abs() + 100.0);
        vectors[3 * GROUP..4 * GROUP].iter_mut().for_each(|x| *x *= 1e-8);
        vectors[4 * GROUP..5 * GROUP].iter_mut().enumerate().for_each(|(i, x)| *x = i as f32 - 31.5);
        let array = crate::mlx::array::from_f32(mx, &vectors, &[400, GROUP as i32]).unwrap();
        for format in [Format::F32, Format::F16, Format::Affine8, Format::Affine4] {
            let planes = crate::mlx::cpu::encode::encode(format.encoding(), &vectors);
            for (i, (plane, expected)) in planes.iter().zip(format.encode(mx, &array).unwrap()).enumerate() {
                let expected = crate::mlx::array::bytes(mx, &expected).unwrap();
                let differ = plane.iter().zip(expected).position(|(a, b)| a != b);
                assert!(
                    plane.len() == expected.len() && differ.is_none(),
                    "{format:?}, plane {i}: byte {differ:?}"
                );
            }
        }
    }

    #[test]
    fn bytes_of_a_token_are_those_of_the_table() {
        // Llama-3.1-8B: 32 layers, 8 heads of 128.
        let heads = Vectors { heads: 8, width: 128 };
        let bytes = |k: Format, v: Format| 32 * (k.token_bytes(heads) + v.token_bytes(heads));
        assert_eq!(bytes(Format::F16, Format::F16), 128 * 1024);
        assert_eq!(bytes(Format::Affine8, Format::Affine4), 52 * 1024);
        assert_eq!(bytes(Format::Affine4, Format::Affine4), 36 * 1024);
    }
}

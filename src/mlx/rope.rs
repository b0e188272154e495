//! Rotary position embedding: frequencies from the configuration, applied to heads at absolute positions.

use std::cell::OnceCell;

use mlx_rs::Array;
use mlx_rs::ops::indexing::TryIndexOp;

use super::array::{Result, dims, from_f32, host};
use super::backend::Kernels;
use super::cpu::rotate::{Pairs, Turns, rotate};
use super::gate::Mlx;
use super::step::{Group, Step};

/// How positions are stretched beyond the length a model was first trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Long wavelengths divided by `factor`, short ones kept, those between blended (Llama 3.1's rule).
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original_tokens / low` are divided.
        low: f64,
        /// Wavelengths below `original_tokens / high` are kept.
        high: f64,
        /// Context length of the first training.
        original_tokens: f64,
    },
}

/// A rotation as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Elements turned: the whole head.
    pub dims: usize,
    /// Wavelength base.
    pub base: f64,
    /// Which elements pair up.
    pub pairs: Pairs,
    /// Stretching.
    pub scaling: Scaling,
}

impl RopeConfig {
    /// A rotation without stretching.
    pub fn plain(dims: usize, base: f64) -> Self {
        Self { dims, base, pairs: Pairs::Halves, scaling: Scaling::None }
    }

    /// `base^(2i / dims)`, stretched: the reciprocals of the angular frequencies.
    fn wavelengths(&self) -> Vec<f32> {
        let wave = |i: usize| self.base.powf(2.0 * i as f64 / self.dims as f64);
        let stretch = |wave: f64| match self.scaling {
            Scaling::None | Scaling::Linear { .. } => wave,
            Scaling::Llama3 { factor, low, high, original_tokens } => {
                let length = std::f64::consts::TAU * wave;
                if length > original_tokens / low {
                    wave * factor
                } else if length > original_tokens / high {
                    let smooth = (original_tokens / length - low) / (high - low);
                    wave / ((1.0 - smooth) / factor + smooth)
                } else {
                    wave
                }
            }
        };
        (0..self.dims / 2).map(|i| stretch(wave(i)) as f32).collect()
    }

    fn position_scale(&self) -> f32 {
        match self.scaling {
            Scaling::Linear { factor } => (1.0 / factor) as f32,
            Scaling::None | Scaling::Llama3 { .. } => 1.0,
        }
    }
}

/// A rotation, ready to apply.
#[derive(Debug)]
pub struct Rope {
    dims: usize,
    pairs: Pairs,
    position_scale: f32,
    kernels: Kernels,
    /// 1 / wavelength.
    frequencies: Vec<f32>,
    /// `[dims / 2]`, f32: what MLX calls `freqs`.
    wavelengths: Array,
}

/// A rotation at the positions of one step; the host's table is made once and serves every layer.
#[derive(Debug)]
pub struct RopeAt<'a> {
    rope: &'a Rope,
    step: &'a Step,
    turns: OnceCell<Turns>,
}

impl Rope {
    /// Computes the frequencies.
    pub fn new(mx: &Mlx, config: &RopeConfig, kernels: Kernels) -> Result<Self> {
        let wavelengths = config.wavelengths();
        Ok(Self {
            dims: config.dims,
            pairs: config.pairs,
            position_scale: config.position_scale(),
            kernels,
            frequencies: wavelengths.iter().map(|wave| 1.0 / wave).collect(),
            wavelengths: from_f32(mx, &wavelengths, &dims([wavelengths.len()]))?,
        })
    }

    /// The rotation at a step's positions.
    pub fn at<'a>(&'a self, _: &Mlx, step: &'a Step) -> RopeAt<'a> {
        RopeAt { rope: self, step, turns: OnceCell::new() }
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        std::iter::once(&self.wavelengths)
    }
}

impl RopeAt<'_> {
    /// Turns heads `[tokens, heads, head_dim]`.
    pub fn apply(&self, mx: &Mlx, heads: &Array) -> Result<Array> {
        let rope = self.rope;
        match rope.kernels {
            Kernels::Host => {
                let turns = self.turns.get_or_init(|| {
                    Turns::new(self.step.positions(), &rope.frequencies, rope.position_scale)
                });
                let x = host::<f32>(mx, heads)?;
                let mut out = vec![0.0; x.len()];
                rotate(turns, rope.pairs, heads.dim(1) as usize, x, &mut out);
                from_f32(mx, &out, heads.shape())
            }
            Kernels::Device => {
                let groups = self.step.groups().iter().map(|group| self.apply_group(heads, group));
                let turned = groups.collect::<Result<Vec<_>>>()?;
                if let [one] = turned.as_slice() {
                    return Ok(one.clone());
                }
                Ok(mlx_rs::ops::concatenate(&turned, 0)?)
            }
        }
    }

    fn apply_group(&self, heads: &Array, group: &Group) -> Result<Array> {
        let (rope, count) = (self.rope, group.rows * group.tokens);
        let own = heads.try_index(group.first as i32..(group.first + count) as i32)?;
        let shape = [heads.dim(1) as usize, heads.dim(2) as usize];
        let by_row = own.reshape(&dims([group.rows, group.tokens, shape[0], shape[1]]))?;
        let turned = mlx_rs::fast::rope_dynamic(
            by_row.transpose_axes(&[0, 2, 1, 3])?,
            rope.dims as i32,
            rope.pairs == Pairs::Neighbours,
            None,
            rope.position_scale,
            &group.offsets,
            &rope.wavelengths,
        )?;
        Ok(turned.transpose_axes(&[0, 2, 1, 3])?.reshape(&dims([count, shape[0], shape[1]]))?)
    }
}

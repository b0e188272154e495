//! Rotary position embedding: frequencies from the configuration, applied to heads at absolute positions.

mod scaling;

pub use scaling::{LongQueries, LongRope, RopeConfig, Scaling, Yarn};

use std::cell::OnceCell;

use mlx_rs::Array;
use mlx_rs::ops::indexing::TryIndexOp;

use super::array::{Result, dims, from_f32, from_vec, host};
use super::backend::Kernels;
use super::cpu::rotate::{Pairs, Turns, rotate};
use super::gate::Mlx;
use super::step::{Group, Step};

/// A rotation, ready to apply.
#[derive(Debug)]
pub struct Rope {
    dims: usize,
    pairs: Pairs,
    position_scale: f32,
    amplitude: f32,
    long_queries: Option<LongQueries>,
    kernels: Kernels,
    /// 1 / wavelength.
    frequencies: Vec<f32>,
    /// `[dims / 2]`, f32: what MLX calls `freqs`.
    wavelengths: Array,
    /// `[head_dim]`, what elements are multiplied by before they turn; none when that is 1 everywhere.
    amplitudes: Option<Array>,
    turn: Turn,
}

/// A rotation as kernels on a device take it.
#[derive(Debug)]
pub struct Turn {
    /// Elements of a head that turn, from the first.
    pub dims: usize,
    /// Do neighbours form pairs, or elements half of `dims` apart?
    pub neighbours: bool,
    /// `[dims / 2]`, f32: radians that a position turns each pair by.
    pub rates: Array,
    /// `[2]`, f32: what positions are multiplied by, and elements before they turn.
    pub factors: Array,
}

/// A rotation at the positions of one step; the host's table is made once and serves every layer.
#[derive(Debug)]
pub struct RopeAt<'a> {
    rope: &'a Rope,
    step: &'a Step,
    turns: OnceCell<Turns>,
    /// `[tokens, 1, 1]`, f32: what queries are multiplied by.
    query_factors: OnceCell<Array>,
}

impl Rope {
    /// Computes the frequencies.
    pub fn new(mx: &Mlx, config: &RopeConfig, kernels: Kernels) -> Result<Self> {
        let (wavelengths, amplitude) = (config.wavelengths(), config.amplitude());
        let amplitudes = if (amplitude - 1.0).abs() < f32::EPSILON {
            None
        } else {
            let of = |i| if i < config.dims { amplitude } else { 1.0 };
            Some(from_f32(mx, &(0..config.width).map(of).collect::<Vec<_>>(), &dims([config.width]))?)
        };
        let frequencies: Vec<f32> = wavelengths.iter().map(|wave| 1.0 / wave).collect();
        let turn = Turn {
            dims: config.dims,
            neighbours: config.pairs == Pairs::Neighbours,
            rates: from_f32(mx, &frequencies, &dims([frequencies.len()]))?,
            factors: from_f32(mx, &[config.position_scale(), amplitude], &[2])?,
        };
        Ok(Self {
            dims: config.dims,
            pairs: config.pairs,
            position_scale: config.position_scale(),
            amplitude,
            long_queries: config.long_queries,
            kernels,
            frequencies,
            turn,
            wavelengths: from_f32(mx, &wavelengths, &dims([wavelengths.len()]))?,
            amplitudes,
        })
    }

    /// The rotation at a step's positions.
    pub fn at<'a>(&'a self, _: &Mlx, step: &'a Step) -> RopeAt<'a> {
        RopeAt { rope: self, step, turns: OnceCell::new(), query_factors: OnceCell::new() }
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        [&self.wavelengths, &self.turn.rates, &self.turn.factors].into_iter().chain(&self.amplitudes)
    }
}

impl<'a> RopeAt<'a> {
    /// The rotation, where it is the same for queries and keys.
    pub fn turn(&self) -> Option<&'a Turn> {
        Some(&self.rope.turn).filter(|_| self.rope.long_queries.is_none())
    }

    /// Turns query heads `[tokens, heads, head_dim]`, and makes them louder.
    pub fn queries(&self, mx: &Mlx, heads: &Array) -> Result<Array> {
        self.louder(mx, self.keys(mx, heads)?)
    }

    /// Query heads `[tokens, heads, n]` times what their positions ask for, where the model was trained with it.
    pub fn louder(&self, mx: &Mlx, turned: Array) -> Result<Array> {
        let Some(long) = self.rope.long_queries else { return Ok(turned) };
        let positions = self.step.positions().map(|position| long.factor(position));
        match self.rope.kernels {
            Kernels::Host => {
                let mut out = host::<f32>(mx, &turned)?.to_vec();
                let width = (turned.dim(1) * turned.dim(2)) as usize;
                for (token, factor) in out.chunks_exact_mut(width).zip(positions) {
                    for x in token {
                        *x *= factor;
                    }
                }
                from_vec(mx, out, turned.shape())
            }
            Kernels::Device => {
                let factors = if let Some(factors) = self.query_factors.get() {
                    factors
                } else {
                    let factors = positions.collect::<Vec<_>>();
                    let factors = from_f32(mx, &factors, &dims([factors.len(), 1, 1]))?;
                    self.query_factors.get_or_init(|| factors)
                };
                Ok(turned.multiply(factors.as_dtype(turned.dtype())?)?)
            }
        }
    }

    /// Turns key heads `[tokens, heads, head_dim]`.
    pub fn keys(&self, mx: &Mlx, heads: &Array) -> Result<Array> {
        let rope = self.rope;
        match rope.kernels {
            Kernels::Host => {
                let turns = self.turns.get_or_init(|| {
                    Turns::new(self.step.positions(), &rope.frequencies, rope.position_scale, rope.amplitude)
                });
                let x = host::<f32>(mx, heads)?;
                let mut out = vec![0.0; x.len()];
                rotate(turns, rope.pairs, [heads.dim(1) as usize, heads.dim(2) as usize], x, &mut out);
                from_vec(mx, out, heads.shape())
            }
            Kernels::Device => {
                let scaled = match &rope.amplitudes {
                    Some(amplitudes) => &heads.multiply(amplitudes.as_dtype(heads.dtype())?)?,
                    None => heads,
                };
                let groups = self.step.groups().iter().map(|group| self.apply_group(scaled, group));
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

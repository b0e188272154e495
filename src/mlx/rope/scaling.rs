//! Stretching rotary positions beyond the length that a model was first trained on.

use std::f64::consts::TAU;

use crate::mlx::cpu::rotate::Pairs;

/// How positions are stretched.
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
    /// Blended by how often a pair turns within the original context.
    Yarn(Yarn),
    /// A factor for each pair.
    LongRope(LongRope),
    /// Only the fastest pairs turn, as they would if all did; their wavelengths are multiplied by `factor`.
    Proportional {
        /// Multiplier.
        factor: f64,
        /// Pairs that turn.
        turned: usize,
    },
}

/// Peng et al., "YaRN" (2023). The ends of the blended band are whole pairs, as in mlx-lm; transformers leaves them
/// between two pairs where a file says `"truncate": false`.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// How many times longer the context became.
    pub factor: f64,
    /// Context length of the first training.
    pub original_tokens: f64,
    /// Pairs that turn more often than this within the original context are kept.
    pub fast: f64,
    /// Pairs that turn less often than this are divided.
    pub slow: f64,
    /// Strength of the factor that turned elements are multiplied by.
    pub mscale: f64,
    /// Strength of what that factor is divided by.
    pub mscale_all_dim: f64,
}

/// Ding et al., "LongRoPE" (2024). The long factors hold at every length: a switch at the original length would make
/// every key that was stored before it wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    factors: Vec<f64>,
    amplitude: f64,
}

/// Queries at position `p` are multiplied by `1 + beta ln(1 + floor(p / original_tokens))` (Llama 4's rule).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongQueries {
    /// Strength.
    pub beta: f64,
    /// Positions before this are left alone.
    pub original_tokens: usize,
}

/// A rotation as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Elements of a head.
    pub width: usize,
    /// Elements turned: the first of each head.
    pub dims: usize,
    /// Wavelength base.
    pub base: f64,
    /// Which elements pair up.
    pub pairs: Pairs,
    /// Stretching.
    pub scaling: Scaling,
    /// Louder queries far into a sequence.
    pub long_queries: Option<LongQueries>,
}

impl RopeConfig {
    /// A rotation of whole heads without stretching.
    pub fn plain(width: usize, base: f64) -> Self {
        Self { width, dims: width, base, pairs: Pairs::Halves, scaling: Scaling::None, long_queries: None }
    }

    /// Heads of so many elements that do not turn.
    pub fn still(width: usize) -> Self {
        Self { scaling: Scaling::Proportional { factor: 1.0, turned: 0 }, ..Self::plain(width, 10_000.0) }
    }

    /// `base^(2i / dims)`, stretched: the reciprocals of the angular frequencies.
    pub fn wavelengths(&self) -> Vec<f32> {
        let pairs = self.dims / 2;
        let stretch = |(i, wave): (usize, f64)| match &self.scaling {
            Scaling::None | Scaling::Linear { .. } => wave,
            Scaling::Llama3 { factor, low, high, original_tokens } => {
                let length = TAU * wave;
                if length > original_tokens / low {
                    wave * factor
                } else if length > original_tokens / high {
                    let smooth = (original_tokens / length - low) / (high - low);
                    wave / ((1.0 - smooth) / factor + smooth)
                } else {
                    wave
                }
            }
            Scaling::Yarn(yarn) => {
                let divided = yarn.divided(i, self.dims, self.base);
                1.0 / ((1.0 - divided) / wave + divided / (yarn.factor * wave))
            }
            Scaling::LongRope(long) => long.factors.get(i).copied().unwrap_or(1.0) * wave,
            Scaling::Proportional { factor, turned } if i < *turned => factor * wave,
            Scaling::Proportional { .. } => f64::INFINITY,
        };
        let wave = |i: usize| self.base.powf(2.0 * i as f64 / self.dims as f64);
        (0..pairs).map(|i| stretch((i, wave(i))) as f32).collect()
    }

    /// Positions are multiplied by this.
    pub fn position_scale(&self) -> f32 {
        match self.scaling {
            Scaling::Linear { factor } => (1.0 / factor) as f32,
            _ => 1.0,
        }
    }

    /// Turned elements are multiplied by this.
    pub fn amplitude(&self) -> f32 {
        match &self.scaling {
            Scaling::Yarn(yarn) => yarn.amplitude() as f32,
            Scaling::LongRope(long) => long.amplitude as f32,
            _ => 1.0,
        }
    }
}

impl Yarn {
    /// What turned elements are multiplied by.
    pub fn amplitude(&self) -> f64 {
        self.strength(self.mscale) / self.strength(self.mscale_all_dim)
    }

    /// `0.1 mscale ln(factor) + 1`.
    pub fn strength(&self, mscale: f64) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 }
    }

    /// How much of pair `i` is divided by the factor: 0 for fast pairs, 1 for slow ones.
    fn divided(&self, i: usize, dims: usize, base: f64) -> f64 {
        let dims = dims as f64;
        let pair_that_turns =
            |times: f64| dims * (self.original_tokens / (times * TAU)).ln() / (2.0 * base.ln());
        let low = pair_that_turns(self.fast).floor().max(0.0);
        let high = pair_that_turns(self.slow).ceil().min(dims - 1.0);
        let high = if (high - low).abs() < f64::EPSILON { high + 0.001 } else { high };
        ((i as f64 - low) / (high - low)).clamp(0.0, 1.0)
    }
}

impl LongRope {
    /// `factors`, one a pair, for a context that became `stretch` times as long as `original_tokens`.
    pub fn new(factors: Vec<f64>, stretch: f64, original_tokens: f64) -> Self {
        let amplitude = if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / original_tokens.ln()).sqrt() };
        Self { factors, amplitude }
    }

    /// Number of factors.
    pub fn pairs(&self) -> usize {
        self.factors.len()
    }
}

impl LongQueries {
    /// The factor of the query at `position`.
    pub fn factor(self, position: usize) -> f32 {
        (1.0 + self.beta * (1.0 + (position / self.original_tokens) as f64).ln()) as f32
    }
}

//! The gated feed-forward block.

use mlx_rs::Array;

use super::linear::Linear;
use super::source::Source;
use crate::mlx::array::{Result, from_f32, host};
use crate::mlx::backend::Kernels;
use crate::mlx::cpu::activation::{self, Activation, CLAMP, STEEPNESS};
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

/// `down(act(gate(x)) * up(x))`.
#[derive(Debug)]
pub struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
    kernels: Kernels,
}

impl Mlp {
    /// Module `path`, `inner` elements wide.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        inner: usize,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, bias) = (source.config.hidden, source.config.mlp_bias);
        Ok(Self {
            gate: Linear::load(mx, source, &format!("{path}.gate_proj"), [inner, hidden], bias)?,
            up: Linear::load(mx, source, &format!("{path}.up_proj"), [inner, hidden], bias)?,
            down: Linear::load(mx, source, &format!("{path}.down_proj"), [hidden, inner], bias)?,
            activation: source.config.activation,
            kernels: source.kernels(),
        })
    }

    /// `[n, hidden]` to `[n, hidden]`.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        let [gate, up] = Linear::forward_all(mx, x, [&self.gate, &self.up])?;
        self.down.forward(mx, &gated(mx, self.kernels, self.activation, &gate, &up)?)
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        [&self.gate, &self.up, &self.down].into_iter().flat_map(Linear::arrays).collect()
    }
}

/// `act(gate) * up`.
pub fn gated(mx: &Mlx, kernels: Kernels, activation: Activation, gate: &Array, up: &Array) -> Result<Array> {
    match kernels {
        Kernels::Host => {
            let mut out = vec![0.0; gate.size()];
            activation::gated(activation, host(mx, gate)?, host(mx, up)?, &mut out);
            from_f32(mx, &out, gate.shape())
        }
        Kernels::Device => gated_on_device(mx, activation, gate, up),
    }
}

/// The same by MLX's operations.
pub fn gated_on_device(_: &Mlx, activation: Activation, gate: &Array, up: &Array) -> Result<Array> {
    let gate = match activation {
        Activation::Silu => mlx_rs::nn::silu(gate)?,
        Activation::GeluTanh => mlx_rs::nn::gelu_approximate(gate)?,
        Activation::ClampedSwiglu => {
            let number = |x: f32| Array::from_f32(x).as_dtype(gate.dtype());
            let gate = mlx_rs::ops::minimum(gate, number(CLAMP)?)?;
            let up = mlx_rs::ops::clip(up, (number(-CLAMP)?, number(CLAMP)?))?.add(number(1.0)?)?;
            let open = mlx_rs::ops::sigmoid(gate.multiply(number(STEEPNESS)?)?)?;
            return Ok(gate.multiply(open)?.multiply(up)?);
        }
    };
    Ok(gate.multiply(up)?)
}

//! The feed-forward block.

use std::rc::Rc;

use mlx_rs::Array;

use super::fused::FusedKernels;
use super::linear::Linear;
use super::source::Source;
use crate::mlx::array::{Result, from_vec, host};
use crate::mlx::backend::Kernels;
use crate::mlx::cpu::activation::{self, Activation, CLAMP, STEEPNESS};
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

/// `down(act(gate(x)) * up(x))`. In some families gate and up are one projection.
#[derive(Debug)]
pub struct Mlp {
    inputs: Inputs,
    down: Linear,
    activation: Activation,
    kernels: Kernels,
}

/// What goes into the activation.
#[derive(Debug)]
enum Inputs {
    /// A product each.
    Apart { gate: Linear, up: Linear },
    /// Gate and up out of one product, and what activates them in one launch.
    Joined(Linear, Rc<FusedKernels>),
    /// One product for both.
    Same(Linear),
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
            inputs: Inputs::load(mx, source, path, inner)?,
            down: Linear::load(mx, source, &format!("{path}.down_proj"), [hidden, inner], bias)?,
            activation: source.config.activation,
            kernels: source.kernels(),
        })
    }

    /// `[n, hidden]` to `[n, hidden]`.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        let activated = match &self.inputs {
            Inputs::Apart { gate, up } => {
                let [gate, up] = Linear::forward_all(mx, x, [gate, up])?;
                gated(mx, self.kernels, self.activation, &gate, &up)?
            }
            Inputs::Joined(both, fused) => fused.gated(mx, self.activation, &both.forward(mx, x)?)?,
            Inputs::Same(both) => {
                let both = both.forward(mx, x)?;
                gated(mx, self.kernels, self.activation, &both, &both)?
            }
        };
        self.down.forward(mx, &activated)
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        let inputs = match &self.inputs {
            Inputs::Apart { gate, up } => vec![gate, up],
            Inputs::Joined(both, _) | Inputs::Same(both) => vec![both],
        };
        inputs.into_iter().chain([&self.down]).flat_map(Linear::arrays).collect()
    }
}

impl Inputs {
    fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        inner: usize,
    ) -> std::result::Result<Self, LoadError> {
        let config = source.config;
        let (shape, bias) = ([inner, config.hidden], config.mlp_bias);
        let mut linear = |name| Linear::load(mx, source, &format!("{path}.{name}"), shape, bias);
        if config.mlp_squares {
            return Ok(Self::Same(linear("up_proj")?));
        }
        let (gate, up) = (linear("gate_proj")?, linear("up_proj")?);
        let joined = match &source.fused {
            Some(fused) if FusedKernels::activates(source.config.activation) => {
                Linear::side_by_side(mx, &[&gate, &up])?.map(|joined| Self::Joined(joined, fused.clone()))
            }
            _ => None,
        };
        Ok(joined.unwrap_or(Self::Apart { gate, up }))
    }
}

/// `act(gate) * up`.
pub fn gated(mx: &Mlx, kernels: Kernels, activation: Activation, gate: &Array, up: &Array) -> Result<Array> {
    match kernels {
        Kernels::Host => {
            let mut out = vec![0.0; gate.size()];
            activation::gated(activation, host(mx, gate)?, host(mx, up)?, &mut out);
            from_vec(mx, out, gate.shape())
        }
        Kernels::Device => gated_on_device(mx, activation, gate, up),
    }
}

/// The same by MLX's operations.
pub fn gated_on_device(_: &Mlx, activation: Activation, gate: &Array, up: &Array) -> Result<Array> {
    let gate = match activation {
        Activation::Silu => mlx_rs::nn::silu(gate)?,
        Activation::GeluTanh => mlx_rs::nn::gelu_approximate(gate)?,
        Activation::Relu => mlx_rs::nn::relu(gate)?,
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

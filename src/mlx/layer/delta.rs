//! The gated delta rule as a layer: projections, a short convolution, the scan, and a gated norm.

use std::rc::Rc;

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};

use super::conv::{convolve_rows, convolved, short_kernel};
use super::linear::Linear;
use super::norm::{Offset, RmsNorm};
use super::scan::{Behind, Gates, RuleGates, ScanKernels};
use super::source::Source;
use crate::mlx::array::{Result, dims, from_f32, from_vec, host, settle};
use crate::mlx::backend::Kernels;
use crate::mlx::config::Recurrent;
use crate::mlx::cpu::activation::{Activation, gated};
use crate::mlx::cpu::delta::{EPS, Tokens, delta_scan, gates};
use crate::mlx::cpu::scan::StateShape;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::pass::Pass;
use crate::mlx::step::RowStep;

/// Tokens of the scan on a device that MLX is given at once.
const SCANNED: usize = 32;

/// See [`crate::mlx::cpu::delta`] for the rule.
#[derive(Debug)]
pub struct GatedDelta {
    /// Queries, keys and values.
    vectors: Linear,
    /// What the result is gated by.
    gate: Linear,
    strength: Linear,
    decay: Linear,
    output: Linear,
    norm: RmsNorm,
    /// `[taps, width]`.
    kernel: Array,
    /// `[value heads]`, f32: the logarithm of how fast a state fades.
    rate: Array,
    /// `[value heads]`.
    bias: Array,
    taps: usize,
    shape: StateShape,
    kernels: Kernels,
    /// On an NVIDIA GPU.
    scans: Option<Rc<ScanKernels>>,
}

impl GatedDelta {
    /// Module `path` with heads of `shape`. The convolution's weight is `[width, taps]`.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        recurrent: &Recurrent,
        shape: StateShape,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = source.config.hidden;
        let (heads, out) = (shape.value_heads, shape.out_width());
        let linear = |source: &mut Source<'_>, name: &str, shape| {
            Linear::load(mx, source, &format!("{path}.{name}"), shape, false)
        };
        let kernel = short_kernel(mx, source, &format!("{path}.conv1d.weight"), recurrent)?;
        // Never rounded: an exponential follows.
        let rate = source.weights.take(mx, &format!("{path}.A_log"), &[heads], Some(Dtype::Float32))?;
        Ok(Self {
            vectors: linear(source, "in_proj_qkv", [recurrent.width, hidden])?,
            gate: linear(source, "in_proj_z", [out, hidden])?,
            strength: linear(source, "in_proj_b", [heads, hidden])?,
            decay: linear(source, "in_proj_a", [heads, hidden])?,
            output: linear(source, "out_proj", [hidden, out])?,
            norm: RmsNorm::load(mx, source, &format!("{path}.norm"), shape.value_dim, Offset::Zero)?,
            kernel,
            rate,
            bias: source.tensor(mx, &format!("{path}.dt_bias"), &[heads])?,
            taps: recurrent.taps,
            shape,
            kernels: source.kernels(),
            scans: source.scans.clone(),
        })
    }

    /// `[tokens, hidden]` to the same, taking the states of recurrent layer `layer` of every row on.
    pub fn forward(&self, mx: &Mlx, x: &Array, pass: &mut Pass<'_>, layer: usize) -> Result<Array> {
        let all = [&self.vectors, &self.gate, &self.strength, &self.decay];
        let projected = Linear::forward_all(mx, x, all)?;
        let read = match (self.kernels, &self.scans) {
            (Kernels::Host, _) => self.on_host(mx, &projected, pass, layer)?,
            (Kernels::Device, Some(scans)) => self.scanned_in_pages(mx, scans, &projected, pass, layer)?,
            (Kernels::Device, None) => self.on_device(mx, &projected, pass, layer)?,
        };
        self.output.forward(mx, &read)
    }

    fn on_host(&self, mx: &Mlx, projected: &[Array; 4], pass: &mut Pass<'_>, layer: usize) -> Result<Array> {
        settle(mx, projected)?;
        let [vectors, gate, strength, decay] = projected;
        let (width, shape) = (self.shape.width(), self.shape);
        let (rate, bias) = (host::<f32>(mx, &self.rate)?, host::<f32>(mx, &self.bias)?);
        let (decay, strength) = gates([rate, bias], host(mx, decay)?, host(mx, strength)?);
        let (vectors, kernel) = (host::<f32>(mx, vectors)?, host::<f32>(mx, &self.kernel)?);
        let mut mixed = vec![0.0; vectors.len()];
        let mut read = vec![0.0; vectors.len() / width * shape.out_width()];
        pass.advance_host(layer, |rows| {
            let states = convolve_rows([kernel, &[]], width, rows, vectors, &mut mixed);
            let tokens = Tokens { vectors: &mixed, decay: &decay, strength: &strength };
            delta_scan(shape, tokens, states, &mut read);
            Ok(())
        })?;
        let normed = self.norm.forward(mx, &from_f32(mx, &read, gate.shape())?)?;
        gated(Activation::Silu, host(mx, gate)?, host(mx, &normed)?, &mut read);
        from_vec(mx, read, gate.shape())
    }

    /// By kernels of our own.
    fn scanned_in_pages(
        &self,
        mx: &Mlx,
        scans: &ScanKernels,
        [vectors, gate, strength, decay]: &[Array; 4],
        pass: &Pass<'_>,
        layer: usize,
    ) -> Result<Array> {
        let mixed =
            scans.conv(mx, pass, layer, [vectors, &self.kernel], self.taps, Behind::Delta(self.shape))?;
        let gates = Gates { decay, rate: &self.rate, bias: &self.bias, rule: RuleGates::Delta(strength) };
        let read = scans.rule(mx, pass, layer, self.shape, &mixed, gates)?;
        scans.gated_norm(mx, &read, gate, &self.norm)
    }

    /// Token by token, by MLX's operations.
    fn on_device(
        &self,
        mx: &Mlx,
        [vectors, gate, strength, decay]: &[Array; 4],
        pass: &mut Pass<'_>,
        layer: usize,
    ) -> Result<Array> {
        let float = |x: &Array| x.as_dtype(Dtype::Float32);
        let zero = Array::from_f32(0.0);
        let steps = mlx_rs::ops::logaddexp(float(decay)?.add(float(&self.bias)?)?, &zero)?;
        let decay = mlx_rs::ops::exp(self.rate.exp()?.multiply(steps)?.negative()?)?;
        let strength = mlx_rs::ops::sigmoid(float(strength)?)?;
        let mut read = Vec::new();
        pass.advance_device(layer, |at, state| {
            let RowStep { first, tokens, .. } = at;
            let own = |x: &Array| x.try_index(first as i32..(first + tokens) as i32);
            let [mixed, tail] = convolved(mx, &self.kernel, &state[0], &own(vectors)?)?;
            let mixed = mlx_rs::nn::silu(mixed)?;
            let (found, state) = self.scanned(mx, &mixed, [&own(&decay)?, &own(&strength)?], &state[1])?;
            read.push(found);
            Ok(vec![tail, state])
        })?;
        let StateShape { value_heads, value_dim, .. } = self.shape;
        let tokens = pass.step().tokens();
        let read = mlx_rs::ops::concatenate(&read, 0)?.as_dtype(gate.dtype())?;
        let normed = self.norm.forward(mx, &read.reshape(&dims([tokens, value_heads, value_dim]))?)?;
        let open = mlx_rs::nn::silu(float(gate)?)?;
        Ok(float(&normed)?.reshape(gate.shape())?.multiply(open)?.as_dtype(gate.dtype())?)
    }

    /// Results `[tokens, value heads * value dim]` of one row, and its state after them.
    fn scanned(
        &self,
        mx: &Mlx,
        mixed: &Array,
        [decay, strength]: [&Array; 2],
        state: &Array,
    ) -> Result<(Array, Array)> {
        let StateShape { key_heads, value_heads, key_dim, value_dim } = self.shape;
        let tokens = mixed.dim(0) as usize;
        let keys = (key_heads * key_dim) as i32;
        let unit = |from: i32| -> Result<Array> {
            let x = mixed.try_index((.., from..from + keys))?;
            let x = x.reshape(&dims([tokens, key_heads, 1, key_dim]))?;
            let squares = x.multiply(&x)?.sum_axis(-1, true)?.add(Array::from_f32(EPS))?;
            let x = x.multiply(squares.rsqrt()?)?;
            let each = dims([tokens, key_heads, value_heads / key_heads, key_dim]);
            Ok(mlx_rs::ops::broadcast_to(&x, &each)?.reshape(&dims([tokens, value_heads, key_dim, 1]))?)
        };
        let query = unit(0)?.multiply(Array::from_f32((key_dim as f32).powf(-0.5)))?;
        let key = unit(keys)?;
        let value = mixed.try_index((.., 2 * keys..))?.reshape(&dims([tokens, value_heads, 1, value_dim]))?;
        let by_head = |x: &Array| x.reshape(&dims([tokens, value_heads, 1, 1]));
        let (decay, strength) = (by_head(decay)?, by_head(strength)?);
        let (mut state, mut read) = (state.clone(), Vec::with_capacity(tokens));
        for token in 0..tokens as i32 {
            let at = |x: &Array| x.try_index(token);
            state = state.multiply(at(&decay)?)?;
            let (query, key) = (at(&query)?, at(&key)?);
            let known = state.multiply(&key)?.sum_axis(1, true)?;
            let change = at(&value)?.subtract(known)?.multiply(at(&strength)?)?;
            state = state.add(key.multiply(change)?)?;
            read.push(state.multiply(&query)?.sum_axis(1, false)?);
            if (token as usize + 1).is_multiple_of(SCANNED) {
                settle(mx, read.iter().chain([&state]))?;
            }
        }
        let read = mlx_rs::ops::stack(&read, 0)?.reshape(&dims([tokens, value_heads * value_dim]))?;
        Ok((read, state))
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        let linears = [&self.vectors, &self.gate, &self.strength, &self.decay, &self.output];
        let own = [&self.kernel, &self.rate, &self.bias];
        linears.into_iter().flat_map(Linear::arrays).chain(self.norm.arrays()).chain(own).collect()
    }
}

//! Mamba 2 as a layer: one projection, a short convolution, the scan, and a norm of what is gated.

use std::rc::Rc;

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};

use super::conv::{convolve_rows, convolved, short_kernel};
use super::linear::Linear;
use super::norm::RmsNorm;
use super::scan::{Behind, Gates, RuleGates, ScanKernels};
use super::source::Source;
use crate::mlx::array::{Result, dims, from_f32, from_vec, host, settle};
use crate::mlx::backend::Kernels;
use crate::mlx::config::{Mamba, Recurrent};
use crate::mlx::cpu::activation::{Activation, gated};
use crate::mlx::cpu::mamba::{Tokens, mamba_scan, steps};
use crate::mlx::cpu::scan::StateShape;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::pass::Pass;
use crate::mlx::step::RowStep;

/// Tokens of the scan on a device that MLX is given at once.
const SCANNED: usize = 32;

/// See [`crate::mlx::cpu::mamba`] for the rule.
#[derive(Debug)]
pub struct Mamba2 {
    /// What the result is gated by.
    gate: Linear,
    /// `x`, `B` and `C`.
    vectors: Linear,
    /// `[heads, hidden]`.
    steps: Linear,
    output: Linear,
    /// Of one group, without weights.
    norm: RmsNorm,
    /// `[out width]`: the norm's weights.
    weight: Array,
    /// `[taps, width]`, and a bias as one row more where there is one.
    kernel: Array,
    /// `[heads]`, f32: the logarithm of how fast a state fades.
    rate: Array,
    /// `[heads]`.
    bias: Array,
    /// `[heads + 2]`, f32: how much of `x` goes past the state, and the bounds of steps.
    own: Array,
    taps: usize,
    bounds: [f32; 2],
    shape: StateShape,
    kernels: Kernels,
    /// On an NVIDIA GPU.
    scans: Option<Rc<ScanKernels>>,
}

impl Mamba2 {
    /// Module `path`. The convolution's weight is `[width, taps]`.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        recurrent: &Recurrent,
        Mamba { shape, bounds, conv_bias, bias }: Mamba,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, heads, out) = (source.config.hidden, shape.value_heads, shape.out_width());
        let parts = [("gate", out), ("vectors", recurrent.width), ("steps", heads)];
        source.weights.split(mx, path, "in_proj", &parts)?;
        let linear = |source: &mut Source<'_>, name: &str, shape| {
            Linear::load(mx, source, &format!("{path}.{name}"), shape, bias)
        };
        let mut kernel = short_kernel(mx, source, &format!("{path}.conv1d.weight"), recurrent)?;
        if conv_bias {
            let bias = source.tensor(mx, &format!("{path}.conv1d.bias"), &[recurrent.width])?;
            kernel = mlx_rs::ops::concatenate(&[kernel, bias.reshape(&dims([1, recurrent.width]))?], 0)?;
            settle(mx, [&kernel])?;
        }
        // Never rounded: an exponential follows.
        let rate = source.weights.take(mx, &format!("{path}.A_log"), &[heads], Some(Dtype::Float32))?;
        let skip = source.tensor(mx, &format!("{path}.D"), &[heads])?.as_dtype(Dtype::Float32)?;
        let own = mlx_rs::ops::concatenate(&[skip, from_f32(mx, &bounds, &[2])?], 0)?;
        settle(mx, [&own])?;
        Ok(Self {
            gate: linear(source, "gate", [out, hidden])?,
            vectors: linear(source, "vectors", [recurrent.width, hidden])?,
            steps: linear(source, "steps", [heads, hidden])?,
            output: linear(source, "out_proj", [hidden, out])?,
            norm: RmsNorm::plain(mx, source, out / shape.key_heads)?,
            weight: source.tensor(mx, &format!("{path}.norm.weight"), &[out])?,
            kernel,
            rate,
            bias: source.tensor(mx, &format!("{path}.dt_bias"), &[heads])?,
            own,
            taps: recurrent.taps,
            bounds,
            shape,
            kernels: source.kernels(),
            scans: source.scans.clone(),
        })
    }

    /// `[tokens, hidden]` to the same, taking the states of recurrent layer `layer` of every row on.
    pub fn forward(&self, mx: &Mlx, x: &Array, pass: &mut Pass<'_>, layer: usize) -> Result<Array> {
        let projected = Linear::forward_all(mx, x, [&self.gate, &self.vectors, &self.steps])?;
        let read = match (self.kernels, &self.scans) {
            (Kernels::Host, _) => self.on_host(mx, &projected, pass, layer)?,
            (Kernels::Device, Some(scans)) => self.scanned_in_pages(mx, scans, &projected, pass, layer)?,
            (Kernels::Device, None) => self.on_device(mx, &projected, pass, layer)?,
        };
        self.output.forward(mx, &read)
    }

    fn on_host(&self, mx: &Mlx, projected: &[Array; 3], pass: &mut Pass<'_>, layer: usize) -> Result<Array> {
        settle(mx, projected)?;
        let [gate, vectors, x] = projected;
        let (width, shape) = (self.shape.width(), self.shape);
        let (rate, bias) = (host::<f32>(mx, &self.rate)?, host::<f32>(mx, &self.bias)?);
        let (steps, decay) = steps([rate, bias], self.bounds, host(mx, x)?);
        let (vectors, own) = (host::<f32>(mx, vectors)?, host::<f32>(mx, &self.own)?);
        let (kernel, conv_bias) = host::<f32>(mx, &self.kernel)?.split_at(self.taps * width);
        let mut mixed = vec![0.0; vectors.len()];
        let mut read = vec![0.0; vectors.len() / width * shape.out_width()];
        pass.advance_host(layer, |rows| {
            let states = convolve_rows([kernel, conv_bias], width, rows, vectors, &mut mixed);
            let skip = &own[..shape.value_heads];
            let tokens = Tokens { vectors: &mixed, decay: &decay, steps: &steps, skip };
            mamba_scan(shape, tokens, states, &mut read);
            Ok(())
        })?;
        let mut opened = vec![0.0; read.len()];
        gated(Activation::Silu, host(mx, gate)?, &read, &mut opened);
        let group = shape.out_width() / shape.key_heads;
        let normed = self.norm.forward(mx, &from_vec(mx, opened, &dims([read.len() / group, group]))?)?;
        let weight = host::<f32>(mx, &self.weight)?;
        let tokens = read.chunks_exact_mut(weight.len());
        for (out, normed) in tokens.zip(host::<f32>(mx, &normed)?.chunks_exact(weight.len())) {
            for ((out, normed), weight) in out.iter_mut().zip(normed).zip(weight) {
                *out = normed * weight;
            }
        }
        from_vec(mx, read, gate.shape())
    }

    /// By kernels of our own.
    fn scanned_in_pages(
        &self,
        mx: &Mlx,
        scans: &ScanKernels,
        [gate, vectors, steps]: &[Array; 3],
        pass: &Pass<'_>,
        layer: usize,
    ) -> Result<Array> {
        let mixed = scans.conv(mx, pass, layer, [vectors, &self.kernel], self.taps, Behind::Silu)?;
        let rule = RuleGates::Mamba(&self.own);
        let gates = Gates { decay: steps, rate: &self.rate, bias: &self.bias, rule };
        let read = scans.rule(mx, pass, layer, self.shape, &mixed, gates)?;
        let group = self.shape.out_width() / self.shape.key_heads;
        scans.opened_norm(mx, [&read, gate, &self.weight, self.norm.eps()], group)
    }

    /// Token by token, by MLX's operations.
    fn on_device(
        &self,
        mx: &Mlx,
        [gate, vectors, steps]: &[Array; 3],
        pass: &mut Pass<'_>,
        layer: usize,
    ) -> Result<Array> {
        let float = |x: &Array| x.as_dtype(Dtype::Float32);
        let zero = Array::from_f32(0.0);
        let steps = mlx_rs::ops::logaddexp(float(steps)?.add(float(&self.bias)?)?, &zero)?;
        let [least, longest] = self.bounds.map(Array::from_f32);
        let steps = mlx_rs::ops::clip(&steps, (least, longest))?;
        let decay = mlx_rs::ops::exp(self.rate.exp()?.multiply(&steps)?.negative()?)?;
        let mut read = Vec::new();
        pass.advance_device(layer, |at, state| {
            let RowStep { first, tokens, .. } = at;
            let own = |x: &Array| x.try_index(first as i32..(first + tokens) as i32);
            let [mixed, tail] = convolved(mx, &self.kernel, &state[0], &own(vectors)?)?;
            let mixed = mlx_rs::nn::silu(mixed)?;
            let (found, state) = self.scanned(mx, &mixed, [&own(&decay)?, &own(&steps)?], &state[1])?;
            read.push(found);
            Ok(vec![tail, state])
        })?;
        let StateShape { key_heads, .. } = self.shape;
        let tokens = pass.step().tokens();
        let opened = mlx_rs::ops::concatenate(&read, 0)?.multiply(mlx_rs::nn::silu(float(gate)?)?)?;
        let group = dims([tokens, key_heads, self.shape.out_width() / key_heads]);
        let normed = self.norm.forward(mx, &opened.reshape(&group)?)?.reshape(gate.shape())?;
        Ok(normed.multiply(float(&self.weight)?)?.as_dtype(gate.dtype())?)
    }

    /// Results `[tokens, heads * value dim]` of one row, and its state after them.
    fn scanned(
        &self,
        mx: &Mlx,
        mixed: &Array,
        [decay, steps]: [&Array; 2],
        state: &Array,
    ) -> Result<(Array, Array)> {
        let StateShape { key_heads, value_heads, key_dim, value_dim } = self.shape;
        let (tokens, out) = (mixed.dim(0) as usize, self.shape.out_width() as i32);
        let of_group = |from: i32| -> Result<Array> {
            let x = mixed.try_index((.., from..from + (key_heads * key_dim) as i32))?;
            let x = x.reshape(&dims([tokens, key_heads, 1, key_dim]))?;
            let each = dims([tokens, key_heads, value_heads / key_heads, key_dim]);
            Ok(mlx_rs::ops::broadcast_to(&x, &each)?.reshape(&dims([tokens, value_heads, key_dim, 1]))?)
        };
        let (key, query) = (of_group(out)?, of_group(out + (key_heads * key_dim) as i32)?);
        let value = mixed.try_index((.., ..out))?.reshape(&dims([tokens, value_heads, 1, value_dim]))?;
        let by_head = |x: &Array| x.reshape(&dims([tokens, value_heads, 1, 1]));
        let (decay, change) = (by_head(decay)?, by_head(steps)?.multiply(&value)?);
        let (mut state, mut read) = (state.clone(), Vec::with_capacity(tokens));
        for token in 0..tokens as i32 {
            let at = |x: &Array| x.try_index(token);
            state = state.multiply(at(&decay)?)?.add(at(&key)?.multiply(at(&change)?)?)?;
            read.push(state.multiply(at(&query)?)?.sum_axis(1, false)?);
            if (token as usize + 1).is_multiple_of(SCANNED) {
                settle(mx, read.iter().chain([&state]))?;
            }
        }
        let skip = self.own.try_index(..value_heads as i32)?.reshape(&dims([value_heads, 1]))?;
        let value = value.reshape(&dims([tokens, value_heads, value_dim]))?;
        let read = mlx_rs::ops::stack(&read, 0)?.add(value.multiply(skip)?)?;
        Ok((read.reshape(&dims([tokens, value_heads * value_dim]))?, state))
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        let linears = [&self.gate, &self.vectors, &self.steps, &self.output];
        let own = [&self.weight, &self.kernel, &self.rate, &self.bias, &self.own];
        linears.into_iter().flat_map(Linear::arrays).chain(self.norm.arrays()).chain(own).collect()
    }
}

//! A gated convolution of few tokens as a layer: LFM2's. Its vectors are `B x`, and `C` times what it gives goes on.

use std::rc::Rc;

use mlx_rs::ops::indexing::{IndexOp, TryIndexOp};
use mlx_rs::{Array, Dtype};

use super::linear::Linear;
use super::scan::{Behind, ScanKernels};
use super::source::Source;
use crate::mlx::array::{Result, from_vec, host, settle};
use crate::mlx::backend::Kernels;
use crate::mlx::config::Recurrent;
use crate::mlx::cpu::conv::{After, short_conv};
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::pass::Pass;

/// See the module's documentation.
#[derive(Debug)]
pub struct GatedConv {
    /// `B`, `C` and `x`, one behind the other.
    input: Linear,
    output: Linear,
    /// `[taps, hidden]`.
    kernel: Array,
    kernels: Kernels,
    /// On an NVIDIA GPU.
    scans: Option<Rc<ScanKernels>>,
}

impl GatedConv {
    /// Module `path`. The convolution's weight is `[hidden, taps]`.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        recurrent: &Recurrent,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = recurrent.width;
        Ok(Self {
            input: Linear::load(mx, source, &format!("{path}.in_proj"), [3 * hidden, hidden], false)?,
            output: Linear::load(mx, source, &format!("{path}.out_proj"), [hidden, hidden], false)?,
            kernel: short_kernel(mx, source, &format!("{path}.conv.weight"), recurrent)?,
            kernels: source.kernels(),
            scans: source.scans.clone(),
        })
    }

    /// `[tokens, hidden]` to the same, taking the states of recurrent layer `layer` of every row on.
    pub fn forward(&self, mx: &Mlx, x: &Array, pass: &mut Pass<'_>, layer: usize) -> Result<Array> {
        let projected = self.input.forward(mx, x)?;
        let mixed = match self.kernels {
            Kernels::Host => self.on_host(mx, &projected, pass, layer)?,
            Kernels::Device => self.on_device(mx, &projected, pass, layer)?,
        };
        self.output.forward(mx, &mixed)
    }

    fn on_host(&self, mx: &Mlx, projected: &Array, pass: &mut Pass<'_>, layer: usize) -> Result<Array> {
        settle(mx, [projected])?;
        let (all, kernel) = (host::<f32>(mx, projected)?, host::<f32>(mx, &self.kernel)?);
        let width = projected.dim(1) as usize / 3;
        let mut vectors = Vec::with_capacity(all.len() / 3);
        for token in all.chunks_exact(3 * width) {
            let (b, x) = (&token[..width], &token[2 * width..]);
            vectors.extend(b.iter().zip(x).map(|(b, x)| b * x));
        }
        let mut mixed = vec![0.0; vectors.len()];
        pass.advance_host(layer, |rows| {
            for row in rows {
                let own = row.at.first * width..row.at.range().end * width;
                let inputs = [row.before, &vectors[own.clone()]];
                short_conv(width, [kernel, &[]], After::Plain, inputs, row.after, &mut mixed[own]);
            }
            Ok(())
        })?;
        for (mixed, token) in mixed.chunks_exact_mut(width).zip(all.chunks_exact(3 * width)) {
            for (mixed, c) in mixed.iter_mut().zip(&token[width..]) {
                *mixed *= c;
            }
        }
        from_vec(mx, mixed, &[projected.dim(0), width as i32])
    }

    fn on_device(&self, mx: &Mlx, projected: &Array, pass: &mut Pass<'_>, layer: usize) -> Result<Array> {
        let width = projected.dim(1) / 3;
        let part = |at: i32| projected.try_index((.., at * width..(at + 1) * width));
        let vectors = part(0)?.multiply(part(2)?)?;
        let mixed = if let Some(scans) = &self.scans {
            scans.conv(
                mx,
                pass,
                layer,
                [&vectors, &self.kernel],
                self.kernel.dim(0) as usize,
                Behind::Nothing,
            )?
        } else {
            let mut mixed = Vec::new();
            pass.advance_device(layer, |at, state| {
                let own = vectors.try_index(at.first as i32..at.range().end as i32)?;
                let own = own.as_dtype(state[0].dtype())?;
                let joined = mlx_rs::ops::concatenate(&[state[0].clone(), own], 0)?;
                mixed.push(convolved(mx, &self.kernel, &joined, at.tokens)?);
                Ok(vec![joined.try_index(at.tokens as i32..)?.contiguous()?])
            })?;
            mlx_rs::ops::concatenate(&mixed, 0)?
        };
        Ok(part(1)?.multiply(mixed.as_dtype(projected.dtype())?)?)
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        [&self.input, &self.output].into_iter().flat_map(Linear::arrays).chain([&self.kernel]).collect()
    }
}

/// The kernel `name`, stored as `[width, taps]`: `[taps, width]`.
pub fn short_kernel(
    mx: &Mlx,
    source: &mut Source<'_>,
    name: &str,
    recurrent: &Recurrent,
) -> std::result::Result<Array, LoadError> {
    let kernel = source.tensor(mx, name, &[recurrent.width, recurrent.taps])?;
    let kernel = kernel.swap_axes(0, 1)?.contiguous()?;
    settle(mx, [&kernel])?;
    Ok(kernel)
}

/// On a device, the convolution of `tokens` tokens behind the tail that `joined` begins with, f32.
pub fn convolved(_: &Mlx, kernel: &Array, joined: &Array, tokens: usize) -> Result<Array> {
    let (joined, kernel) = (joined.as_dtype(Dtype::Float32)?, kernel.as_dtype(Dtype::Float32)?);
    let mut sum = Array::from_f32(0.0);
    for tap in 0..kernel.dim(0) {
        let seen = joined.try_index(tap..tap + tokens as i32)?;
        sum = sum.add(seen.multiply(kernel.index(tap))?)?;
    }
    Ok(sum)
}

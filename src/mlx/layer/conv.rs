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
use crate::mlx::cpu::scan::RowState;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::pass::{HostState, Pass};

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
                let [own, tail] = convolved(mx, &self.kernel, &state[0], &own)?;
                mixed.push(own);
                Ok(vec![tail])
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

/// On the host, the convolution of every row's vectors, and an activation behind it, into `mixed`; what else the rows keep is for a
/// scan to take on. `kernel` and bias are `[taps, width]` and `[width]` or empty.
pub fn convolve_rows<'a>(
    [kernel, bias]: [&[f32]; 2],
    width: usize,
    rows: &'a mut [HostState<'_>],
    vectors: &[f32],
    mixed: &mut [f32],
) -> Vec<RowState<'a>> {
    let kept = kernel.len() - width;
    let states = rows.iter_mut().map(|row| {
        let own = row.at.first * width..row.at.range().end * width;
        let (tail, after) = row.after.split_at_mut(kept);
        let inputs = [&row.before[..kept], &vectors[own.clone()]];
        short_conv(width, [kernel, bias], After::Silu, inputs, tail, &mut mixed[own]);
        RowState { tokens: row.at.range(), before: &row.before[kept..], after }
    });
    states.collect()
}

/// On a device, the convolution of a row's new vectors `x` behind the `tail` that it holds, f32, and the tail behind them. `kernel` is
/// `[taps, width]`, or has a bias as one row more.
pub fn convolved(_: &Mlx, kernel: &Array, tail: &Array, x: &Array) -> Result<[Array; 2]> {
    let joined = mlx_rs::ops::concatenate(&[tail.clone(), x.as_dtype(tail.dtype())?], 0)?;
    let (tokens, taps) = (x.dim(0), tail.dim(0) + 1);
    let (seen, kernel) = (joined.as_dtype(Dtype::Float32)?, kernel.as_dtype(Dtype::Float32)?);
    let mut sum = Array::from_f32(0.0);
    for tap in 0..taps {
        sum = sum.add(seen.try_index(tap..tap + tokens)?.multiply(kernel.index(tap))?)?;
    }
    if kernel.dim(0) > taps {
        sum = sum.add(kernel.index(taps))?;
    }
    Ok([sum, joined.try_index(tokens..)?.contiguous()?])
}

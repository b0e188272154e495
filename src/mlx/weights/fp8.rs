//! Checkpoints in floats of 8 bits, as DeepSeek V3 and Mistral Small 4 are published: they are numbers once they are loaded.

use mlx_rs::{Array, Dtype};
use std::collections::HashMap;

use crate::mlx::array::Result;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;
use crate::mlx::microfloat::from_e4m3;

/// Rows and columns of a block that shares a scale.
pub const BLOCK: usize = 128;
/// What the scales' names have more than their matrices'.
const SCALES: &str = "_scale_inv";

/// What scales of activations end in: products of floats have no use for them.
const ACTIVATIONS: &str = "activation_scale";

/// Replaces matrices of e4m3, a byte each, that have scales beside them by their numbers, bf16: `[out, in]` with `[out / 128, in /
/// 128]`, rounded up, any with one, and `[experts, out, in]` with `[experts, 1, 1]`. Nothing is computed before they are taken.
pub fn decode_all(mx: &Mlx, tensors: &mut HashMap<String, Array>) -> std::result::Result<(), LoadError> {
    tensors.retain(|name, _| !name.ends_with(ACTIVATIONS));
    let names = tensors.keys().filter_map(|name| name.strip_suffix(SCALES).map(str::to_owned));
    for name in names.collect::<Vec<_>>() {
        let (Some(scales), Some(codes)) = (tensors.remove(&format!("{name}{SCALES}")), tensors.remove(&name))
        else {
            return Err(LoadError::Weights(format!("{name}{SCALES} is there, but {name} is missing")));
        };
        let blocks = codes.shape().iter().map(|dim| dim.unsigned_abs().div_ceil(BLOCK as u32) as i32);
        let by_blocks = codes.ndim() == 2 && blocks.eq(scales.shape().iter().copied());
        let one_each = match *scales.shape() {
            [] | [1] => true,
            [experts, 1, 1] => codes.ndim() == 3 && codes.dim(0) == experts,
            _ => false,
        };
        if codes.dtype() != Dtype::Uint8 || !(by_blocks || one_each) {
            let (dtype, shape, scales) = (codes.dtype(), codes.shape(), scales.shape());
            return Err(LoadError::Weights(format!(
                "{name} is {dtype:?} {shape:?} with scales {scales:?}, expected a matrix of F8_E4M3 with one scale, or one for \
                 each {BLOCK} x {BLOCK} of it"
            )));
        }
        let numbers = if by_blocks { by_block(mx, &codes, &scales) } else { scaled(mx, &codes, &scales) };
        let numbers = numbers.map_err(|error| LoadError::Weights(format!("{name}: {error}")))?;
        tensors.insert(name, numbers);
    }
    Ok(())
}

fn scaled(mx: &Mlx, codes: &Array, scales: &Array) -> Result<Array> {
    let scaled = from_e4m3(mx, codes)?.multiply(scales.as_dtype(Dtype::Float32)?)?;
    Ok(scaled.as_dtype(Dtype::Bfloat16)?)
}

fn by_block(mx: &Mlx, codes: &Array, scales: &Array) -> Result<Array> {
    let (rows, columns, block) = (codes.dim(0), codes.dim(1), BLOCK as i32);
    let [down, across] = [scales.dim(0), scales.dim(1)];
    let numbers = from_e4m3(mx, codes)?;
    let filled = mlx_rs::ops::pad(
        &numbers,
        &[(0, down * block - rows), (0, across * block - columns)][..],
        None,
        None,
    )?;
    let blocks = filled.reshape(&[down, block, across, block])?;
    let scaled = blocks.multiply(scales.as_dtype(Dtype::Float32)?.reshape(&[down, 1, across, 1])?)?;
    let whole = scaled.reshape(&[down * block, across * block])?;
    Ok(mlx_rs::ops::indexing::TryIndexOp::try_index(&whole, (..rows, ..columns))?
        .as_dtype(Dtype::Bfloat16)?)
}

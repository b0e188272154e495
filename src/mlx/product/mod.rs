//! Products with quantized weights on CUDA, by the number of rows.
//!
//! MLX multiplies one row well. From 2 to 7 rows it takes as many times as long, from 8 to 64 it first compiles for half a
//! minute, and beyond that it decodes each weight again for every 64 rows. So few rows have a kernel of our own, which reads
//! every code once for all of them, and many rows share one decoding of the weight. (One H200, 14,336 outputs over 4,096
//! inputs at 4 bits: 4 rows 161 µs by MLX; 512 rows 502 µs by MLX, 225 µs decoded first.)

use std::cell::RefCell;
use std::collections::HashMap;

use mlx_rs::{Array, Dtype};

use super::array::{Result, dims, distance, from_f32};
use super::backend::Backend;
use super::cuda::{Constant, CudaKernel, Launch, Source};
use super::error::MlxError;
use super::gate::Mlx;
use super::layer::Codes;

/// Rows that the kernel serves at most: beyond, decoding the weight once costs less.
const MOST_ROWS: usize = 48;
/// Rows that share a unit of the matrix units' work, and how many such tiles the kernel is compiled for.
const TILE_ROWS: usize = 8;
const TILES: [usize; 4] = [1, 2, 4, 6];
/// Outputs of a block, and its threads, as `rows.cu` has them.
const BLOCK_OUTPUTS: usize = 16;
const THREADS: usize = 256;

/// Rows of the proof's weight, and relative distance allowed between the kernel's product and MLX's: bf16 has 8 bits.
const PROOF: [i32; 2] = [80, 256];
const TOLERANCE: f32 = 1e-2;

/// The kernel, ready to be called.
#[derive(Debug)]
pub struct DeviceProducts {
    rows: CudaKernel,
    /// By bits and group: does the kernel agree with MLX here?
    proven: RefCell<HashMap<(i32, i32), bool>>,
}

impl DeviceProducts {
    /// `None` where MLX's own products serve.
    pub fn new(mx: &Mlx, backend: Backend) -> Result<Option<Self>> {
        if backend != Backend::Cuda {
            return Ok(None);
        }
        let source = Source {
            name: "prefixd_product_rows",
            inputs: &["x", "codes", "scales", "biases"],
            outputs: &["y"],
            header: include_str!("pairs.cu"),
            body: include_str!("rows.cu"),
            shared_bytes: 0,
        };
        Ok(Some(Self { rows: CudaKernel::new(mx, source)?, proven: RefCell::default() }))
    }

    /// Compiles the kernel for weights of that kind, for every number of tiles, and compares it with MLX's product on this
    /// device. Where it fails, MLX serves alone, and the log says so.
    pub fn prove(&self, mx: &Mlx, bits: i32, group: i32) {
        if self.proven.borrow().contains_key(&(bits, group)) {
            return;
        }
        let agrees = self.agrees(mx, bits, group);
        if let Err(error) = &agrees {
            tracing::warn!(bits, group, %error, "the product of few rows does not work on this device; MLX's is used");
        }
        self.proven.borrow_mut().insert((bits, group), agrees.is_ok());
    }

    fn agrees(&self, mx: &Mlx, bits: i32, group: i32) -> Result<()> {
        let [outputs, inner] = PROOF;
        let wave = |count: i32, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        let bf16 = |numbers: &[f32], shape: [i32; 2]| -> Result<Array> {
            Ok(from_f32(mx, numbers, &shape)?.as_dtype(Dtype::Bfloat16)?)
        };
        let weight = bf16(&wave(outputs * inner, 0.7), PROOF)?;
        let (codes, scales, biases) = mlx_rs::ops::quantize(&weight, group, bits)?;
        let weight = Codes { codes, scales, biases, group, bits, products: None };
        for tiles in TILES {
            let rows = (tiles * TILE_ROWS) as i32 - 1;
            let x = bf16(&wave(rows * inner, 0.3), [rows, inner])?;
            if !serves(&x, &weight) {
                return Err(MlxError::backend(format!("no kernel for {bits} bits in groups of {group}")));
            }
            let (found, expected) = (self.few(mx, &x, &weight)?, decoded_product(&x, &weight)?);
            let distance = distance(mx, &found, &expected)?;
            if distance.is_nan() || distance > TOLERANCE {
                return Err(MlxError::backend(format!(
                    "{rows} rows differ by {distance:e} from MLX's product"
                )));
            }
        }
        Ok(())
    }

    /// `[n, inner]` to `[n, outputs]`. Lazy.
    pub fn product(&self, mx: &Mlx, x: &Array, weight: &Codes) -> Result<Array> {
        let Codes { codes, scales, biases, group, bits, .. } = weight;
        let (group, bits) = (*group, *bits);
        let rows = x.dim(0) as usize;
        let proven = self.proven.borrow().get(&(bits, group)) == Some(&true);
        if rows <= MOST_ROWS && proven && serves(x, weight) {
            return self.few(mx, x, weight);
        }
        if rows < TILE_ROWS {
            return Ok(mlx_rs::ops::quantized_matmul(x, codes, scales, biases, true, group, bits)?);
        }
        decoded_product(x, weight)
    }

    fn few(&self, mx: &Mlx, x: &Array, weight: &Codes) -> Result<Array> {
        let Codes { codes, scales, biases, group, bits, .. } = weight;
        let [rows, outputs] = [x, codes].map(|array| array.dim(0) as usize);
        let tiles =
            TILES.into_iter().find(|tiles| rows <= tiles * TILE_ROWS).unwrap_or(TILES[TILES.len() - 1]);
        let x = x.contiguous()?;
        // SAFETY: `serves` has checked types and alignment; the kernel stays within the shapes that it reads from its
        // inputs, and writes every element of the result.
        let mut product = unsafe {
            self.rows.call(
                mx,
                &[&x, codes, scales, biases],
                Launch {
                    blocks: [outputs.div_ceil(BLOCK_OUTPUTS), 1],
                    threads: THREADS,
                    constants: &[
                        ("TILES", Constant::Int(tiles)),
                        ("BITS", Constant::Int(*bits as usize)),
                        ("GROUP", Constant::Int(*group as usize)),
                    ],
                    outputs: &[(&dims([rows, outputs]), Dtype::Bfloat16)],
                },
            )?
        };
        Ok(product.remove(0))
    }
}

/// The product with the weight as numbers.
fn decoded_product(x: &Array, Codes { codes, scales, biases, group, bits, .. }: &Codes) -> Result<Array> {
    let decoded = mlx_rs::ops::dequantize(codes, scales, biases, *group, *bits)?.as_dtype(x.dtype())?;
    Ok(x.matmul(decoded.swap_axes(-1, -2)?)?)
}

/// Can the kernel multiply these?
fn serves(x: &Array, weight: &Codes) -> bool {
    let bf16 = [x, &weight.scales, &weight.biases].iter().all(|array| array.dtype() == Dtype::Bfloat16);
    let inner = x.dim(-1);
    bf16 && [4, 8].contains(&weight.bits)
        && [32, 64, 128].contains(&weight.group)
        && inner % weight.group.max(64) == 0
}

#[cfg(test)]
mod tests;

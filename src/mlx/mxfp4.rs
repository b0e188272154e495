//! MXFP4: weights as floats of 4 bits (sign, two of exponent, one of mantissa), 32 of which share a power of two (OCP
//! Microscaling Formats 1.0, 2023).
//!
//! mlx-rs wraps affine codes only, so this is the same over mlx-c's functions.

use std::ffi::{CStr, c_int};

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Stream};

use super::array::Result;
use super::error::MlxError;
use super::gate::Mlx;

const MODE: &CStr = c"mxfp4";
/// Weights that share a scale.
pub const GROUP: usize = 32;
/// Bits of a weight.
pub const BITS: usize = 4;

/// A matrix, or stacked ones.
#[derive(Clone, Debug)]
pub struct Mxfp4 {
    /// `[…, out, in / 8]`, u32.
    pub codes: Array,
    /// `[…, out, in / 32]`, u8: exponents, 127 for 1.
    pub scales: Array,
}

impl Mxfp4 {
    /// The numbers, exactly: `[…, out, in]`, bf16.
    pub fn decode(&self, _: &Mlx) -> Result<Array> {
        let (none, stream) = (nothing(), Stream::thread_local_or_default());
        let dtype = mlx_sys::mlx_optional_dtype_ { value: mlx_sys::mlx_dtype__MLX_BFLOAT16, has_value: true };
        call(|result| {
            // SAFETY: every handle is live, the mode is a C string, and `result` takes the new array.
            unsafe {
                mlx_sys::mlx_dequantize(
                    result,
                    self.codes.as_ptr(),
                    self.scales.as_ptr(),
                    none.as_ptr(),
                    optional(GROUP),
                    optional(BITS),
                    MODE.as_ptr(),
                    none.as_ptr(),
                    dtype,
                    stream.as_ptr(),
                )
            }
        })
    }

    /// `[n, in]` to `[n, out]`.
    pub fn product(&self, _: &Mlx, x: &Array) -> Result<Array> {
        let (none, stream) = (nothing(), Stream::thread_local_or_default());
        call(|result| {
            // SAFETY: as in `decode`.
            unsafe {
                mlx_sys::mlx_quantized_matmul(
                    result,
                    x.as_ptr(),
                    self.codes.as_ptr(),
                    self.scales.as_ptr(),
                    none.as_ptr(),
                    true,
                    optional(GROUP),
                    optional(BITS),
                    MODE.as_ptr(),
                    stream.as_ptr(),
                )
            }
        })
    }

    /// Of stacked matrices: `x`, `[…, 1, in]`, by the matrices `indices`, `[…]`, to `[…, 1, out]`.
    pub fn gathered(&self, _: &Mlx, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        let (none, stream) = (nothing(), Stream::thread_local_or_default());
        call(|result| {
            // SAFETY: as in `decode`.
            unsafe {
                mlx_sys::mlx_gather_qmm(
                    result,
                    x.as_ptr(),
                    self.codes.as_ptr(),
                    self.scales.as_ptr(),
                    none.as_ptr(),
                    none.as_ptr(),
                    indices.as_ptr(),
                    true,
                    optional(GROUP),
                    optional(BITS),
                    MODE.as_ptr(),
                    sorted,
                    stream.as_ptr(),
                )
            }
        })
    }

    /// One of stacked matrices.
    pub fn at(&self, index: i32) -> Result<Self> {
        let one = |array: &Array| array.try_index(index)?.contiguous();
        Ok(Self { codes: one(&self.codes)?, scales: one(&self.scales)? })
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> [&Array; 2] {
        [&self.codes, &self.scales]
    }
}

/// What mlx-c takes for an array that is not given.
fn nothing() -> Array {
    // SAFETY: a fresh handle, which the array owns.
    unsafe { Array::from_ptr(mlx_sys::mlx_array_new()) }
}

fn optional(value: usize) -> mlx_sys::mlx_optional_int_ {
    mlx_sys::mlx_optional_int_ { value: value as c_int, has_value: true }
}

fn call(operation: impl FnOnce(*mut mlx_sys::mlx_array) -> c_int) -> Result<Array> {
    // SAFETY: a fresh handle, filled by the operation or not; the array owns it either way.
    let (status, array) = unsafe {
        let mut handle = mlx_sys::mlx_array_new();
        let status = operation(&raw mut handle);
        (status, Array::from_ptr(handle))
    };
    if status == 0 { Ok(array) } else { Err(MlxError::backend("MLX refused weights in mxfp4".into())) }
}

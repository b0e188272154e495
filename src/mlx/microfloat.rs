//! Weights as floats of 4 or 8 bits that share scales by groups: the formats of OCP Microscaling Formats 1.0 (2023), whose scales
//! are powers of two, and NVIDIA's NVFP4, whose scales are floats of 8 bits.
//!
//! mlx-rs wraps affine codes only, so this is the same over mlx-c's functions.

use std::ffi::{CStr, c_int};

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Stream};

use super::array::Result;
use super::error::MlxError;
use super::gate::Mlx;

/// One of the formats.
#[derive(Debug, PartialEq, Eq)]
pub struct Format {
    /// As MLX calls it.
    mode: &'static CStr,
    /// The same, as configurations do.
    pub name: &'static str,
    /// Weights that share a scale.
    pub group: usize,
    /// Bits of a weight.
    pub bits: usize,
}

/// Sign, two bits of exponent, one of mantissa; 32 share a power of two.
pub static MXFP4: Format = Format { mode: c"mxfp4", name: "mxfp4", group: 32, bits: 4 };
/// Sign, four bits of exponent, three of mantissa; 32 share a power of two.
pub static MXFP8: Format = Format { mode: c"mxfp8", name: "mxfp8", group: 32, bits: 8 };
/// Weights as in [`MXFP4`], 16 of which share a float like a weight of [`MXFP8`].
pub static NVFP4: Format = Format { mode: c"nvfp4", name: "nvfp4", group: 16, bits: 4 };

impl Format {
    /// The format of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        [&MXFP4, &MXFP8, &NVFP4].into_iter().find(|format| format.name == name)
    }

    fn group(&self) -> mlx_sys::mlx_optional_int_ {
        optional(self.group)
    }

    fn bits(&self) -> mlx_sys::mlx_optional_int_ {
        optional(self.bits)
    }

    /// What an operation of MLX on weights of this format gives.
    fn call(&self, operation: impl FnOnce(*mut mlx_sys::mlx_array) -> c_int) -> Result<Array> {
        call(operation, || format!("MLX refused weights in {}", self.name))
    }
}

/// A matrix, or stacked ones.
#[derive(Clone, Debug)]
pub struct MicroFloats {
    /// `[…, out, in * bits / 32]`, u32.
    pub codes: Array,
    /// `[…, out, in / group]`, u8: exponents, 127 for 1, or floats.
    pub scales: Array,
    /// How to read them.
    pub format: &'static Format,
}

impl MicroFloats {
    /// The numbers, exactly: `[…, out, in]`, bf16.
    pub fn decode(&self, _: &Mlx) -> Result<Array> {
        let (none, stream) = (nothing(), Stream::thread_local_or_default());
        let dtype = mlx_sys::mlx_optional_dtype_ { value: mlx_sys::mlx_dtype__MLX_BFLOAT16, has_value: true };
        self.format.call(|result| {
            // SAFETY: every handle is live, the mode is a C string, and `result` takes the new array.
            unsafe {
                mlx_sys::mlx_dequantize(
                    result,
                    self.codes.as_ptr(),
                    self.scales.as_ptr(),
                    none.as_ptr(),
                    self.format.group(),
                    self.format.bits(),
                    self.format.mode.as_ptr(),
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
        self.format.call(|result| {
            // SAFETY: as in `decode`.
            unsafe {
                mlx_sys::mlx_quantized_matmul(
                    result,
                    x.as_ptr(),
                    self.codes.as_ptr(),
                    self.scales.as_ptr(),
                    none.as_ptr(),
                    true,
                    self.format.group(),
                    self.format.bits(),
                    self.format.mode.as_ptr(),
                    stream.as_ptr(),
                )
            }
        })
    }

    /// Of stacked matrices: `x`, `[…, 1, in]`, by the matrices `indices`, `[…]`, to `[…, 1, out]`.
    pub fn gathered(&self, _: &Mlx, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        let (none, stream) = (nothing(), Stream::thread_local_or_default());
        self.format.call(|result| {
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
                    self.format.group(),
                    self.format.bits(),
                    self.format.mode.as_ptr(),
                    sorted,
                    stream.as_ptr(),
                )
            }
        })
    }

    /// One of stacked matrices.
    pub fn at(&self, index: i32) -> Result<Self> {
        let one = |array: &Array| array.try_index(index)?.contiguous();
        Ok(Self { codes: one(&self.codes)?, scales: one(&self.scales)?, format: self.format })
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> [&Array; 2] {
        [&self.codes, &self.scales]
    }
}

/// Floats of 8 bits, sign, four of exponent, three of mantissa, a byte each: the same numbers in bf16.
pub fn from_e4m3(_: &Mlx, codes: &Array) -> Result<Array> {
    let stream = Stream::thread_local_or_default();
    call(
        |result| {
            // SAFETY: every handle is live, and `result` takes the new array.
            unsafe {
                mlx_sys::mlx_from_fp8(
                    result,
                    codes.as_ptr(),
                    mlx_sys::mlx_dtype__MLX_BFLOAT16,
                    stream.as_ptr(),
                )
            }
        },
        || "MLX refused floats of 8 bits".into(),
    )
}

/// What mlx-c takes for an array that is not given.
fn nothing() -> Array {
    // SAFETY: a fresh handle, which the array owns.
    unsafe { Array::from_ptr(mlx_sys::mlx_array_new()) }
}

fn optional(value: usize) -> mlx_sys::mlx_optional_int_ {
    mlx_sys::mlx_optional_int_ { value: value as c_int, has_value: true }
}

fn call(
    operation: impl FnOnce(*mut mlx_sys::mlx_array) -> c_int,
    refused: impl FnOnce() -> String,
) -> Result<Array> {
    // SAFETY: a fresh handle, filled by the operation or not; the array owns it either way.
    let (status, array) = unsafe {
        let mut handle = mlx_sys::mlx_array_new();
        let status = operation(&raw mut handle);
        (status, Array::from_ptr(handle))
    };
    if status == 0 { Ok(array) } else { Err(MlxError::backend(refused())) }
}

//! Small things on arrays that the rest of the module leans on: making, settling, reading.

use std::ffi::c_void;

use mlx_rs::{Array, ArrayElement, Dtype, error::Exception};

use super::gate::Mlx;
use crate::engine::EngineError;

pub(super) type Result<T> = std::result::Result<T, EngineError>;

impl From<Exception> for EngineError {
    fn from(error: Exception) -> Self {
        Self::Backend(error.what().to_owned())
    }
}

/// A shape as MLX wants it.
pub(super) fn dims<const N: usize>(shape: [usize; N]) -> [i32; N] {
    shape.map(|dim| i32::try_from(dim).unwrap_or(i32::MAX))
}

/// Zeros, f32, evaluated.
pub fn zeros(mx: &Mlx, shape: &[i32]) -> std::result::Result<Array, EngineError> {
    zeros_of(mx, shape, Dtype::Float32)
}

/// Zeros of a type, evaluated.
pub(super) fn zeros_of(mx: &Mlx, shape: &[i32], dtype: Dtype) -> Result<Array> {
    let array = mlx_rs::ops::zeros_dtype(shape, dtype)?;
    settle(mx, [&array])?;
    Ok(array)
}

/// Evaluates the arrays and waits until they are there.
pub(super) fn settle<'a>(_: &Mlx, arrays: impl IntoIterator<Item = &'a Array>) -> Result<()> {
    Ok(mlx_rs::transforms::eval(arrays)?)
}

/// The memory of an array, evaluated first. The array must be row-contiguous and of type `T`.
pub(super) fn host<'a, T: ArrayElement>(_: &Mlx, array: &'a Array) -> Result<&'a [T]> {
    if array.size() == 0 {
        return Ok(&[]);
    }
    array.try_as_slice().map_err(|error| {
        EngineError::Backend(format!("reading an array {:?} {:?}: {error}", array.shape(), array.dtype()))
    })
}

/// As [`host`], copying first when the array is a view.
pub(super) fn host_contiguous(mx: &Mlx, array: &Array) -> Result<Array> {
    let array = array.contiguous()?;
    settle(mx, [&array])?;
    Ok(array)
}

/// An array that holds a copy of `data`.
pub(super) fn from_f32(mx: &Mlx, data: &[f32], shape: &[i32]) -> Result<Array> {
    // SAFETY: f32 has no padding, so its memory is readable as bytes.
    let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), std::mem::size_of_val(data)) };
    from_bytes(mx, bytes, shape, Dtype::Float32)
}

/// An array that holds a copy of `data`, elements of `dtype` in native order.
pub(super) fn from_bytes(_: &Mlx, data: &[u8], shape: &[i32], dtype: Dtype) -> Result<Array> {
    let count = shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?));
    let expected = count.and_then(|count| count.checked_mul(item_bytes(dtype)));
    if expected != Some(data.len()) {
        let found = data.len();
        return Err(EngineError::Backend(format!("{found} bytes do not make an array {shape:?} of {dtype:?}")));
    }
    // SAFETY: `data` holds exactly the bytes of that shape and type, and MLX copies them before it returns.
    Ok(unsafe { Array::from_raw_data(data.as_ptr().cast::<c_void>(), shape, dtype) })
}

/// The bytes of an evaluated array, row-major.
pub(super) fn bytes_of(mx: &Mlx, array: &Array) -> Result<Vec<u8>> {
    fn raw<T>(data: &[T]) -> Vec<u8> {
        // SAFETY: only called with plain numbers, which have no padding.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), std::mem::size_of_val(data)) };
        bytes.to_vec()
    }
    match array.dtype() {
        Dtype::Uint32 => host::<u32>(mx, array).map(raw),
        Dtype::Float16 => host::<half::f16>(mx, array).map(raw),
        Dtype::Float32 => host::<f32>(mx, array).map(raw),
        other => Err(EngineError::Backend(format!("an array of {other:?} has no place in a block"))),
    }
}

/// Bytes of one element.
pub(super) fn item_bytes(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Bool | Dtype::Uint8 | Dtype::Int8 => 1,
        Dtype::Uint16 | Dtype::Int16 | Dtype::Float16 | Dtype::Bfloat16 => 2,
        Dtype::Uint32 | Dtype::Int32 | Dtype::Float32 => 4,
        Dtype::Uint64 | Dtype::Int64 | Dtype::Float64 | Dtype::Complex64 => 8,
    }
}

/// Is the array's value there, so that any thread could read it?
pub(super) fn is_settled(_: &Mlx, array: &Array) -> bool {
    let mut available = false;
    // SAFETY: the handle is valid as long as `array` lives, and the call only reads its state.
    let status = unsafe { mlx_sys::_mlx_array_is_available(&raw mut available, array.as_ptr()) };
    status == 0 && available
}

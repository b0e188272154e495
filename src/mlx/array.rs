//! Small things on arrays that the rest of the module leans on: making, settling, reading.

use std::ffi::c_void;

use mlx_rs::{Array, ArrayElement, Dtype, Stream};

use super::error::MlxError;
use super::gate::Mlx;

pub(super) type Result<T> = std::result::Result<T, MlxError>;

/// A shape as MLX wants it.
pub(super) fn dims<const N: usize>(shape: [usize; N]) -> [i32; N] {
    shape.map(|dim| i32::try_from(dim).unwrap_or(i32::MAX))
}

/// Zeros, f32, evaluated.
///
/// ```compile_fail,E0277
/// // An array does not leave the gate: `Array` is not `Host`.
/// # fn f(gate: &prefixd_engine::Gate) {
/// let array = gate.run(|mx| prefixd::mlx::zeros(mx, &[2, 2]));
/// # }
/// ```
/// ```compile_fail,E0277
/// // Nor does who may make one leave the thread.
/// # fn f(mx: &prefixd::mlx::Mlx) {
/// std::thread::scope(|scope| { scope.spawn(|| prefixd::mlx::zeros(mx, &[2, 2])); });
/// # }
/// ```
pub fn zeros(mx: &Mlx, shape: &[i32]) -> Result<Array> {
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

/// Waits until the device has done all that it was given. What failed has failed already.
pub(super) fn wait(_: &Mlx) {
    let stream = Stream::thread_local_or_gpu();
    // SAFETY: the stream is live.
    unsafe { mlx_sys::mlx_synchronize(stream.as_ptr()) };
}

/// The memory of an array, evaluated first. The array must be row-contiguous and of type `T`.
pub(super) fn host<'a, T: ArrayElement>(_: &Mlx, array: &'a Array) -> Result<&'a [T]> {
    if array.size() == 0 {
        return Ok(&[]);
    }
    array.try_as_slice().map_err(|error| {
        MlxError::backend(format!("reading an array {:?} {:?}: {error}", array.shape(), array.dtype()))
    })
}

/// The numbers of an array, f32, copied when it is a view.
pub(super) fn host_copied<'a>(mx: &Mlx, array: &'a Array) -> Result<std::borrow::Cow<'a, [f32]>> {
    settle(mx, [array])?;
    if let Ok(numbers) = host(mx, array) {
        return Ok(numbers.into());
    }
    let copy = host_contiguous(mx, array)?;
    Ok(host::<f32>(mx, &copy)?.to_vec().into())
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
    let bytes =
        unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), std::mem::size_of_val(data)) };
    from_bytes(mx, bytes, shape, Dtype::Float32)
}

/// An array that takes over `data`, f32, without a copy.
pub(super) fn from_vec(mx: &Mlx, data: Vec<f32>, shape: &[i32]) -> Result<Array> {
    unsafe extern "C" fn free(data: *mut c_void) {
        // SAFETY: MLX calls this once, with what was made for it below.
        drop(unsafe { Box::from_raw(data.cast::<Vec<f32>>()) });
    }
    if elements(shape) != Some(data.len()) || data.is_empty() {
        return from_f32(mx, &data, shape);
    }
    let mut data = Box::new(data);
    let memory = data.as_mut_ptr().cast::<c_void>();
    let (dims, dtype) = (shape.len() as i32, mlx_sys::mlx_dtype__MLX_FLOAT32);
    // SAFETY: the memory has that shape and type, and lives until MLX frees the box.
    let array = unsafe {
        let data = Box::into_raw(data).cast();
        mlx_sys::mlx_array_new_data_managed_payload(memory, shape.as_ptr(), dims, dtype, data, Some(free))
    };
    if array.ctx.is_null() {
        return Err(MlxError::backend(format!("no array {shape:?} could be made")));
    }
    // SAFETY: a new handle, which nobody else frees.
    Ok(unsafe { Array::from_ptr(array) })
}

/// Elements of an array of this shape.
fn elements(shape: &[i32]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?))
}

/// The same numbers in another shape, made at once: for what the host reads next.
pub(super) fn reshaped(mx: &Mlx, array: &Array, shape: &[i32]) -> Result<Array> {
    from_f32(mx, host(mx, array)?, shape)
}

/// `a + b` of one shape, f32, computed at once: for what the host reads next.
pub(super) fn added(mx: &Mlx, a: &Array, b: &Array) -> Result<Array> {
    let (left, right) = (host::<f32>(mx, a)?, host::<f32>(mx, b)?);
    if left.len() != right.len() {
        return Err(MlxError::backend(format!("a sum of {:?} and {:?}", a.shape(), b.shape())));
    }
    from_vec(mx, left.iter().zip(right).map(|(a, b)| a + b).collect(), a.shape())
}

/// An array that holds a copy of `data`, elements of `dtype` in native order.
pub(super) fn from_bytes(_: &Mlx, data: &[u8], shape: &[i32], dtype: Dtype) -> Result<Array> {
    let expected = elements(shape).and_then(|count| count.checked_mul(item_bytes(dtype)));
    if expected != Some(data.len()) {
        let found = data.len();
        return Err(MlxError::backend(format!("{found} bytes do not make an array {shape:?} of {dtype:?}")));
    }
    // SAFETY: `data` holds exactly the bytes of that shape and type, and MLX copies them before it returns.
    Ok(unsafe { Array::from_raw_data(data.as_ptr().cast::<c_void>(), shape, dtype) })
}

/// The memory of an array of a stored plane, as bytes; evaluated first. The array must be row-contiguous.
pub(super) fn bytes<'a>(mx: &Mlx, array: &'a Array) -> Result<&'a [u8]> {
    fn raw<T>(data: &[T]) -> &[u8] {
        // SAFETY: only called with plain numbers, which have no padding; a byte needs no alignment.
        unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), size_of_val(data)) }
    }
    match array.dtype() {
        Dtype::Uint32 => host::<u32>(mx, array).map(raw),
        Dtype::Float16 => host::<half::f16>(mx, array).map(raw),
        Dtype::Bfloat16 => host::<half::bf16>(mx, array).map(raw),
        Dtype::Float32 => host::<f32>(mx, array).map(raw),
        other => Err(MlxError::backend(format!("an array of {other:?} has no place in a KV cache"))),
    }
}

/// How far two arrays of one shape are apart, relative to the second: `|a - b| / |b|` over all elements, in f32.
pub(super) fn distance(mx: &Mlx, a: &Array, b: &Array) -> Result<f32> {
    let floats = |array: &Array| host_contiguous(mx, &array.as_dtype(Dtype::Float32)?);
    let (a, b) = (floats(a)?, floats(b)?);
    let (a, b) = (host::<f32>(mx, &a)?, host::<f32>(mx, &b)?);
    let wrong: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    Ok((wrong / b.iter().map(|b| b * b).sum::<f32>()).sqrt())
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

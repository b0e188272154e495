//! Half-precision access to arrays, as bits.
//!
//! mlx-c offers these four functions only where the C compiler has the types. MLX reads the same bits through its
//! 16-bit integer access, which checks no dtype, so that one serves on every platform.

#![allow(non_camel_case_types, reason = "C's names")]

use crate::{mlx_array, mlx_array_data_uint16, mlx_array_item_uint16};

/// IEEE 754 half precision, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct float16_t(pub u16);

/// bfloat16, as bits.
pub type bfloat16_t = u16;

/// Evaluates `arr`, which holds one float16 element, and writes its bits.
///
/// # Safety
/// `res` is valid for a write and `arr` is a live array.
pub unsafe fn mlx_array_item_float16(res: *mut float16_t, arr: mlx_array) -> ::std::os::raw::c_int {
    // SAFETY: float16_t is transparent over u16; the caller vouches for both.
    unsafe { mlx_array_item_uint16(res.cast(), arr) }
}

/// Evaluates `arr`, which holds one bfloat16 element, and writes its bits.
///
/// # Safety
/// `res` is valid for a write and `arr` is a live array.
pub unsafe fn mlx_array_item_bfloat16(res: *mut bfloat16_t, arr: mlx_array) -> ::std::os::raw::c_int {
    // SAFETY: the caller vouches for both.
    unsafe { mlx_array_item_uint16(res, arr) }
}

/// The elements of a float16 array, null where it is not evaluated.
///
/// # Safety
/// `arr` is a live array; the pointer is valid while it is.
#[must_use]
pub unsafe fn mlx_array_data_float16(arr: mlx_array) -> *const float16_t {
    // SAFETY: float16_t is transparent over u16; the caller vouches for the array.
    unsafe { mlx_array_data_uint16(arr) }.cast()
}

/// The elements of a bfloat16 array, null where it is not evaluated.
///
/// # Safety
/// `arr` is a live array; the pointer is valid while it is.
#[must_use]
pub unsafe fn mlx_array_data_bfloat16(arr: mlx_array) -> *const bfloat16_t {
    // SAFETY: the caller vouches for the array.
    unsafe { mlx_array_data_uint16(arr) }
}

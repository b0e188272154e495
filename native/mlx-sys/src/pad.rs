//! `mlx_pad` as mlx-rs calls it.
//!
//! mlx-rs hands the mode over as `*const i8`. That is C's `char` on x86-64 and on macOS, but on Linux arm64 `char` has no sign and the
//! generated declaration would take `*const u8`. Both point to the same bytes.

use std::os::raw::c_int;

use crate::{mlx_array, mlx_stream};

unsafe extern "C" {
    /// Pads `a`; the declaration of mlx-c but for the type of `mode`.
    pub fn mlx_pad(
        res: *mut mlx_array,
        a: mlx_array,
        axes: *const c_int,
        axes_num: usize,
        low_pad_size: *const c_int,
        low_pad_size_num: usize,
        high_pad_size: *const c_int,
        high_pad_size_num: usize,
        pad_value: mlx_array,
        mode: *const i8,
        s: mlx_stream,
    ) -> c_int;
}

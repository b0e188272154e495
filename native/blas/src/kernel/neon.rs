//! NEON: 32 registers of 4.

use std::arch::aarch64::{
    float32x4_t, vdupq_n_f32, vfmaq_f32, vld1q_f32 as load, vreinterpretq_f32_f64 as floats,
    vreinterpretq_f64_f32 as doubles, vst1q_f32 as store, vtrn1q_f32, vtrn1q_f64, vtrn2q_f32, vtrn2q_f64,
};

use super::{AHEAD, Kernels, Shape};

const LANES: usize = 4;

pub static NEON: Kernels = Kernels {
    lanes: LANES,
    shapes: [
        Shape {
            width: 3 * LANES,
            tiles: &[
                tile::<1, 3>,
                tile::<2, 3>,
                tile::<3, 3>,
                tile::<4, 3>,
                tile::<5, 3>,
                tile::<6, 3>,
                tile::<7, 3>,
                tile::<8, 3>,
            ],
        },
        Shape { width: 6 * LANES, tiles: &[tile::<1, 6>, tile::<2, 6>, tile::<3, 6>, tile::<4, 6>] },
        Shape { width: 12 * LANES, tiles: &[tile::<1, 12>, tile::<2, 12>] },
    ],
    transpose,
};

#[target_feature(enable = "neon")]
#[inline]
fn zero() -> float32x4_t {
    vdupq_n_f32(0.0)
}

#[target_feature(enable = "neon")]
#[inline]
fn splat(x: f32) -> float32x4_t {
    vdupq_n_f32(x)
}

#[target_feature(enable = "neon")]
#[inline]
fn multiply_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    vfmaq_f32(c, a, b)
}

fn prefetch(_: *const f32) {}

tile!(#[target_feature(enable = "neon")]);

#[target_feature(enable = "neon")]
unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller has 4 rows of 4 on both sides.
    unsafe {
        let rows: [float32x4_t; LANES] = std::array::from_fn(|i| load(from.add(i * from_stride)));
        let even = [vtrn1q_f32(rows[0], rows[1]), vtrn1q_f32(rows[2], rows[3])];
        let odd = [vtrn2q_f32(rows[0], rows[1]), vtrn2q_f32(rows[2], rows[3])];
        store(to, floats(vtrn1q_f64(doubles(even[0]), doubles(even[1]))));
        store(to.add(to_stride), floats(vtrn1q_f64(doubles(odd[0]), doubles(odd[1]))));
        store(to.add(2 * to_stride), floats(vtrn2q_f64(doubles(even[0]), doubles(even[1]))));
        store(to.add(3 * to_stride), floats(vtrn2q_f64(doubles(odd[0]), doubles(odd[1]))));
    }
}

//! The inner loops: one tile of a product per call, written once and compiled per instruction set, chosen at run time.
//!
//! Invariant 1: every element of a tile is one chain of multiply-adds over k, in ascending order, starting from zero.
//! Neither the height of a tile, nor its width, nor the element's place in it changes a bit of the element.

use std::sync::OnceLock;

/// Overwrites a tile: `c[h][w]` becomes the sum over k of `a[k][h] * b[k][w]`, for the tile's own height and width.
///
/// `a` is packed, rows of `b` lie `b_stride` apart, rows of `c` lie `c_stride` apart.
pub type Tile =
    unsafe fn(k: usize, a: *const f32, b: *const f32, b_stride: usize, c: *mut f32, c_stride: usize);

/// Transposes a square as wide as a vector, from rows `from_stride` apart to rows `to_stride` apart.
pub type Square = unsafe fn(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);

/// The tallest tile of any instruction set.
pub const MAX_HEIGHT: usize = 12;
/// The widest tile of any instruction set.
pub const MAX_WIDTH: usize = 128;

/// Rows of `b` to ask for ahead of use: the processor foresees no steps of a row's length.
const AHEAD: usize = 16;

/// The kernels of one instruction set.
pub struct Kernels {
    /// Elements in a vector.
    pub lanes: usize,
    /// From the narrowest to the widest. The first has every height up to the tallest.
    pub shapes: [Shape; 3],
    pub transpose: Square,
}

/// Tiles of one width: the tile of height h is at `tiles[h - 1]`.
pub struct Shape {
    pub width: usize,
    pub tiles: &'static [Tile],
}

/// The kernels of this processor.
pub fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(choose)
}

#[cfg(target_arch = "x86_64")]
fn choose() -> &'static Kernels {
    if std::arch::is_x86_feature_detected!("avx512f") {
        &x86::AVX512
    } else if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        &x86::AVX2
    } else {
        &scalar::SCALAR
    }
}

#[cfg(target_arch = "aarch64")]
fn choose() -> &'static Kernels {
    &neon::NEON // part of the base architecture
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn choose() -> &'static Kernels {
    &scalar::SCALAR
}

/// Writes `tile` over the operations in scope (`zero`, `splat`, `load`, `store`, `multiply_add`, `LANES`). A macro,
/// since only what is inside a function that enables an instruction set is compiled for it.
macro_rules! tile {
    ($(#[$feature:meta])?) => {
        $(#[$feature])?
        unsafe fn tile<const HEIGHT: usize, const VECTORS: usize>(
            k: usize,
            mut a: *const f32,
            mut b: *const f32,
            b_stride: usize,
            c: *mut f32,
            c_stride: usize,
        ) {
            // SAFETY: the caller has k packed rows of a, k rows of b, and a tile of c to write.
            unsafe {
                let mut sums = [[zero(); VECTORS]; HEIGHT];
                for _ in 0..k {
                    let mut row = [zero(); VECTORS];
                    for (v, vector) in row.iter_mut().enumerate() {
                        prefetch(b.wrapping_add(AHEAD * b_stride + v * LANES));
                        *vector = load(b.add(v * LANES));
                    }
                    for (h, sums) in sums.iter_mut().enumerate() {
                        let factor = splat(*a.add(h));
                        for (sum, vector) in sums.iter_mut().zip(row) {
                            *sum = multiply_add(factor, vector, *sum);
                        }
                    }
                    a = a.add(HEIGHT);
                    b = b.wrapping_add(b_stride);
                }
                for (h, sums) in sums.iter().enumerate() {
                    for (v, sum) in sums.iter().enumerate() {
                        store(c.add(h * c_stride + v * LANES), *sum);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(not(target_arch = "aarch64"))]
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests {
    use super::Kernels;

    /// How an instruction set multiplies and adds one element.
    type MultiplyAdd = fn(f32, f32, f32) -> f32;

    /// Every instruction set this machine can run.
    fn available() -> Vec<(&'static Kernels, MultiplyAdd)> {
        let mut sets: Vec<(&'static Kernels, MultiplyAdd)> = Vec::new();
        #[cfg(not(target_arch = "aarch64"))]
        sets.push((&super::scalar::SCALAR, |a, b, c| a * b + c));
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            sets.push((&super::x86::AVX2, f32::mul_add));
        }
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") {
            sets.push((&super::x86::AVX512, f32::mul_add));
        }
        #[cfg(target_arch = "aarch64")]
        sets.push((&super::neon::NEON, f32::mul_add));
        sets
    }

    fn numbers(count: usize) -> Vec<f32> {
        (0..=u16::MAX).map(|i| f32::from(i.wrapping_mul(7919)) / 32_768.0 - 1.0).cycle().take(count).collect()
    }

    #[test]
    fn every_tile_is_one_chain_per_element_over_ascending_k() {
        let k = 37;
        for (kernels, multiply_add) in available() {
            for shape in &kernels.shapes {
                assert!(shape.width <= super::MAX_WIDTH && shape.tiles.len() <= super::MAX_HEIGHT);
                for (height, tile) in (1..).zip(shape.tiles) {
                    let (width, gap) = (shape.width, 3);
                    let (a, b) = (numbers(k * height), numbers(k * (width + gap)));
                    let mut c = vec![f32::NAN; height * (width + gap)];
                    // SAFETY: the buffers have a tile's sizes.
                    unsafe { tile(k, a.as_ptr(), b.as_ptr(), width + gap, c.as_mut_ptr(), width + gap) };
                    for h in 0..height {
                        for w in 0..width + gap {
                            let chain =
                                |sum, p| multiply_add(a[p * height + h], b[p * (width + gap) + w], sum);
                            let found = c[h * (width + gap) + w];
                            if w < width {
                                assert_eq!(found.to_bits(), (0..k).fold(0.0, chain).to_bits());
                            } else {
                                assert!(found.is_nan(), "a tile wrote beyond its width");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_square_is_transposed() {
        for (kernels, _) in available() {
            let (lanes, from_stride, to_stride) = (kernels.lanes, kernels.lanes + 5, kernels.lanes + 2);
            let from = numbers(lanes * from_stride);
            let mut to = vec![0.0; lanes * to_stride];
            // SAFETY: the buffers hold as many rows as a vector has elements.
            unsafe { (kernels.transpose)(from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride) };
            for i in 0..lanes {
                for j in 0..lanes {
                    assert_eq!(to[j * to_stride + i].to_bits(), from[i * from_stride + j].to_bits());
                }
            }
        }
    }
}

//! The kernels of each instruction set, chosen at run time.

use std::sync::OnceLock;

use super::cached::VECTORS;
use super::codes::{Brains, Codes, DecodedCodes, DecodedFloats, Floats, Halves, Planes, Singles};
use super::format::{Float, Kind};
use super::tile::{Decode, Part, Tile};
use super::weigh::Seen;

/// The kernels of one instruction set.
pub struct Kernels {
    pub name: &'static str,
    /// For weights in the order of [`index`]: tiles that decode as they multiply, from the lowest up.
    pub stored: [&'static [Shape]; 9],
    /// Up to so many rows, decoding the weights again for each tile is faster than keeping them decoded.
    pub stored_rows: usize,
    /// By the same order as `stored`.
    pub decode: [Decode; 9],
    /// Tiles over decoded codes, from the lowest up.
    pub decoded_codes: &'static [Shape],
    /// Tiles over decoded floats, from the lowest up.
    pub decoded_floats: &'static [Shape],
    /// Activations for products with codes.
    pub whole: Whole,
    /// Tiles over unpacked codes of a cache, from the lowest up.
    pub cached: &'static [Shape],
    /// Scores become weights.
    pub weigh: Weigh,
    /// Weights become whole numbers.
    pub weighted: Weighted,
    /// Unpack 64 vectors of codes of 4 and of 8 bits as keys.
    pub keys: [Unpack; 2],
    /// The same as values.
    pub values: [Unpack; 2],
}

/// Turns 64 scores into weights, relative to the largest that was seen; the result is what sums so far are to be multiplied by.
pub type Weigh = unsafe fn(scores: *mut f32, seen: &mut Seen) -> f32;

/// 64 weights, each times its vector's scale (f16), as whole numbers; their step, and the sum of weights times biases.
pub type Weighted =
    unsafe fn(weights: *const f32, scales: *const u16, biases: *const u16, into: &mut [u16]) -> [f32; 2];

/// Unpacks vectors of `groups` groups of 64 codes. As keys into `[strip][group][pair of codes][16 vectors]`, as values into
/// `[group][strip][pair of vectors][16 codes]`, pairs of 16 bits in the orders that `cached` describes.
pub type Unpack = unsafe fn(rows: &[*const u8; VECTORS], groups: usize, into: *mut u32);

/// A group's activations as whole numbers; their step and their sum.
pub type Whole = unsafe fn(x: &[f32], into: &mut [u16]) -> [f32; 2];

/// A tile and its size.
pub struct Shape {
    pub height: usize,
    pub strips: usize,
    pub tile: Tile,
}

/// Place of a kind of weights in the tables.
pub fn index(kind: Kind) -> usize {
    match kind {
        Kind::Affine(2, _) => 0,
        Kind::Affine(3, _) => 1,
        Kind::Affine(4, _) => 2,
        Kind::Affine(5, _) => 3,
        Kind::Affine(6, _) => 4,
        Kind::Affine(..) => 5,
        Kind::Plain(Float::F16) => 6,
        Kind::Plain(Float::Bf16) => 7,
        Kind::Plain(Float::F32) => 8,
    }
}

/// What the products of this process run on, as people write it.
pub fn instruction_set() -> &'static str {
    kernels().name
}

/// The kernels of this processor.
pub fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available()[0])
}

/// What this processor can run, the fastest first.
pub fn available() -> Vec<&'static Kernels> {
    let mut sets: Vec<&'static Kernels> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") {
            if has!("avx512vnni") {
                sets.push(AVX512_VNNI);
            }
            sets.push(AVX512);
        }
        if has!("avx2") && has!("fma") && has!("f16c") {
            if has!("avxvnni") {
                sets.push(AVX2_VNNI);
            }
            sets.push(AVX2);
        }
    }
    #[cfg(target_arch = "aarch64")]
    sets.push(NEON); // part of the base architecture
    sets.push(PORTABLE);
    sets
}

/// Defines the table of an instruction set: its features, and the strips of tiles by height.
macro_rules! kernels {
    ($table:ident, $name:literal, $module:ident, $simd:ty, [$($feature:meta)?], stored [$($h:literal x $s:literal),*] to $stored_rows:expr, decoded [$($dh:literal x $ds:literal),*]) => {
        mod $module {
            use super::{Brains, Codes, DecodedCodes, DecodedFloats, Floats, Halves, Kernels, Part, Planes, Shape, Singles};
            use super::super::cached::VECTORS;
            use super::super::weigh::Seen;
            use super::super::{tile, unpack, weigh, whole};

            $(#[$feature])?
            unsafe fn codes<C: Codes, const HEIGHT: usize, const STRIPS: usize>(
                part: &Part,
                x: *const u32,
                factors: *const f32,
                y: *mut f32,
            ) {
                // SAFETY: the caller's, who knows the processor.
                unsafe { tile::codes::<$simd, C, HEIGHT, STRIPS>(part, x, factors, y) };
            }

            $(#[$feature])?
            unsafe fn floats<F: Floats, const HEIGHT: usize, const STRIPS: usize>(
                part: &Part,
                x: *const u32,
                _: *const f32,
                y: *mut f32,
            ) {
                // SAFETY: as above.
                unsafe { tile::floats::<$simd, F, HEIGHT, STRIPS>(part, x, y) };
            }

            $(#[$feature])?
            unsafe fn decode_codes<C: Codes>(part: &Part, strip: usize, into: *mut u32) {
                // SAFETY: as above.
                unsafe { tile::decode_codes::<$simd, C>(part, strip, into) };
            }

            $(#[$feature])?
            unsafe fn decode_floats<F: Floats>(part: &Part, strip: usize, into: *mut u32) {
                // SAFETY: as above.
                unsafe { tile::decode_floats::<$simd, F>(part, strip, into) };
            }

            $(#[$feature])?
            unsafe fn whole(x: &[f32], into: &mut [u16]) -> [f32; 2] {
                whole::group(x, into)
            }

            $(#[$feature])?
            unsafe fn weigh(scores: *mut f32, seen: &mut Seen) -> f32 {
                // SAFETY: as above.
                unsafe { weigh::weigh::<$simd>(scores, seen) }
            }

            $(#[$feature])?
            unsafe fn weighted(x: *const f32, scales: *const u16, biases: *const u16, into: &mut [u16]) -> [f32; 2] {
                // SAFETY: as above.
                unsafe { weigh::weighted::<$simd>(x, scales, biases, into) }
            }

            $(#[$feature])?
            unsafe fn keys<const BITS: u32>(rows: &[*const u8; VECTORS], groups: usize, into: *mut u32) {
                // SAFETY: as above.
                unsafe { unpack::keys::<$simd, BITS>(rows, groups, into) };
            }

            $(#[$feature])?
            unsafe fn values<const BITS: u32>(rows: &[*const u8; VECTORS], groups: usize, into: *mut u32) {
                // SAFETY: as above.
                unsafe { unpack::values::<$simd, BITS>(rows, groups, into) };
            }

            struct OfCodes<C>(std::marker::PhantomData<C>);

            impl<C: Codes> OfCodes<C> {
                const STORED: &'static [Shape] =
                    &[$(Shape { height: $h, strips: $s, tile: codes::<C, $h, $s> }),*];
                const DECODED: &'static [Shape] =
                    &[$(Shape { height: $dh, strips: $ds, tile: codes::<C, $dh, $ds> }),*];
            }

            struct OfFloats<F>(std::marker::PhantomData<F>);

            impl<F: Floats> OfFloats<F> {
                const STORED: &'static [Shape] =
                    &[$(Shape { height: $h, strips: $s, tile: floats::<F, $h, $s> }),*];
                const DECODED: &'static [Shape] =
                    &[$(Shape { height: $dh, strips: $ds, tile: floats::<F, $dh, $ds> }),*];
            }

            pub static KERNELS: Kernels = Kernels {
                name: $name,
                stored: [
                    OfCodes::<Planes<2, 0>>::STORED,
                    OfCodes::<Planes<2, 1>>::STORED,
                    OfCodes::<Planes<4, 0>>::STORED,
                    OfCodes::<Planes<4, 1>>::STORED,
                    OfCodes::<Planes<4, 2>>::STORED,
                    OfCodes::<Planes<8, 0>>::STORED,
                    OfFloats::<Halves>::STORED,
                    OfFloats::<Brains>::STORED,
                    OfFloats::<Singles>::STORED,
                ],
                stored_rows: $stored_rows,
                decode: [
                    decode_codes::<Planes<2, 0>>,
                    decode_codes::<Planes<2, 1>>,
                    decode_codes::<Planes<4, 0>>,
                    decode_codes::<Planes<4, 1>>,
                    decode_codes::<Planes<4, 2>>,
                    decode_codes::<Planes<8, 0>>,
                    decode_floats::<Halves>,
                    decode_floats::<Brains>,
                    decode_floats::<Singles>,
                ],
                decoded_codes: OfCodes::<DecodedCodes>::DECODED,
                decoded_floats: OfFloats::<DecodedFloats>::DECODED,
                whole,
                cached: OfCodes::<DecodedCodes>::STORED,
                weigh,
                weighted,
                keys: [keys::<4>, keys::<8>],
                values: [values::<4>, values::<8>],
            };
        }
        pub static $table: &Kernels = &$module::KERNELS;
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(AVX512_VNNI, "AVX-512 VNNI", avx512_vnni, super::super::avx512::Avx512<true>, [target_feature(enable = "avx512f,avx512bw,avx512vnni")],
    stored [1 x 4, 2 x 4, 3 x 4, 4 x 4, 6 x 2, 8 x 2, 12 x 2] to usize::MAX, decoded []);
#[cfg(target_arch = "x86_64")]
kernels!(AVX512, "AVX-512", avx512, super::super::avx512::Avx512<false>, [target_feature(enable = "avx512f,avx512bw")],
    stored [1 x 4, 2 x 4, 3 x 4, 4 x 4, 6 x 2, 8 x 2, 12 x 2] to usize::MAX, decoded []);
#[cfg(target_arch = "x86_64")]
kernels!(AVX2_VNNI, "AVX2 VNNI", avx2_vnni, super::super::avx2::Avx2<true>, [target_feature(enable = "avx2,fma,f16c,avxvnni")],
    stored [1 x 4, 2 x 2, 3 x 2, 4 x 1, 6 x 1] to 24, decoded [2 x 1, 4 x 1, 6 x 1]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX2, "AVX2", avx2, super::super::avx2::Avx2<false>, [target_feature(enable = "avx2,fma,f16c")],
    stored [1 x 4, 2 x 2, 3 x 2, 4 x 1, 6 x 1] to 24, decoded [2 x 1, 4 x 1, 6 x 1]);
#[cfg(target_arch = "aarch64")]
kernels!(NEON, "NEON", neon, super::super::neon::Neon, [],
    stored [1 x 4, 2 x 2, 3 x 2, 4 x 1, 6 x 1] to 24, decoded [2 x 1, 4 x 1, 6 x 1]);
kernels!(PORTABLE, "portable", portable, super::super::simd::Portable, [],
    stored [1 x 1, 2 x 1] to 24, decoded [1 x 1, 2 x 1]);

#[cfg(test)]
mod tests {
    use super::super::format::{Affine, Numbers};
    use super::super::matrix::Matrix;
    use super::super::product::{Target, run};
    use super::available;

    fn word(index: usize) -> u32 {
        let mixed = (index as u32).wrapping_mul(2_654_435_761);
        mixed ^ mixed >> 15
    }

    #[test]
    fn every_instruction_set_computes_the_same_product() {
        let (out, inner, group) = (70, 256, 64);
        let scales: Vec<f32> = (0..out * inner / group).map(|i| (word(i) >> 20) as f32 / 4096.0).collect();
        let biases: Vec<f32> = scales.iter().map(|scale| -3.0 * scale).collect();
        for bits in [2, 3, 4, 5, 6, 8] {
            let codes: Vec<u32> = (0..out * inner * bits / 32).map(word).collect();
            let (scales, biases) = (Numbers::F32(&scales), Numbers::F32(&biases));
            let stored = Affine { codes: &codes, scales, biases, bits, group };
            let Ok(matrix) = Matrix::affine(out, inner, &stored) else { panic!("refused") };
            for rows in [1, 2, 3, 4, 5, 8, 12, 30] {
                let x: Vec<f32> =
                    (0..rows * inner).map(|i| (word(i) >> 16) as f32 / 65_536.0 - 0.5).collect();
                let results: Vec<Vec<f32>> = available()
                    .into_iter()
                    .map(|kernels| {
                        let mut out = vec![f32::NAN; rows * out];
                        run(kernels, &x, &mut [Target { matrix: &matrix, out: &mut out }]);
                        out
                    })
                    .collect();
                let size = results[0].iter().fold(0.0_f32, |size, y| size.max(y.abs()));
                for (kernels, result) in available().into_iter().zip(&results) {
                    for (y, expected) in result.iter().zip(&results[0]) {
                        // One rounding where the instruction set fuses, two where it does not.
                        let near = (y - expected).abs() <= 1e-5 * size;
                        assert!(near, "{}, {bits} bits, {rows} rows: {y}, expected {expected}", kernels.name);
                    }
                }
            }
        }
    }
}

//! Stored vectors unpacked side by side: element `e` of all of them, then element `e + 1`, as a product takes its right
//! operand.
//!
//! Bytes are turned before they become numbers: a quarter of the memory moves, in words of eight, and scales and biases then
//! lie along the vectors. Each number is the same `code * scale + bias` as in [`Side::read`].

use super::simd::Arith;
use super::store::{Encoding, GROUP, Run, Side, half, widen};

/// Vectors that are turned at once: the bytes of a word.
const WORD: usize = 8;

/// Writes element `e` of vector `j` of a run to `out[e * N + column + j]`: `width` elements, at most `N - column` vectors.
#[inline(always)]
pub fn read<F: Arith, const N: usize>(
    side: Side,
    run: Run<'_>,
    width: usize,
    out: &mut [f32],
    column: usize,
) {
    match side.encoding {
        Encoding::Affine8 => affine::<F, N, 8>(side, run, width, out, column),
        Encoding::Affine4 => affine::<F, N, 4>(side, run, width, out, column),
        Encoding::F32 => numbers::<N, 4>(side, run, width, out, column, f32::from_le_bytes),
        Encoding::F16 => numbers::<N, 2>(side, run, width, out, column, |bytes| half(&bytes)),
    }
}

#[inline(always)]
fn numbers<const N: usize, const BYTES: usize>(
    side: Side,
    run: Run<'_>,
    width: usize,
    out: &mut [f32],
    column: usize,
    number: impl Fn([u8; BYTES]) -> f32,
) {
    let vectors = &run.page[side.planes[0] + run.index * width * BYTES..][..run.count * width * BYTES];
    // Reading across and writing along is the faster way round: the vectors lie in the cache already.
    for (e, out) in out.chunks_exact_mut(N).take(width).enumerate() {
        for (out, vector) in out[column..].iter_mut().zip(vectors.chunks_exact(width * BYTES)) {
            if let Some((bytes, _)) = vector[e * BYTES..].split_first_chunk::<BYTES>() {
                *out = number(*bytes);
            }
        }
    }
}

#[inline(always)]
fn affine<F: Arith, const N: usize, const BITS: usize>(
    side: Side,
    run: Run<'_>,
    width: usize,
    out: &mut [f32],
    column: usize,
) {
    let (groups, group_bytes) = (width / GROUP, GROUP * BITS / 8);
    let codes = &run.page[side.planes[0] + run.index * groups * group_bytes..];
    for group in 0..groups {
        let (mut scales, mut biases) = ([0; N], [0; N]);
        side.group_factors(run, groups, group, &mut scales[..run.count], &mut biases[..run.count]);
        let [scales, biases] = [scales, biases].map(|halves| halves.map(widen));
        let mut turned = [[0_u8; N]; GROUP];
        for first in (0..run.count).step_by(WORD) {
            let mut words = [[0_u64; GROUP / 8]; WORD];
            for (j, words) in words.iter_mut().enumerate().take(run.count - first) {
                let vector = &codes[((first + j) * groups + group) * group_bytes..][..group_bytes];
                for (word, bytes) in words.iter_mut().zip(vector.chunks_exact(8)) {
                    *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
                }
            }
            turn(&mut words);
            for (byte, words) in words.iter().enumerate() {
                for (lane, word) in words.iter().enumerate().take(group_bytes / 8) {
                    turned[lane * 8 + byte][first..first + 8].copy_from_slice(&word.to_le_bytes());
                }
            }
        }
        let out = &mut out[group * GROUP * N..][..GROUP * N];
        let whole = column == 0 && run.count == N;
        for (codes, out) in turned.iter().zip(out.chunks_exact_mut(N * 8 / BITS)) {
            for (half, out) in out.chunks_exact_mut(N).enumerate() {
                let number = |j: usize| {
                    let code = if BITS == 8 { codes[j] } else { (codes[j] >> (4 * half)) & 15 };
                    F::fma(f32::from(code), scales[j], biases[j])
                };
                if whole {
                    for (j, out) in out.iter_mut().enumerate() {
                        *out = number(j);
                    }
                } else {
                    for (j, out) in out[column..].iter_mut().take(run.count).enumerate() {
                        *out = number(j);
                    }
                }
            }
        }
    }
}

/// Turns 8 x 8 bytes in every lane: byte `c` of word `r` becomes byte `r` of word `c`.
#[inline(always)]
fn turn<const LANES: usize>(words: &mut [[u64; LANES]; WORD]) {
    for (distance, shift, mask) in
        [(4, 32, 0x0000_0000_ffff_ffff), (2, 16, 0x0000_ffff_0000_ffff), (1, 8, 0x00ff_00ff_00ff_00ff_u64)]
    {
        for low in (0..WORD).filter(|row| row & distance == 0) {
            let (above, below) = words.split_at_mut(low + distance);
            for (above, below) in above[low].iter_mut().zip(&mut below[0]) {
                let swapped = ((*above >> shift) ^ *below) & mask;
                *below ^= swapped;
                *above ^= swapped << shift;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_goes_to_its_place() {
        let byte = |lane: usize, row: usize, column: usize| (lane * 64 + row * 8 + column) as u8;
        let mut words: [[u64; 3]; WORD] = std::array::from_fn(|row| {
            std::array::from_fn(|lane| u64::from_le_bytes(std::array::from_fn(|c| byte(lane, row, c))))
        });
        turn(&mut words);
        for (row, lanes) in words.iter().enumerate() {
            for (lane, word) in lanes.iter().enumerate() {
                assert_eq!(word.to_le_bytes(), std::array::from_fn(|c| byte(lane, c, row)));
            }
        }
    }
}

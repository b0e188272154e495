//! Vectors as a cache stores them: the bytes of planes.
//!
//! Affine codes are MLX's, bit for bit: a group's step is its range by the number of codes, turned so that the end that is further from zero gets
//! a code of its own, and moved a little so that zero does (`quantize` in MLX 0.32's CPU backend).

use half::f16;
use half::slice::HalfFloatSliceExt;
use prefixd_blas::threads;

use super::norm::PARALLEL_ELEMENTS;
use super::simd::{Arith, per_isa};
use super::store::{Encoding, GROUP};

/// Groups of a job.
const PIECE: usize = 64;
/// The least step.
const LEAST: f32 = 1e-7;

/// Planes of `vectors`: numbers are one, affine codes are codes, scales and biases. The length of `vectors` is a multiple of [`GROUP`]
/// for those.
pub fn encode(encoding: Encoding, vectors: &[f32]) -> Vec<Vec<u8>> {
    match encoding {
        Encoding::F32 => vec![vectors.iter().flat_map(|x| x.to_le_bytes()).collect()],
        Encoding::F16 => {
            let mut halves = vec![f16::ZERO; vectors.len()];
            halves.convert_from_f32_slice(vectors);
            vec![halves.iter().flat_map(|x| x.to_le_bytes()).collect()]
        }
        Encoding::Affine8 => affine(vectors, GROUP, eights),
        Encoding::Affine4 => affine(vectors, GROUP / 2, fours),
    }
}

/// Some groups' vectors and where their planes go.
struct Groups<'a> {
    vectors: &'a [f32],
    codes: &'a mut [u8],
    scales: &'a mut [u8],
    biases: &'a mut [u8],
}

fn affine(vectors: &[f32], group_bytes: usize, encode: impl Fn(&mut Groups<'_>) + Sync) -> Vec<Vec<u8>> {
    let groups = vectors.len() / GROUP;
    let mut planes = [group_bytes, 2, 2].map(|bytes| vec![0_u8; groups * bytes]);
    let [codes, scales, biases] = &mut planes;
    let planes_of = codes.chunks_mut(PIECE * group_bytes).zip(scales.chunks_mut(PIECE * 2));
    let mut pieces: Vec<_> = (vectors.chunks(PIECE * GROUP).zip(planes_of).zip(biases.chunks_mut(PIECE * 2)))
        .map(|((vectors, (codes, scales)), biases)| Groups { vectors, codes, scales, biases })
        .collect();
    threads::pieces(vectors.len() >= PARALLEL_ELEMENTS, &mut pieces, 1, |_, piece| {
        piece.iter_mut().for_each(&encode);
    });
    planes.into()
}

per_isa! { fn eights(groups: &mut Groups<'_>) = each_eight }
per_isa! { fn fours(groups: &mut Groups<'_>) = each_four }

#[inline(always)]
fn each_eight<F: Arith, const N: usize>(groups: &mut Groups<'_>) {
    each::<GROUP>(groups, 255.0, |codes, place| *place = *codes);
}

#[inline(always)]
fn each_four<F: Arith, const N: usize>(groups: &mut Groups<'_>) {
    each::<{ GROUP / 2 }>(groups, 15.0, |codes, place| {
        for (place, pair) in place.iter_mut().zip(codes.as_chunks::<2>().0) {
            *place = pair[1] << 4 | pair[0];
        }
    });
}

#[inline(always)]
fn each<const BYTES: usize>(
    groups: &mut Groups<'_>,
    most: f32,
    pack: impl Fn(&[u8; GROUP], &mut [u8; BYTES]),
) {
    let codes = groups.codes.as_chunks_mut::<BYTES>().0.iter_mut();
    let factors =
        groups.scales.as_chunks_mut::<2>().0.iter_mut().zip(groups.biases.as_chunks_mut::<2>().0.iter_mut());
    for ((vector, place), (scale_bytes, bias_bytes)) in
        groups.vectors.as_chunks::<GROUP>().0.iter().zip(codes).zip(factors)
    {
        let mut halves = [f16::ZERO; GROUP];
        halves.convert_from_f32_slice(vector);
        let mut x = [0.0; GROUP];
        halves.convert_to_f32_slice(&mut x);
        let (mut low, mut high) = (x[0], x[0]);
        for x in x {
            low = if x < low { x } else { low };
            high = if x > high { x } else { high };
        }
        let from_low = low.abs() > high.abs();
        let step = ((high - low) / most).max(LEAST);
        let step = if from_low { step } else { -step };
        let edge = if from_low { low } else { high };
        let code = (edge / step).round_ties_even();
        let (scale, bias) = if code == 0.0 { (step, 0.0) } else { (edge / code, edge) };
        let mut split = [0_u8; GROUP];
        for (split, x) in split.iter_mut().zip(x) {
            *split = ((x - bias) / scale).round_ties_even().clamp(0.0, most) as u8;
        }
        pack(&split, place);
        *scale_bytes = f16::from_f32(scale).to_le_bytes();
        *bias_bytes = f16::from_f32(bias).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_the_same_in_one_piece_and_in_many() {
        let vectors: Vec<f32> = (0..2 * PARALLEL_ELEMENTS).map(|i| ((i * 37 % 1013) as f32).sin()).collect();
        for encoding in [Encoding::F32, Encoding::F16, Encoding::Affine8, Encoding::Affine4] {
            let whole = encode(encoding, &vectors);
            let mut parts = vec![Vec::new(); whole.len()];
            for vectors in vectors.chunks(3 * GROUP) {
                for (part, more) in parts.iter_mut().zip(encode(encoding, vectors)) {
                    part.extend(more);
                }
            }
            assert_eq!(whole, parts, "{encoding:?}");
        }
    }
}

//! Stored keys or values of one row and layer, as memory: what the attention kernel reads, in any format.
//!
//! Tokens lie in pages of a fixed number of slots: position `p` is slot `p % tokens` of page `p / tokens`. A page holds
//! planes, each `[kv heads, tokens, …]`, contiguous, little-endian.

use super::simd::Arith;

/// Elements that share a scale and a bias.
pub const GROUP: usize = 64;

/// A row's pages, in order.
#[derive(Clone, Debug)]
pub struct Pages<'a> {
    /// Number of the first page held.
    pub first: usize,
    /// Slots of a page.
    pub tokens: usize,
    /// The pages' memory.
    pub memory: Vec<&'a [u8]>,
}

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// f32.
    F32,
    /// f16.
    F16,
    /// Affine codes of 8 bits, and an f16 scale and bias for each 64: `code * scale + bias`.
    Affine8,
    /// Affine codes of 4 bits, two to a byte, the lower half first.
    Affine4,
}

/// One side (keys or values) of a layer: where in a page its planes begin, in bytes. Numbers are one plane; codes,
/// scales and biases are three.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// How numbers are stored.
    pub encoding: Encoding,
    /// First bytes of the planes.
    pub planes: [usize; 3],
}

/// Neighbouring slots of one head of a page.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The page.
    pub page: &'a [u8],
    /// Index of the first vector: head times the page's slots, plus slot.
    pub index: usize,
    /// Vectors.
    pub count: usize,
}

impl<'a> Pages<'a> {
    /// The slots from `position` on, at most `most`, that lie in one page; `None` when no page holds the position.
    pub fn run(&self, head: usize, position: usize, most: usize) -> Option<Run<'a>> {
        let page = self.memory.get((position / self.tokens).checked_sub(self.first)?)?;
        let slot = position % self.tokens;
        Some(Run { page, index: head * self.tokens + slot, count: most.min(self.tokens - slot) })
    }
}

impl Side {
    /// Writes vector `j` of a run, `width` numbers, to `out[j * stride..]`.
    #[inline(always)]
    pub fn read<F: Arith>(&self, run: Run<'_>, width: usize, out: &mut [f32], stride: usize) {
        match self.encoding {
            Encoding::F32 => self.numbers(run, width, out, stride, f32::from_le_bytes),
            Encoding::F16 => self.numbers(run, width, out, stride, |bytes: [u8; 2]| half(&bytes)),
            Encoding::Affine8 => self.affine::<F, GROUP>(run, width, out, stride, |codes, place| {
                place.copy_from_slice(codes);
            }),
            Encoding::Affine4 => self.affine::<F, { GROUP / 2 }>(run, width, out, stride, |codes, place| {
                for (place, four) in place.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks::<4>().0) {
                    *place = spread(u32::from_le_bytes(*four)).to_le_bytes();
                }
            }),
        }
    }

    #[inline(always)]
    fn numbers<const BYTES: usize>(
        &self,
        run: Run<'_>,
        width: usize,
        out: &mut [f32],
        stride: usize,
        number: impl Fn([u8; BYTES]) -> f32,
    ) {
        let vectors = &run.page[self.planes[0] + run.index * width * BYTES..][..run.count * width * BYTES];
        for (out, vector) in out.chunks_mut(stride).zip(vectors.chunks_exact(width * BYTES)) {
            for (out, bytes) in out.iter_mut().zip(vector.as_chunks().0) {
                *out = number(*bytes);
            }
        }
    }

    /// `split` puts the codes of a group, which take `BYTES` bytes, into a byte each.
    #[inline(always)]
    fn affine<F: Arith, const BYTES: usize>(
        &self,
        run: Run<'_>,
        width: usize,
        out: &mut [f32],
        stride: usize,
        split: impl Fn(&[u8; BYTES], &mut [u8; GROUP]),
    ) {
        let groups = width / GROUP;
        let codes = &run.page[self.planes[0] + run.index * groups * BYTES..][..run.count * groups * BYTES];
        let codes = codes.as_chunks::<BYTES>().0;
        let (mut scales, mut biases) = ([0.0; FACTORS], [0.0; FACTORS]);
        let mut split_codes = [0; GROUP];
        for (index, codes) in codes.iter().enumerate() {
            if index % FACTORS == 0 {
                self.factors(run, groups, index, &mut scales, &mut biases);
            }
            split(codes, &mut split_codes);
            let (scale, bias) = (scales[index % FACTORS], biases[index % FACTORS]);
            let out = &mut out[index / groups * stride + index % groups * GROUP..][..GROUP];
            for (out, code) in out.iter_mut().zip(&split_codes) {
                *out = F::fma(f32::from(*code), scale, bias);
            }
        }
    }

    /// The scales and biases (f16) of group number `group` of each vector of a run.
    #[inline(always)]
    pub fn group_factors(
        &self,
        run: Run<'_>,
        groups: usize,
        group: usize,
        scales: &mut [u16],
        biases: &mut [u16],
    ) {
        for (plane, factors) in [(1, scales), (2, biases)] {
            let begin = self.planes[plane] + (run.index * groups + group) * 2;
            let bytes = run.page[begin..].as_chunks::<2>().0.iter().step_by(groups);
            for (factor, bytes) in factors.iter_mut().zip(bytes) {
                *factor = u16::from_le_bytes(*bytes);
            }
        }
    }

    /// The scales and biases of a run's groups from number `first` on.
    #[inline(always)]
    fn factors(
        &self,
        run: Run<'_>,
        groups: usize,
        first: usize,
        scales: &mut [f32; FACTORS],
        biases: &mut [f32; FACTORS],
    ) {
        let count = (run.count * groups - first).min(FACTORS);
        for (plane, factors) in [(1, scales), (2, biases)] {
            let bytes = &run.page[self.planes[plane] + (run.index * groups + first) * 2..][..count * 2];
            for (factor, bytes) in factors.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *factor = half(bytes);
            }
        }
    }
}

/// Half bytes to bytes, in order.
#[inline(always)]
fn spread(halves: u32) -> u64 {
    let spread = u64::from(halves);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f
}

/// Scales that are read at a time.
const FACTORS: usize = 64;

/// The f16 in two bytes.
#[inline(always)]
pub fn half(bytes: &[u8]) -> f32 {
    widen(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// f16 to f32, exactly, without branches: the exponent is rebased by a multiplication, which subnormals survive.
#[inline(always)]
pub fn widen(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    // 65536 and above can only be infinity or a NaN: put the exponent back to all ones.
    let special = if magnitude >= 65536.0 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | ((bits & 0x8000) << 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, exact) = (widen(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == exact.to_bits() || (ours.is_nan() && exact.is_nan()), "{bits:#06x}");
        }
    }
}

//! Stored keys or values of one row and layer, as memory: what the attention kernel reads, in any format.

use half::f16;

use super::simd::Arith;

/// Elements that share a scale and a bias.
pub const GROUP: usize = 64;

/// One side (keys or values), laid out `[kv heads, capacity, …]`, contiguous.
#[derive(Clone, Copy)]
pub enum Store<'a> {
    /// f32 `[H, C, D]`.
    F32(&'a [f32]),
    /// f16 `[H, C, D]`.
    F16(&'a [f16]),
    /// Affine codes of 8 bits `[H, C, D]`, with f16 scales and biases `[H, C, D / 64]`.
    Affine8(Affine<'a>),
    /// Affine codes of 4 bits, two to a byte, the lower half first.
    Affine4(Affine<'a>),
}

/// Codes and what turns them back into numbers: `code * scale + bias`.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// Codes, little-endian.
    pub codes: &'a [u8],
    /// One for each 64 elements.
    pub scales: &'a [f16],
    /// One for each 64 elements.
    pub biases: &'a [f16],
}

impl Store<'_> {
    /// Writes the `width` numbers of vector `index` (head * capacity + slot) to `out[..width]`.
    #[inline(always)]
    pub fn read<F: Arith>(&self, index: usize, width: usize, out: &mut [f32]) {
        match self {
            Self::F32(data) => out[..width].copy_from_slice(&data[index * width..][..width]),
            Self::F16(data) => {
                for (out, value) in out.iter_mut().zip(&data[index * width..][..width]) {
                    *out = widen(*value);
                }
            }
            Self::Affine8(affine) => {
                let groups = width / GROUP;
                for g in 0..groups {
                    let (scale, bias) = affine.group(index * groups + g);
                    let codes = &affine.codes[index * width + g * GROUP..][..GROUP];
                    for (out, code) in out[g * GROUP..][..GROUP].iter_mut().zip(codes) {
                        *out = F::fma(f32::from(*code), scale, bias);
                    }
                }
            }
            Self::Affine4(affine) => {
                let groups = width / GROUP;
                for g in 0..groups {
                    let (scale, bias) = affine.group(index * groups + g);
                    let codes = &affine.codes[(index * width + g * GROUP) / 2..][..GROUP / 2];
                    for (pair, code) in out[g * GROUP..][..GROUP].chunks_exact_mut(2).zip(codes) {
                        pair[0] = F::fma(f32::from(code & 15), scale, bias);
                        pair[1] = F::fma(f32::from(code >> 4), scale, bias);
                    }
                }
            }
        }
    }
}

impl Affine<'_> {
    #[inline(always)]
    fn group(&self, index: usize) -> (f32, f32) {
        (widen(self.scales[index]), widen(self.biases[index]))
    }
}

/// f16 to f32, exactly, without branches: the exponent is rebased by a multiplication, which subnormals survive.
#[inline(always)]
pub fn widen(value: f16) -> f32 {
    let bits = u32::from(value.to_bits());
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
            let value = f16::from_bits(bits);
            let (ours, exact) = (widen(value), value.to_f32());
            assert!(ours.to_bits() == exact.to_bits() || (ours.is_nan() && exact.is_nan()), "{bits:#06x}");
        }
    }
}

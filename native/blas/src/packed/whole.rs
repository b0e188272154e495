//! Activations as whole numbers: what products with codes take them for.

/// The largest whole number, and its negative the smallest.
pub const LARGEST: f32 = 32_767.0;
/// Groups that are smaller than this throughout count as zero: their step would not be a normal float.
pub const NOTHING: f32 = 1e-30;
/// Added to a float of at most 2^22, this leaves it rounded to nearest, ties to even, in the lowest bits.
pub const ROUNDS: f32 = 12_582_912.0;
const LANES: usize = 16;

/// Writes a group's activations as whole numbers of 16 bits and returns their step, by which the largest is 32,767 of them, and
/// the sum of what the numbers stand for. A group that holds what is no finite number has a step that is none.
///
/// `x` is a multiple of 16 long and at most 128, `into` as long.
#[inline(always)]
pub fn group(x: &[f32], into: &mut [u16]) -> [f32; 2] {
    // The bits of floats without their sign are ordered as the floats are, and what is no number comes last.
    let mut largest = [0_u32; LANES];
    for x in x.chunks_exact(LANES) {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = (*largest).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let largest = f32::from_bits(largest.into_iter().fold(0, u32::max));
    if !largest.is_finite() {
        into.fill(0);
        return [f32::NAN; 2];
    }
    if largest < NOTHING {
        into.fill(0);
        return [0.0; 2];
    }
    let (step, steps) = (largest / LARGEST, LARGEST / largest);
    let mut sums = [0_i32; LANES];
    for (x, into) in x.chunks_exact(LANES).zip(into.chunks_exact_mut(LANES)) {
        for i in 0..LANES {
            let bits = (x[i] * steps + ROUNDS).to_bits();
            into[i] = bits as u16;
            sums[i] += (bits << 16).cast_signed() >> 16;
        }
    }
    // At most 128 * 32,767: a float holds it exactly.
    #[allow(clippy::cast_precision_loss, reason = "said above")]
    let sum = sums.into_iter().sum::<i32>() as f32;
    [step, sum * step]
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "small numbers")]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_the_nearest_and_odd_groups_are_themselves() {
        let x: Vec<f32> = (0..64).map(|i| (i as f32 - 20.0) * 0.37 + 1e-3).collect();
        let mut whole = vec![0; 64];
        let [step, sum] = group(&x, &mut whole);
        let back: Vec<f64> =
            whole.iter().map(|whole| f64::from(whole.cast_signed()) * f64::from(step)).collect();
        for (x, back) in x.iter().zip(&back) {
            assert!((f64::from(*x) - back).abs() <= 0.5001 * f64::from(step), "{x} became {back}");
        }
        assert!((back.iter().sum::<f64>() - f64::from(sum)).abs() < 1e-4);
        let largest = whole.iter().map(|whole| whole.cast_signed().unsigned_abs()).max();
        assert_eq!(largest, Some(32_767));

        for (odd, step) in [(0.0, 0.0), (1e-38, 0.0), (f32::NAN, f32::NAN), (f32::INFINITY, f32::NAN)] {
            let mut x = [0.0; 32];
            x[17] = odd;
            let mut whole = [1; 32];
            assert_eq!(group(&x, &mut whole)[0].to_bits(), step.to_bits(), "{odd}");
            assert_eq!(whole, [0; 32]);
        }
        for size in [1e-29, 3e38] {
            let [step, _] = group(&[size; 16], &mut [0; 16]);
            assert!(step.is_normal(), "{size}");
        }
    }
}

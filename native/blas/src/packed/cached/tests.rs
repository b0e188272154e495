//! Both products and the weights between them, on every instruction set.

use super::super::kernels::available;
use super::super::simd::f16_to_f32;
use super::*;

fn word(index: usize) -> u32 {
    let mixed = (index as u32).wrapping_mul(2_654_435_761);
    mixed ^ mixed >> 15
}

fn number(index: usize) -> f32 {
    (word(index) >> 8) as f32 / 8_388_608.0 - 1.0
}

fn code(bits: Bits, codes: &[u8], element: usize) -> f64 {
    match bits {
        Bits::Four => f64::from(codes[element / 2] >> (element % 2 * 4) & 15),
        Bits::Eight => f64::from(codes[element]),
    }
}

#[test]
fn both_products_are_those_of_the_definition_on_every_instruction_set() {
    for (bits, groups) in [(Bits::Four, 1), (Bits::Eight, 1), (Bits::Eight, 2), (Bits::Four, 3)] {
        let (bytes, width) = (groups * bits.group_bytes(), groups * VECTORS);
        let stored: Vec<u8> = (0..VECTORS * bytes).map(|i| word(i) as u8).collect();
        let codes: [&[u8]; VECTORS] = std::array::from_fn(|j| &stored[j * bytes..][..bytes]);
        // Half floats between 1/2 and 2, of both signs.
        let factors = |salt: usize| -> Vec<[u16; VECTORS]> {
            let half = |i: usize| 0x3800 | word(i) as u16 & 0x87ff;
            (0..groups).map(|g| std::array::from_fn(|j| half(salt + g * VECTORS + j))).collect()
        };
        let (scales, biases) = (factors(7_000), factors(9_000));
        for rows in [1, 2, 3, 5, 8, 13, 30] {
            let x: Vec<f32> = (0..rows * width).map(number).collect();
            let weights: Vec<f32> = (0..rows * VECTORS).map(|i| number(i).abs()).collect();
            let mut all = Vec::new();
            for kernels in available() {
                let (mut left, mut keys) =
                    (Left::of(kernels, rows, groups), Right::of(kernels, bits, groups));
                let mut turned = vec![0.0; x.len()];
                bits.like_keys(&x, &mut turned);
                left.set(&turned);
                keys.set_keys(&codes, &scales, &biases);
                let mut scores = vec![f32::NAN; rows * VECTORS];
                keys.scores(&left, &mut scores);

                let (mut left, mut values) = (Left::of(kernels, rows, 1), Right::of(kernels, bits, groups));
                values.set_values(&codes);
                left.set_weights(&weights, &[ONE; VECTORS], &[0x2c00; VECTORS]);
                let mut sums = vec![1.0; rows * width];
                (0..groups).for_each(|group| values.add_values(group, &left, &mut sums, width));
                let mut ordered = vec![0.0; sums.len()];
                bits.from_values(&sums, &mut ordered);

                for row in 0..rows {
                    for (j, codes) in codes.iter().enumerate() {
                        let exact: f64 = (0..width)
                            .map(|e| {
                                let [scale, bias] =
                                    [&scales, &biases].map(|of| f64::from(f16_to_f32(of[e / VECTORS][j])));
                                f64::from(x[row * width + e]) * (code(bits, codes, e) * scale + bias)
                            })
                            .sum();
                        let found = f64::from(scores[row * VECTORS + j]);
                        assert!(
                            (found - exact).abs() < 0.3,
                            "{bits:?}, score {row} {j}: {found}, not {exact}"
                        );
                    }
                    for e in 0..width {
                        let exact: f64 = (0..VECTORS)
                            .map(|j| f64::from(weights[row * VECTORS + j]) * code(bits, codes[j], e))
                            .sum::<f64>()
                            + 1.0
                            // Each bias is 1/16.
                            + weights[row * VECTORS..][..VECTORS].iter().map(|w| f64::from(*w)).sum::<f64>() / 16.0;
                        let found = f64::from(ordered[row * width + e]);
                        assert!(
                            (found - exact).abs() < 0.3,
                            "{bits:?}, value {row} {e}: {found}, not {exact}"
                        );
                    }
                }
                all.push((kernels.name, scores, sums));
            }
            for (name, scores, sums) in &all {
                // Whole numbers are exact; floats are fused or not.
                let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-2);
                assert!(near(scores, &all[0].1) && near(sums, &all[0].2), "{name}: {bits:?}, {rows} rows");
            }
        }
    }
}

#[test]
fn a_row_is_the_same_beside_any_others() {
    let bits = Bits::Eight;
    let stored: Vec<u8> = (0..VECTORS * 64).map(|i| word(i) as u8).collect();
    let codes: [&[u8]; VECTORS] = std::array::from_fn(|j| &stored[j * 64..][..64]);
    let mut keys = Right::new(bits, 1);
    keys.set_keys(&codes, &[[ONE; VECTORS]], &[[0xc100; VECTORS]]);
    let x: Vec<f32> = (0..40 * VECTORS).map(number).collect();
    let scores = |x: &[f32]| {
        let rows = x.len() / VECTORS;
        let (mut left, mut scores) = (Left::new(rows, 1), vec![0.0; x.len()]);
        left.set(x);
        keys.scores(&left, &mut scores);
        scores
    };
    let alone: Vec<f32> = x.chunks(VECTORS).flat_map(&scores).collect();
    for rows in 1..=40 {
        assert!(scores(&x[..rows * VECTORS]) == alone[..rows * VECTORS], "{rows} rows");
    }
}
#[test]
fn weights_are_those_of_a_softmax_on_every_instruction_set() {
    let scores: [f32; VECTORS] = std::array::from_fn(|j| number(j) * 30.0);
    for kernels in available() {
        let (mut seen, mut weights) = (Seen { max: 12.5, sum: 3.0 }, scores);
        // SAFETY: 64 scores, and kernels that this processor has.
        let grown = unsafe { (kernels.weigh)(weights.as_mut_ptr(), &mut seen) };
        let max = scores.iter().fold(12.5_f32, |max, x| max.max(*x));
        let near = |a: f32, b: f64| (f64::from(a) - b).abs() <= 2e-6 * b.abs().max(1e-30);
        let exact = |x: f32| (f64::from(x) - f64::from(max)).exp();
        assert!(seen.max == max && near(grown, exact(12.5)), "{}: {grown}", kernels.name);
        for (score, weight) in scores.iter().zip(weights) {
            assert!(near(weight, exact(*score)), "{}: {score} weighs {weight}", kernels.name);
        }
        let sum = 3.0 * exact(12.5) + scores.iter().map(|x| exact(*x)).sum::<f64>();
        assert!(near(seen.sum, sum), "{}: {} is not {sum}", kernels.name, seen.sum);
    }
    let (mut seen, mut weights) = (Seen::NOTHING, scores);
    assert!(seen.weigh(&mut weights, 3..3) == 1.0 && weights == [0.0; VECTORS] && seen.sum == 0.0);
    weights = scores;
    assert!(seen.weigh(&mut weights, 3..5) == 0.0);
    assert!(weights.iter().enumerate().all(|(j, weight)| (*weight > 0.0) == (3..5).contains(&j)));
    weights = [f32::NAN; VECTORS];
    seen.weigh(&mut weights, 0..VECTORS);
    assert!(weights.iter().all(|weight| weight.is_nan()));
}

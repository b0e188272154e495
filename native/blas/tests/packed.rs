//! Products with packed weights: right against f64, and a row of the result depends on that row alone.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "tests over small numbers"
)]

use prefixd_blas::packed::{Affine, Matrix, Numbers, Target, product, products};
use prefixd_blas::threads;

const BITS: [usize; 6] = [2, 3, 4, 5, 6, 8];
const GROUPS: [usize; 3] = [32, 64, 128];
const ROWS: [usize; 14] = [1, 2, 3, 4, 5, 7, 8, 12, 13, 24, 25, 31, 61, 300];

struct Random(u32);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 ^ (self.0 >> 15)
    }

    /// About normal: the sum of four.
    fn float(&mut self) -> f32 {
        (0..4).map(|_| (self.word() >> 8) as f32 / 8_388_608.0 - 1.0).sum()
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// The upper half of a float that is not far from 0, and the float it stands for.
fn brain(x: f32) -> (u16, f32) {
    let half = (x.to_bits() >> 16) as u16;
    (half, f32::from_bits(u32::from(half) << 16))
}

/// A matrix with what its weights are.
struct Case {
    matrix: Matrix,
    /// `[out, inner]`, exact.
    weights: Vec<f64>,
    inner: usize,
    name: String,
    codes: bool,
}

fn affine(out: usize, inner: usize, bits: usize, group: usize) -> Case {
    let mut random = Random(7);
    let codes: Vec<u32> = (0..out * inner * bits / 32).map(|_| random.word()).collect();
    let middle = (1 << (bits - 1)) as f32;
    let (mut scales, mut biases) = (Vec::new(), Vec::new());
    for _ in 0..out * inner / group {
        let scale = brain(random.float() / middle);
        // As quantizers choose it: the codes' middle is near zero.
        scales.push(scale);
        biases.push(brain(-scale.1 * (middle + random.float())));
    }
    let code = |index: usize| {
        let bit = index * bits;
        let low = u64::from(codes[bit / 32]) | u64::from(codes.get(bit / 32 + 1).copied().unwrap_or(0)) << 32;
        ((low >> (bit % 32)) & ((1 << bits) - 1)) as f64
    };
    let weight =
        |index: usize| code(index) * f64::from(scales[index / group].1) + f64::from(biases[index / group].1);
    let weights = (0..out * inner).map(weight).collect();
    let halves = |pairs: &[(u16, f32)]| pairs.iter().map(|pair| pair.0).collect::<Vec<_>>();
    let (scales, biases) = (halves(&scales), halves(&biases));
    let stored =
        Affine { codes: &codes, scales: Numbers::Bf16(&scales), biases: Numbers::Bf16(&biases), bits, group };
    let matrix = Matrix::affine(out, inner, &stored).unwrap();
    // The file's bytes; rows are rounded up to strips.
    let file = out.next_multiple_of(16) * (inner * bits / 8 + inner / group * 4);
    assert_eq!(matrix.bytes(), file, "memory of {bits} bits in groups of {group}");
    Case {
        matrix,
        weights,
        inner,
        codes: true,
        name: format!("{bits} bits, groups of {group}, [{out}, {inner}]"),
    }
}

fn plain(out: usize, inner: usize, bits: usize) -> Case {
    let numbers = Random(9).floats(out * inner);
    let halves: Vec<(u16, f32)> = numbers.iter().map(|x| brain(*x)).collect();
    let bits16: Vec<u16> = halves.iter().map(|half| half.0).collect();
    let (matrix, weights): (_, Vec<f32>) = match bits {
        16 => (Matrix::plain(out, inner, Numbers::Bf16(&bits16)), halves.iter().map(|half| half.1).collect()),
        // Any 16 bits are a half float; those with small exponents are subnormal.
        15 => {
            let bits: Vec<u16> = bits16.iter().map(|bits| bits & 0xbfff).collect();
            (Matrix::plain(out, inner, Numbers::F16(&bits)), bits.iter().map(|bits| half(*bits)).collect())
        }
        _ => (Matrix::plain(out, inner, Numbers::F32(&numbers)), numbers),
    };
    let weights = weights.into_iter().map(f64::from).collect();
    Case {
        matrix: matrix.unwrap(),
        weights,
        inner,
        codes: false,
        name: format!("{bits} bits, plain, [{out}, {inner}]"),
    }
}

fn half(bits: u16) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let size = if exponent == 0 {
        mantissa * 2.0_f32.powi(-24)
    } else {
        (1024.0 + mantissa) * 2.0_f32.powi(exponent - 25)
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in BITS {
        cases.extend(GROUPS.map(|group| affine(100, 3 * group, bits, group)));
    }
    cases.extend([affine(1, 64, 4, 64), affine(1000, 1536, 4, 64), affine(777, 1024, 8, 32)]);
    cases.extend([15, 16, 32].map(|bits| plain(70, 100, bits)));
    cases.extend([plain(500, 1024, 16), plain(3, 1, 32)]);
    cases
}

/// The nearest half float to one of usual size.
fn to_half(x: f32) -> f32 {
    let last = 13;
    let even = x.to_bits() >> last & 1;
    f32::from_bits((x.to_bits() + (1 << (last - 1)) - 1 + even) >> last << last)
}

#[test]
fn a_product_is_as_exact_as_a_chain_of_floats_and_with_codes_far_more_than_one_of_halves() {
    for case in cases() {
        let rows = 5;
        let x = Random(3).floats(rows * case.inner);
        let mut y = vec![f32::NAN; rows * case.matrix.out()];
        product(&case.matrix, &x, &mut y);
        let (mut errors, mut size) = ([0.0; 3], 0.0);
        for (x, y) in x.chunks(case.inner).zip(y.chunks(case.matrix.out())) {
            for (weights, y) in case.weights.chunks(case.inner).zip(y) {
                let pairs = || weights.iter().zip(x);
                let exact: f64 = pairs().map(|(w, x)| w * f64::from(*x)).sum();
                // What MLX computes: rounded weights, one chain in single precision, activations of the model's type.
                let chain = pairs().fold(0.0_f32, |sum, (w, x)| sum + *w as f32 * x);
                let halves = pairs().fold(0.0_f32, |sum, (w, x)| sum + *w as f32 * to_half(*x));
                for (error, y) in errors.iter_mut().zip([*y, chain, halves]) {
                    *error += (f64::from(y) - exact).powi(2);
                }
                size += exact.powi(2);
            }
        }
        let [error, chain, halves] = errors.map(|error| (error / size).sqrt());
        let told =
            format!("{}: relative error {error:e}, of a chain {chain:e}, of halves {halves:e}", case.name);
        if case.codes {
            assert!(error < 5e-5 && error * 4.0 < halves, "{told}");
        } else {
            assert!(error < 2e-6 && (case.inner < 1024 || error <= chain), "{told}");
        }
    }
}

#[test]
fn an_activation_far_larger_than_the_others_costs_its_own_group_alone() {
    let case = affine(48, 512, 4, 64);
    let mut x = Random(4).floats(512);
    x[70] = 3000.0;
    let mut y = vec![0.0; 48];
    product(&case.matrix, &x, &mut y);
    for (i, y) in y.iter().enumerate() {
        let weights = &case.weights[i * 512..][..512];
        let exact: f64 = weights.iter().zip(&x).map(|(w, x)| w * f64::from(*x)).sum();
        // The step of that group is 0.09; half floats near 3,000 are 2 apart.
        assert!((f64::from(*y) - exact).abs() < 2.0, "{i}: {y}, exactly {exact}");
    }
    x[70] = f32::NAN;
    product(&case.matrix, &x, &mut y);
    assert!(y.iter().all(|y| y.is_nan()), "what is no number was lost: {y:?}");
}

#[test]
fn a_row_is_the_same_in_any_batch_and_by_any_number_of_threads() {
    for case in cases() {
        let most = ROWS[ROWS.len() - 1];
        let (inner, out) = (case.inner, case.matrix.out());
        let x = Random(5).floats(most * inner);
        let mut alone = vec![0.0; most * out];
        threads::on(1, || {
            for (x, y) in x.chunks(inner).zip(alone.chunks_mut(out)) {
                product(&case.matrix, x, y);
            }
        });
        for count in [1, 2, 3] {
            for rows in ROWS {
                let mut together = vec![f32::NAN; rows * out];
                threads::on(count, || product(&case.matrix, &x[..rows * inner], &mut together));
                let equal = together.iter().zip(&alone).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(
                    equal,
                    "{}: {rows} rows by {count} threads differ from the same rows alone",
                    case.name
                );
            }
        }
    }
}

#[test]
fn products_over_the_same_rows_are_those_of_each_matrix() {
    let cases =
        [affine(100, 256, 4, 64), affine(40, 256, 4, 64), affine(70, 256, 8, 128), plain(33, 256, 16)];
    for rows in [1, 6, 40] {
        let x = Random(1).floats(rows * 256);
        let one_by_one = cases.each_ref().map(|case| {
            let mut y = vec![0.0; rows * case.matrix.out()];
            product(&case.matrix, &x, &mut y);
            y
        });
        let mut together = cases.each_ref().map(|case| vec![f32::NAN; rows * case.matrix.out()]);
        let targets = cases.iter().zip(&mut together).map(|(case, out)| Target { matrix: &case.matrix, out });
        products(&x, &mut targets.collect::<Vec<_>>());
        assert_eq!(one_by_one, together, "{rows} rows");
    }
}

#[test]
fn a_row_of_weights_is_what_the_file_holds() {
    for case in cases() {
        let mut row = vec![f32::NAN; case.inner];
        for (i, weights) in case.weights.chunks(case.inner).enumerate() {
            case.matrix.row(i, &mut row);
            for (k, (found, weight)) in row.iter().zip(weights).enumerate() {
                let distance = (f64::from(*found) - weight).abs();
                assert!(
                    distance <= 4e-7 * (1.0 + weight.abs()),
                    "{}: weight ({i}, {k}) is {found}, not {weight}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let (codes, scales) = (vec![0_u32; 64 * 8], vec![0_u16; 64]);
    let stored = |bits, group| Affine {
        codes: &codes,
        scales: Numbers::F16(&scales),
        biases: Numbers::F16(&scales),
        bits,
        group,
    };
    Matrix::affine(64, 64, &stored(4, 64)).unwrap();
    for (out, inner, bits, group) in
        [(63, 64, 4, 64), (64, 64, 8, 64), (64, 64, 4, 32), (64, 96, 4, 64), (64, 64, 7, 64), (64, 64, 4, 16)]
    {
        let error = Matrix::affine(out, inner, &stored(bits, group)).unwrap_err().to_string();
        assert!(error.contains(&group.to_string()), "{error}");
    }
    let mixed = Affine { biases: Numbers::F32(&[0.0; 64]), ..stored(4, 64) };
    assert!(Matrix::affine(64, 64, &mixed).unwrap_err().to_string().contains("one type"));
    assert!(Matrix::plain(2, 3, Numbers::F32(&[0.0; 5])).is_err());
}

//! Products with codes that a cache holds, 64 vectors at a time: the two products of attention.
//!
//! Vectors are groups of 64 codes of 4 or 8 bits, each group with a scale and a bias: `code * scale + bias`. As keys they are what
//! weights are to a model: activations meet their groups one after the other. As values they are summed, each with a weight,
//! so the 64 vectors are one group, and their scales become part of the weights.
//!
//! Results are those of `tile`'s invariant 1: they depend on a row's own numbers alone.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::format::{Float, STRIP};
use super::kernels::{Kernels, Shape, kernels};
use super::matrix::Line;
use super::tile::{MAX_HEIGHT, MAX_STRIPS, Part};

/// Vectors of a product, and codes of a group.
pub const VECTORS: usize = 64;
/// Strips of 64 outputs.
const STRIPS: usize = VECTORS / STRIP;
/// Pairs of a group.
const PAIRS: usize = VECTORS / 2;

/// 1 as f16.
const ONE: u16 = 0x3c00;

/// What a query has seen so far: the largest score, and the sum of weights relative to it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The largest score.
    pub max: f32,
    /// Sum of `e^(score - max)`.
    pub sum: f32,
}

impl Seen {
    /// Before the first key.
    pub const NOTHING: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Turns the scores of 64 keys into weights relative to the largest score that was seen; those outside `visible` weigh 0. Returns what the sums
    /// so far are to be multiplied by.
    pub fn weigh(&mut self, scores: &mut [f32; VECTORS], visible: Range<usize>) -> f32 {
        if visible.is_empty() {
            scores.fill(0.0);
            return 1.0;
        }
        scores[..visible.start].fill(f32::NEG_INFINITY);
        scores[visible.end..].fill(f32::NEG_INFINITY);
        // SAFETY: 64 scores, and kernels are those of this processor.
        unsafe { (kernels().weigh)(scores.as_mut_ptr(), self) }
    }
}

/// Bits of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// Two codes to a byte, the lower half first.
    Four,
    /// One to a byte.
    Eight,
}

impl Bits {
    /// Bytes of a group.
    pub fn group_bytes(self) -> usize {
        match self {
            Self::Four => VECTORS / 2,
            Self::Eight => VECTORS,
        }
    }

    /// The codes that a word of four bytes holds.
    fn per_word(self) -> usize {
        match self {
            Self::Four => 8,
            Self::Eight => 4,
        }
    }

    /// The element of a key's group that a product meets as number `i`: a word's halves hold every other half of its codes.
    fn key_element(self, i: usize) -> usize {
        let (word, within) = (i / self.per_word(), i % self.per_word());
        word * self.per_word() + within / 2 + within % 2 * self.per_word() / 2
    }

    /// The element of a value's group that a product leaves as number `i`: of every 32 codes of 4 bits, first the lower halves of bytes.
    fn value_element(self, i: usize) -> usize {
        match self {
            Self::Four => i / 32 * 32 + i % STRIP * 2 + i / STRIP % 2,
            Self::Eight => i,
        }
    }

    /// Puts the elements of `x`, `[groups * 64]`, in the order in which products meet keys.
    pub fn like_keys(self, x: &[f32], into: &mut [f32]) {
        for (x, into) in x.chunks_exact(VECTORS).zip(into.chunks_exact_mut(VECTORS)) {
            for (i, into) in into.iter_mut().enumerate() {
                *into = x[self.key_element(i)];
            }
        }
    }

    /// Puts sums, `[groups * 64]`, back in the order of values' elements.
    pub fn from_values(self, sums: &[f32], into: &mut [f32]) {
        for (sums, into) in sums.chunks_exact(VECTORS).zip(into.chunks_exact_mut(VECTORS)) {
            for (i, sum) in sums.iter().enumerate() {
                into[self.value_element(i)] = *sum;
            }
        }
    }
}

/// Rows of activations as whole numbers, in tiles as the kernels take them.
pub struct Left {
    kernels: &'static Kernels,
    rows: usize,
    groups: usize,
    tiles: Vec<Tile>,
    /// `[tile][groups * 32][height]` pairs.
    words: Vec<u32>,
    /// `[tile][groups][2][height]`: steps and sums.
    factors: Vec<f32>,
}

struct Tile {
    first: usize,
    rows: usize,
    shape: &'static Shape,
    /// Heights of the tiles before it.
    before: usize,
}

impl Left {
    /// Room for rows of so many groups of 64.
    pub fn new(rows: usize, groups: usize) -> Self {
        Self::of(kernels(), rows, groups)
    }

    fn of(kernels: &'static Kernels, rows: usize, groups: usize) -> Self {
        let (mut tiles, mut first, mut height) = (Vec::new(), 0, 0);
        let tallest = kernels.cached.last().map_or(1, |shape| shape.height);
        while first < rows {
            let count = (rows - first).min(tallest);
            let Some(shape) = kernels.cached.iter().find(|shape| shape.height >= count) else { break };
            tiles.push(Tile { first, rows: count, shape, before: height });
            (first, height) = (first + count, height + shape.height);
        }
        let words = vec![0; height * groups * PAIRS];
        let factors = vec![0.0; height * groups * 2];
        Self { kernels, rows, groups, tiles, words, factors }
    }

    /// Takes `x`, `[rows, groups * 64]`.
    ///
    /// # Panics
    /// `x` has another size.
    pub fn set(&mut self, x: &[f32]) {
        let width = self.groups * VECTORS;
        assert_eq!(x.len(), self.rows * width, "activations are not {} rows of {width}", self.rows);
        let whole = self.kernels.whole;
        // SAFETY: kernels are those of this processor.
        self.fill(|row, group, numbers| unsafe {
            whole(&x[row * width + group * VECTORS..][..VECTORS], numbers)
        });
    }

    /// `numbers(row, group, into)` writes a group's whole numbers and tells their step and sum.
    fn fill(&mut self, numbers: impl Fn(usize, usize, &mut [u16; VECTORS]) -> [f32; 2]) {
        let pairs = self.groups * PAIRS;
        for tile in &self.tiles {
            let height = tile.shape.height;
            let words = &mut self.words[tile.before * pairs..][..height * pairs];
            let factors = &mut self.factors[tile.before * self.groups * 2..][..height * self.groups * 2];
            for h in 0..tile.rows {
                let groups = words.chunks_exact_mut(PAIRS * height).zip(factors.chunks_exact_mut(2 * height));
                for (group, (words, factors)) in groups.enumerate() {
                    let mut whole = [0; VECTORS];
                    let [step, sum] = numbers(tile.first + h, group, &mut whole);
                    (factors[h], factors[height + h]) = (step, sum);
                    for (words, pair) in words.chunks_exact_mut(height).zip(whole.as_chunks::<2>().0) {
                        words[h] = u32::from(pair[1]) << 16 | u32::from(pair[0]);
                    }
                }
            }
        }
    }

    /// Takes the weights of 64 values, `[rows, 64]`, for one group of theirs, with the values' scales and biases (f16).
    ///
    /// # Panics
    /// These are rows of more groups, or of another size.
    pub fn set_weights(&mut self, weights: &[f32], scales: &[u16; VECTORS], biases: &[u16; VECTORS]) {
        assert!(self.groups == 1 && weights.len() == self.rows * VECTORS, "{} rows of 64 weights", self.rows);
        let weighted = self.kernels.weighted;
        self.fill(|row, _, numbers| {
            let weights = weights[row * VECTORS..][..VECTORS].as_ptr();
            // SAFETY: 64 of each, and kernels are those of this processor.
            unsafe { weighted(weights, scales.as_ptr(), biases.as_ptr(), numbers.as_mut_ptr()) }
        });
    }

    /// `y[row * stride..][..64] += x W` for parts of four strips, or of fewer from the strip on that `part` is given.
    fn add(&self, part: impl Fn(usize) -> Part, y: &mut [f32], stride: usize) {
        let mut memory = [const { MaybeUninit::<[f32; STRIP]>::uninit() }; MAX_HEIGHT * MAX_STRIPS];
        for tile in &self.tiles {
            let Shape { height, strips, tile: kernel } = *tile.shape;
            assert!(height <= MAX_HEIGHT && strips <= MAX_STRIPS);
            for strip in (0..STRIPS).step_by(strips) {
                let part = part(strip);
                let columns = |row: usize| (tile.first + row) * stride + strip * STRIP;
                for (row, sums) in memory.chunks_exact_mut(strips).take(height).enumerate() {
                    let from = if row < tile.rows { &y[columns(row)..][..strips * STRIP] } else { &[] };
                    let zeros = std::iter::repeat(&[0.0; STRIP]);
                    for (sums, from) in sums.iter_mut().zip(from.as_chunks::<STRIP>().0.iter().chain(zeros)) {
                        sums.write(*from);
                    }
                }
                let (words, factors) = (tile.before * self.groups * PAIRS, tile.before * self.groups * 2);
                // SAFETY: the tile's rows and factors, a part over their groups, and a tile of this shape.
                unsafe {
                    let (x, factors) = (self.words.as_ptr().add(words), self.factors.as_ptr().add(factors));
                    kernel(&part, x, factors, memory.as_mut_ptr().cast());
                }
                for (row, sums) in memory.chunks_exact(strips).take(tile.rows).enumerate() {
                    let to = y[columns(row)..][..strips * STRIP].as_chunks_mut::<STRIP>().0;
                    for (to, sums) in to.iter_mut().zip(sums) {
                        // SAFETY: written above, and by the kernel.
                        *to = unsafe { sums.assume_init() };
                    }
                }
            }
        }
    }
}

/// Codes of 64 vectors, unpacked for one of the two products.
pub struct Right {
    kernels: &'static Kernels,
    bits: Bits,
    groups: usize,
    lines: Vec<Line>,
    /// `[strip][group][2][16]`, f16: scales and biases of keys, ones for values.
    factors: Vec<u16>,
}

impl Right {
    /// Room for vectors of so many groups.
    pub fn new(bits: Bits, groups: usize) -> Self {
        Self::of(kernels(), bits, groups)
    }

    fn of(kernels: &'static Kernels, bits: Bits, groups: usize) -> Self {
        let lines = vec![Line::ZERO; groups * STRIPS * PAIRS];
        Self { kernels, bits, groups, lines, factors: vec![ONE; groups * 2 * VECTORS] }
    }

    fn rows(&self, codes: &[&[u8]; VECTORS]) -> [*const u8; VECTORS] {
        let bytes = self.groups * self.bits.group_bytes();
        assert!(codes.iter().all(|codes| codes.len() >= bytes), "vectors of {bytes} bytes of codes expected");
        codes.map(<[u8]>::as_ptr)
    }

    /// Unpacks codes as keys, with scales and biases (f16) by group.
    ///
    /// # Panics
    /// A vector has fewer groups.
    pub fn set_keys(
        &mut self,
        codes: &[&[u8]; VECTORS],
        scales: &[[u16; VECTORS]],
        biases: &[[u16; VECTORS]],
    ) {
        let (rows, groups) = (self.rows(codes), self.groups);
        assert!(scales.len() == groups && biases.len() == groups, "a scale and a bias for each group");
        // SAFETY: rows of these groups, room for all of them, and kernels of this processor.
        unsafe {
            (self.kernels.keys[self.bits as usize])(&rows, groups, self.lines.as_mut_ptr().cast());
        }
        for (g, (scales, biases)) in scales.iter().zip(biases).enumerate() {
            for strip in 0..STRIPS {
                let factors = &mut self.factors[(strip * groups + g) * 2 * STRIP..][..2 * STRIP];
                factors[..STRIP].copy_from_slice(&scales[strip * STRIP..][..STRIP]);
                factors[STRIP..].copy_from_slice(&biases[strip * STRIP..][..STRIP]);
            }
        }
    }

    /// Unpacks codes as values.
    ///
    /// # Panics
    /// A vector has fewer groups.
    pub fn set_values(&mut self, codes: &[&[u8]; VECTORS]) {
        let rows = self.rows(codes);
        // SAFETY: as above.
        unsafe {
            (self.kernels.values[self.bits as usize])(&rows, self.groups, self.lines.as_mut_ptr().cast());
        }
    }

    /// `[rows, 64]`: each row's product with each key.
    ///
    /// # Panics
    /// `queries` have other groups, or there is not this much room.
    pub fn scores(&self, queries: &Left, scores: &mut [f32]) {
        assert_eq!(queries.groups, self.groups, "groups of queries and keys");
        scores.fill(0.0);
        let groups = self.groups;
        queries.add(|strip| self.part(strip, |strip| strip * groups, groups), scores, VECTORS);
    }

    /// Adds to `sums[row * stride + group * 64..]` the sum of the group's codes, each times its vector's weight, and of the row's
    /// own sum: elements in the order of [`Bits::from_values`].
    ///
    /// # Panics
    /// `weights` are not of one group, or there is no such group, or not this much room.
    pub fn add_values(&self, group: usize, weights: &Left, sums: &mut [f32], stride: usize) {
        assert!(weights.groups == 1 && group < self.groups, "weights of one group, for one that there is");
        let sums = &mut sums[group * VECTORS..];
        weights.add(|strip| self.part(strip, |strip| group * STRIPS + strip, 1), sums, stride);
    }

    /// `groups` groups of the strips from `strip` on, whose first group is number `first` among all.
    fn part(&self, strip: usize, first: impl Fn(usize) -> usize, groups: usize) -> Part {
        let (mut weights, mut scales) = ([std::ptr::null(); MAX_STRIPS], [std::ptr::null(); MAX_STRIPS]);
        for (s, (weights, scales)) in weights.iter_mut().zip(&mut scales).enumerate() {
            let first = first((strip + s).min(STRIPS - 1));
            *weights = self.lines[first * PAIRS..].as_ptr().cast();
            *scales = self.factors[first * 2 * STRIP..].as_ptr().cast();
        }
        Part {
            weights,
            weights_stride: PAIRS * Line::BYTES,
            scales,
            scales_stride: 2 * STRIP * size_of::<u16>(),
            scaled: Float::F16,
            groups,
            group: VECTORS,
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, clippy::float_cmp, reason = "small numbers, and equal ones")]
mod tests {
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

                    let (mut left, mut values) =
                        (Left::of(kernels, rows, 1), Right::of(kernels, bits, groups));
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
                                    let [scale, bias] = [&scales, &biases]
                                        .map(|of| f64::from(f16_to_f32(of[e / VECTORS][j])));
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
                    assert!(
                        near(scores, &all[0].1) && near(sums, &all[0].2),
                        "{name}: {bits:?}, {rows} rows"
                    );
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
}

//! Products with codes that a cache holds, 64 vectors at a time: the two products of attention.
//!
//! Vectors are groups of 64 codes of 4 or 8 bits, each group with a scale and a bias: `code * scale + bias`. As keys they are what
//! weights are to a model: activations meet their groups one after the other. As values they are summed, each with a weight,
//! so the 64 vectors are one group, and their scales become part of the weights.
//!
//! Results are those of `tile`'s invariant 1: they depend on a row's own numbers alone.

use std::mem::MaybeUninit;

use super::format::{Float, STRIP};
use super::kernels::{Kernels, Shape, kernels};
use super::matrix::Line;
use super::rows::put;
use super::tile::{MAX_HEIGHT, MAX_STRIPS, Part};
pub use super::weigh::Seen;

/// Vectors of a product, and codes of a group.
pub const VECTORS: usize = 64;
/// Strips of 64 outputs.
const STRIPS: usize = VECTORS / STRIP;
/// Pairs of a group.
const PAIRS: usize = VECTORS / 2;

/// 1 as f16.
const ONE: u16 = 0x3c00;

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
    /// `[tile][groups][2][height]`: steps and sums, as bits.
    factors: Vec<u32>,
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
        let factors = vec![0; height * groups * 2];
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
                    let told = numbers(tile.first + h, group, &mut whole);
                    put(&whole, told, h, height, words, factors);
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
            unsafe { weighted(weights, scales.as_ptr(), biases.as_ptr(), numbers) }
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
                    kernel(&part, x, factors.cast(), memory.as_mut_ptr().cast());
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
mod tests;

//! One weight matrix, `[out, inner]`, in memory of its own.

use super::format::{Affine, Float, Kind, Layout, Numbers, STRIP, ShapeError};
use super::pack;
use super::simd::{bf16_to_f32, f16_to_f32};
use super::tile::{MAX_STRIPS, Part};
use crate::threads;

/// Weights of a row that lie together where the format has no groups.
const PLAIN_GROUP: usize = 64;

/// A weight matrix in strips. Holds the bytes of its codes, scales and biases, and nothing else.
pub struct Matrix {
    out: usize,
    inner: usize,
    layout: Layout,
    strips: Vec<Line>,
}

/// What memory is made of: a cache line, so that no vector crosses one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

impl Line {
    pub const BYTES: usize = 64;
    pub const ZERO: Self = Self([0; 64]);
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix([{}, {}], {:?})", self.out, self.inner, self.layout)
    }
}

impl Matrix {
    /// Repacks `[out, inner]` codes.
    ///
    /// # Errors
    /// The parts do not have these sizes, or bits and groups are none that there are kernels for.
    pub fn affine(out: usize, inner: usize, stored: &Affine<'_>) -> Result<Self, ShapeError> {
        let Affine { bits, group, .. } = *stored;
        if !matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) || !matches!(group, 32 | 64 | 128) {
            return Err(ShapeError(format!("no kernels for {bits} bits in groups of {group}")));
        }
        if !inner.is_multiple_of(group) {
            return Err(ShapeError(format!("rows of {inner} are not made of groups of {group}")));
        }
        let (scales, biases) = (stored.scales.len(), stored.biases.len());
        let found = [stored.codes.len(), scales, biases];
        let expected = [out * inner * bits / 32, out * inner / group, out * inner / group];
        if found != expected || stored.scales.float() != stored.biases.float() {
            return Err(ShapeError(format!(
                "[{out}, {inner}] of {bits} bits in groups of {group}: found {found:?} codes, scales and biases, expected \
                 {expected:?}, and scales and biases of one type"
            )));
        }
        let layout = Layout { kind: Kind::Affine(bits, stored.scales.float()), group };
        let mut matrix = Self::empty(out, inner, layout);
        matrix.fill(|strip, memory| pack::affine(stored, [out, inner], strip, memory));
        Ok(matrix)
    }

    /// Repacks `[out, inner]` floats.
    ///
    /// # Errors
    /// There are more or fewer.
    pub fn plain(out: usize, inner: usize, stored: Numbers<'_>) -> Result<Self, ShapeError> {
        if stored.len() != out * inner {
            return Err(ShapeError(format!("{} numbers for a matrix [{out}, {inner}]", stored.len())));
        }
        let layout = Layout { kind: Kind::Plain(stored.float()), group: PLAIN_GROUP };
        let mut matrix = Self::empty(out, inner, layout);
        matrix.fill(|strip, memory| pack::plain(stored, [out, inner], strip, memory));
        Ok(matrix)
    }

    fn empty(out: usize, inner: usize, layout: Layout) -> Self {
        let bytes = out.div_ceil(STRIP) * inner.div_ceil(layout.group) * layout.group_bytes();
        Self { out, inner, layout, strips: vec![Line::ZERO; bytes / Line::BYTES] }
    }

    fn fill(&mut self, pack: impl Fn(usize, &mut [u8]) + Sync) {
        let lines = self.strip_bytes() / Line::BYTES;
        threads::pieces(true, &mut self.strips, lines.max(1), |strip, lines| {
            // SAFETY: a line is 64 bytes, all of them initialized, and has no other use meanwhile.
            let memory =
                unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) };
            pack(strip, memory);
        });
    }

    /// Number of outputs.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Number of inputs.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(self.strips.as_slice())
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Number of strips.
    pub(super) fn strips(&self) -> usize {
        self.out.div_ceil(STRIP)
    }

    /// Number of groups in a row.
    pub(super) fn groups(&self) -> usize {
        self.inner.div_ceil(self.layout.group)
    }

    fn strip_bytes(&self) -> usize {
        self.groups() * self.layout.group_bytes()
    }

    fn memory(&self) -> *const u8 {
        self.strips.as_ptr().cast()
    }

    /// Groups `groups` of the strips from `strip` on.
    pub(super) fn part(&self, strip: usize, groups: std::ops::Range<usize>) -> Part {
        let layout = self.layout;
        let last = self.strips() - 1;
        let mut weights = [std::ptr::null(); MAX_STRIPS];
        for (s, weights) in weights.iter_mut().enumerate() {
            let at = (strip + s).min(last) * self.strip_bytes() + groups.start * layout.group_bytes();
            *weights = self.memory().wrapping_add(at);
        }
        let scaled = match layout.kind {
            Kind::Affine(_, float) => float,
            Kind::Plain(_) => Float::F32,
        };
        Part {
            weights,
            weights_stride: layout.group_bytes(),
            scales: weights.map(|weights| weights.wrapping_add(layout.weight_bytes())),
            scales_stride: layout.group_bytes(),
            scaled,
            groups: groups.len(),
            group: layout.group,
        }
    }

    /// Writes the weights of output `row`, `code * scale + bias` in two roundings as MLX decodes them.
    ///
    /// # Panics
    /// There is no such row, or `into` does not have the length of one.
    pub fn row(&self, row: usize, into: &mut [f32]) {
        assert!(
            row < self.out && into.len() == self.inner,
            "row {row} of {self:?} into {} numbers",
            into.len()
        );
        let (layout, lane) = (self.layout, row % STRIP);
        // SAFETY: the strips are initialized bytes.
        let memory = unsafe { std::slice::from_raw_parts(self.memory(), self.bytes()) };
        let strip = &memory[row / STRIP * self.strip_bytes()..][..self.strip_bytes()];
        for (into, group) in into.chunks_mut(layout.group).zip(strip.chunks_exact(layout.group_bytes())) {
            let (weights, scales) = group.split_at(layout.weight_bytes());
            match layout.kind {
                Kind::Plain(float) => {
                    for (k, into) in into.iter_mut().enumerate() {
                        *into = number(weights, k * STRIP + lane, float);
                    }
                }
                Kind::Affine(bits, float) => {
                    let (scale, bias) = (number(scales, lane, float), number(scales, STRIP + lane, float));
                    for (k, into) in into.iter_mut().enumerate() {
                        *into = code(weights, layout.group, bits, k, lane) as f32 * scale + bias;
                    }
                }
            }
        }
    }
}

fn number(bytes: &[u8], index: usize, float: Float) -> f32 {
    let half = |index: usize| u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]);
    match float {
        Float::F32 => f32::from_bits(word(bytes, index)),
        Float::F16 => f16_to_f32(half(index)),
        Float::Bf16 => bf16_to_f32(half(index)),
    }
}

fn word(bytes: &[u8], index: usize) -> u32 {
    let at = 4 * index;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The code of a lane.
fn code(weights: &[u8], group: usize, bits: usize, k: usize, lane: usize) -> u32 {
    let (low, high) = pack::planes(bits);
    let find = |at: usize, bits: usize| {
        let (per_word, pair) = (32 / bits, k % (32 / bits) / 2);
        word(weights, at + k / per_word * STRIP + lane) >> (k % 2 * 16 + pair * bits) & ((1 << bits) - 1)
    };
    let upper = if high == 0 { 0 } else { find(group * low / 32 * STRIP, high) };
    upper << low | find(0, low)
}

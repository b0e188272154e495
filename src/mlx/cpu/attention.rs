//! Attention of new queries over stored keys and values, in tiles, without ever holding all scores.
//!
//! 1. Tiles of [`KEYS`] keys start at absolute positions that are multiples of [`KEYS`]; a query folds the tiles it can
//!    see in ascending order. So its result does not depend on the chunk it came in, on its neighbours, on where the
//!    storage begins, or on the number of threads.
//! 2. A query at position `p` sees keys `first(p)..=p`, where `first` is 0 or, with a window of `w`, `p + 1 - w`.
//! 3. Keys outside that range weigh exactly 0, and a tile without a visible key changes nothing.
//!
//! The running softmax over tiles follows Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).

mod codes;

use std::ops::Range;

use prefixd_blas::packed::cached::{Bits, Seen};
use prefixd_blas::threads;

use super::columns;
use super::gemm::{Matrix, Start, product};
use super::simd::{Arith, exp, per_isa};
use super::store::{Pages, Run, Side};
use codes::fold as fold_codes;

/// Keys per tile.
const KEYS: usize = 64;
/// Query vectors per unit of work, about: enough to make up for unpacking a tile, few enough to stay in the cache.
const UNIT_VECTORS: usize = 96;
/// Products of scores below which waking a second thread costs more than it saves.
const PARALLEL_FROM: usize = 1 << 17;
/// The value's width is padded to this, so that every register tile is whole.
const PAD: usize = 32;

/// One row's stored keys and values, and where its queries are.
#[derive(Clone)]
pub struct Row<'a> {
    /// What it has stored.
    pub pages: Pages<'a>,
    /// Absolute position of the row's first query. All queries' own keys are stored already.
    pub position: usize,
    /// Number of queries.
    pub tokens: usize,
}

/// Shapes that all rows share.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a query and a key.
    pub head_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// A key is the value, followed by what `keys` has of it.
    pub joined: bool,
    /// Keys a query sees, itself included; `None` for all before it.
    pub window: Option<usize>,
    /// Scores are multiplied by this.
    pub scale: f32,
    /// Of each query head, the score of a key that every query sees and whose value is 0.
    pub sinks: Option<&'a [f32]>,
    /// Keys in a page.
    pub keys: Side,
    /// Values in a page.
    pub values: Side,
}

/// One unit of work: some queries of one row that share a key head.
#[derive(Clone, Copy)]
struct Unit {
    row: usize,
    /// Index of the row's first query vector among all rows' elements.
    base: usize,
    kv_head: usize,
    /// First query, counted from the row's first.
    first: usize,
    queries: usize,
}

struct Task<'a> {
    shape: Shape<'a>,
    row: &'a Row<'a>,
    unit: Unit,
    /// `[tokens, heads, head_dim]` of this row.
    queries: &'a [f32],
}

/// `out[token, head, value_dim] = softmax(scale * q k^T) v` for queries `[token, head, head_dim]`, row by row.
pub fn attend(shape: Shape<'_>, rows: &[Row<'_>], queries: &[f32], out: &mut [f32]) {
    let Shape { heads, kv_heads, head_dim, value_dim, window, .. } = shape;
    let (repeats, token_size) = (shape.repeats(), heads * head_dim);
    let tokens: usize = rows.iter().map(|row| row.tokens).sum();
    assert_eq!(queries.len(), tokens * token_size, "queries are not [tokens, heads, head_dim]");
    assert_eq!(out.len(), tokens * heads * value_dim, "the result is not [tokens, heads, value_dim]");
    let longest = rows.iter().map(|row| row.tokens).max().unwrap_or(0);
    let step = UNIT_VECTORS.div_ceil(repeats).min(longest.max(1));
    let (mut units, mut base, mut products) = (Vec::new(), 0, 0);
    for (number, row) in rows.iter().enumerate() {
        for kv_head in 0..kv_heads {
            for first in (0..row.tokens).step_by(step) {
                units.push(Unit { row: number, base, kv_head, first, queries: step.min(row.tokens - first) });
            }
        }
        base += row.tokens * token_size;
        let keys = row.position + row.tokens;
        products += keys.min(window.unwrap_or(keys) + row.tokens) * row.tokens * token_size;
    }
    let task = |unit: &Unit| Task {
        shape,
        row: &rows[unit.row],
        unit: *unit,
        queries: &queries[unit.base..][..rows[unit.row].tokens * token_size],
    };
    // Each unit's result is gathered apart and then placed: its heads lie strided among the others'.
    let size = step * repeats * value_dim;
    let mut results = vec![0.0_f32; units.len() * size];
    let codes = codes::bits(shape.keys).zip(codes::bits(shape.values)).filter(|_| !shape.joined);
    let work = |i: usize, result: &mut [f32]| match codes {
        Some((keys, values)) => unit_over_codes(&task(&units[i]), [keys, values], result),
        None => unit_of_work(&task(&units[i]), result),
    };
    threads::pieces(products >= PARALLEL_FROM, &mut results, size, work);
    for (result, unit) in results.chunks(size).zip(&units) {
        let vectors = result.chunks(repeats * value_dim).take(unit.queries);
        for (t, vector) in vectors.enumerate() {
            let vector_number = unit.base / head_dim + (unit.first + t) * heads + unit.kv_head * repeats;
            let at = vector_number * value_dim;
            out[at..][..vector.len()].copy_from_slice(vector);
        }
    }
}

per_isa! {
    /// Computes one unit: `result` is `[queries, repeats, value_dim]`.
    fn unit_of_work(task: &Task<'_>, result: &mut [f32]) = fold_tiles
}
per_isa! {
    /// The same over codes of these bits, keys' and values'.
    fn unit_over_codes(task: &Task<'_>, bits: [Bits; 2], result: &mut [f32]) = fold_codes
}

impl Shape<'_> {
    /// Query heads of a key head.
    fn repeats(&self) -> usize {
        self.heads / self.kv_heads
    }
}

impl<'a> Task<'a> {
    /// Query vectors of the unit.
    fn vectors(&self) -> usize {
        self.unit.queries * self.shape.repeats()
    }

    /// They times the scale, `[queries, repeats, head_dim]`.
    fn scaled_queries(&self) -> Vec<f32> {
        let Self { shape, unit, queries, .. } = self;
        let (d, repeats) = (shape.head_dim, shape.repeats());
        let mut scaled = vec![0.0_f32; self.vectors() * d];
        for (i, vector) in scaled.chunks_exact_mut(d).enumerate() {
            let (t, head) = (unit.first + i / repeats, unit.kv_head * repeats + i % repeats);
            for (scaled, q) in vector.iter_mut().zip(&queries[(t * shape.heads + head) * d..][..d]) {
                *scaled = q * shape.scale;
            }
        }
        scaled
    }

    /// Absolute position of query number `t` of the unit.
    fn position(&self, t: usize) -> usize {
        self.row.position + self.unit.first + t
    }

    /// Position of the first key that a query at `position` sees.
    fn visible_from(&self, position: usize) -> usize {
        self.shape.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The tiles that the unit's queries see.
    fn tiles(&self) -> Range<usize> {
        self.visible_from(self.position(0)) / KEYS..self.position(self.unit.queries).div_ceil(KEYS)
    }

    /// The keys of a tile that vector `i` sees.
    fn visible(&self, tile: usize, i: usize) -> Range<usize> {
        let position = self.position(i / self.shape.repeats());
        let of_tile = |position: usize| position.saturating_sub(tile * KEYS).min(KEYS);
        of_tile(self.visible_from(position))..of_tile(position + 1)
    }

    /// Hands over a tile's stored vectors in order, each run with its place in the tile; `None` where one is not there.
    #[inline(always)]
    fn runs(&self, tile: usize, mut take: impl FnMut(Option<Run<'a>>, usize)) {
        let mut at = 0;
        while at < KEYS {
            let position = tile * KEYS + at;
            let most = self.position(self.unit.queries).saturating_sub(position).min(KEYS - at);
            let run = self.row.pages.run(self.unit.kv_head, position, most).filter(|run| run.count > 0);
            take(run, at);
            at += run.map_or(1, |run| run.count);
        }
    }
}

#[inline(always)]
fn fold_tiles<F: Arith, const N: usize>(task: &Task<'_>, result: &mut [f32]) {
    let shape = task.shape;
    let (d, value_dim, vectors) = (shape.head_dim, shape.value_dim, task.vectors());
    let padded = value_dim.next_multiple_of(PAD);

    let scaled = task.scaled_queries();
    let mut keys = vec![0.0_f32; d * KEYS];
    let mut values = vec![0.0_f32; KEYS * padded];
    let mut scores = vec![0.0_f32; vectors * KEYS];
    let mut sums = vec![0.0_f32; vectors * padded];
    let mut seen = vec![Seen::NOTHING; vectors];

    for tile in task.tiles() {
        // Keys that are not there, and their values, are 0: they weigh nothing.
        task.runs(tile, |run, j| {
            let value = &mut values[j * padded..][..run.map_or(1, |run| run.count) * padded];
            if let Some(run) = run {
                let (shared, own) = keys.split_at_mut(if shape.joined { value_dim * KEYS } else { 0 });
                if shape.joined {
                    columns::read::<F, KEYS>(shape.values, run, value_dim, shared, j);
                }
                columns::read::<F, KEYS>(shape.keys, run, own.len() / KEYS, own, j);
                shape.values.read::<F>(run, value_dim, value, padded);
            } else {
                keys.chunks_exact_mut(KEYS).for_each(|elements| elements[j] = 0.0);
                value.fill(0.0);
            }
        });
        let left = Matrix { data: &scaled, stride: d };
        let right = Matrix { data: &keys, stride: KEYS };
        product::<F, N>([vectors, KEYS, d], left, right, &mut scores, KEYS, Start::Zero);
        for (i, weights) in scores.as_chunks_mut::<KEYS>().0.iter_mut().enumerate() {
            let grown = seen[i].weigh(weights, task.visible(tile, i));
            for sum in &mut sums[i * padded..][..padded] {
                *sum *= grown;
            }
        }
        let left = Matrix { data: &scores, stride: KEYS };
        let right = Matrix { data: &values, stride: padded };
        product::<F, N>([vectors, padded, KEYS], left, right, &mut sums, padded, Start::Result);
    }
    finish::<F>(task, &seen, &sums, padded, result);
}

/// Divides each vector's sums, `[vectors, stride]`, by the sum of its weights.
#[inline(always)]
fn finish<F: Arith>(task: &Task<'_>, seen: &[Seen], sums: &[f32], stride: usize, result: &mut [f32]) {
    let Task { shape, unit, .. } = task;
    let repeats = shape.repeats();
    for (i, out) in result.chunks_exact_mut(shape.value_dim).take(seen.len()).enumerate() {
        let Seen { max: old, sum } = seen[i];
        let inverse = match shape.sinks {
            None => 1.0 / sum,
            Some(sinks) => {
                let sink = sinks[unit.kv_head * repeats + i % repeats];
                let max = if sink > old { sink } else { old };
                let grown = exp::<F>(old - max);
                grown / F::fma(sum, grown, exp::<F>(sink - max))
            }
        };
        for (out, sum) in out.iter_mut().zip(&sums[i * stride..]) {
            // Adding 0 turns -0 into 0: the one bit in which weightless keys could show.
            *out = sum * inverse + 0.0;
        }
    }
}

#[cfg(test)]
mod tests;

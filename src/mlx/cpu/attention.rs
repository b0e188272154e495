//! Attention of new queries over stored keys and values, in tiles, without ever holding all scores.
//!
//! 1. Tiles of [`KEYS`] keys start at absolute positions that are multiples of [`KEYS`]; a query folds the tiles it can
//!    see in ascending order. So its result does not depend on the chunk it came in, on its neighbours, on where the
//!    storage begins, or on the number of threads.
//! 2. A query at position `p` sees keys `first(p)..=p`, where `first` is 0 or, with a window of `w`, `p + 1 - w`.
//! 3. Keys outside that range weigh exactly 0, and a tile without a visible key changes nothing.
//!
//! The running softmax over tiles follows Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).

use prefixd_blas::threads;

use super::columns;
use super::gemm::{Matrix, Start, product};
use super::simd::{Arith, exp, per_isa, sum16};
use super::store::{Pages, Side};

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
    let (repeats, token_size) = (heads / kv_heads, heads * head_dim);
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
    let work = |i: usize, result: &mut [f32]| unit_of_work(&task(&units[i]), result);
    if products < PARALLEL_FROM {
        results.chunks_mut(size).enumerate().for_each(|(i, result)| work(i, result));
    } else {
        threads::pieces(&mut results, size, work);
    }
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
    /// Computes one unit: `result` is `[queries, repeats, head_dim]`.
    fn unit_of_work(task: &Task<'_>, result: &mut [f32]) = fold_tiles
}

/// What a query vector has seen so far: the largest score, and the sum of weights relative to it.
#[derive(Clone, Copy)]
struct Seen {
    max: f32,
    sum: f32,
}

#[inline(always)]
fn fold_tiles<F: Arith, const N: usize>(task: &Task<'_>, result: &mut [f32]) {
    let Task { shape, row, unit, queries } = task;
    let (d, value_dim) = (shape.head_dim, shape.value_dim);
    let (repeats, padded) = (shape.heads / shape.kv_heads, value_dim.next_multiple_of(PAD));
    let vectors = unit.queries * repeats;

    let mut scaled = vec![0.0_f32; vectors * d];
    for (i, vector) in scaled.chunks_exact_mut(d).enumerate() {
        let (t, head) = (unit.first + i / repeats, unit.kv_head * repeats + i % repeats);
        for (scaled, q) in vector.iter_mut().zip(&queries[(t * shape.heads + head) * d..][..d]) {
            *scaled = q * shape.scale;
        }
    }
    let mut keys = vec![0.0_f32; d * KEYS];
    let mut values = vec![0.0_f32; KEYS * padded];
    let mut scores = vec![0.0_f32; vectors * KEYS];
    let mut sums = vec![0.0_f32; vectors * padded];
    let mut seen = vec![Seen { max: f32::NEG_INFINITY, sum: 0.0 }; vectors];

    let first_position = row.position + unit.first;
    let end = first_position + unit.queries;
    let visible_from =
        |position: usize| shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
    for tile in visible_from(first_position) / KEYS..end.div_ceil(KEYS) {
        let start = tile * KEYS;
        let mut j = 0;
        while j < KEYS {
            let most = end.saturating_sub(start + j).min(KEYS - j);
            let run = row.pages.run(unit.kv_head, start + j, most).filter(|run| run.count > 0);
            // Keys that are not there, and their values, are 0: they weigh nothing.
            let count = run.map_or(1, |run| run.count);
            let value = &mut values[j * padded..][..count * padded];
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
            j += count;
        }
        let left = Matrix { data: &scaled, stride: d };
        product::<F, N>(
            [vectors, KEYS, d],
            left,
            Matrix { data: &keys, stride: KEYS },
            &mut scores,
            KEYS,
            Start::Zero,
        );
        for (i, weights) in scores.chunks_exact_mut(KEYS).enumerate() {
            let position = first_position + i / repeats;
            let (from, to) =
                (visible_from(position).saturating_sub(start), (position + 1).saturating_sub(start));
            let (from, to) = (from.min(KEYS), to.min(KEYS));
            let grown = weigh::<F>(weights, from, to, &mut seen[i]);
            for sum in &mut sums[i * padded..][..padded] {
                *sum *= grown;
            }
        }
        let left = Matrix { data: &scores, stride: KEYS };
        let right = Matrix { data: &values, stride: padded };
        product::<F, N>([vectors, padded, KEYS], left, right, &mut sums, padded, Start::Result);
    }
    for (i, out) in result.chunks_exact_mut(value_dim).take(vectors).enumerate() {
        let inverse = match shape.sinks {
            None => 1.0 / seen[i].sum,
            Some(sinks) => {
                let Seen { max: old, sum } = seen[i];
                let sink = sinks[unit.kv_head * repeats + i % repeats];
                let max = if sink > old { sink } else { old };
                let grown = exp::<F>(old - max);
                grown / F::fma(sum, grown, exp::<F>(sink - max))
            }
        };
        for (out, sum) in out.iter_mut().zip(&sums[i * padded..]) {
            // Adding 0 turns -0 into 0: the one bit in which weightless keys could show.
            *out = sum * inverse + 0.0;
        }
    }
}

/// Turns a tile's scores into weights: those in `from..to` by the exponential, the others 0. Returns what the sums so
/// far are to be multiplied by.
#[inline(always)]
fn weigh<F: Arith>(weights: &mut [f32], from: usize, to: usize, seen: &mut Seen) -> f32 {
    let Some(weights) = weights.first_chunk_mut::<KEYS>() else { return 1.0 };
    if from >= to {
        weights.fill(0.0);
        return 1.0;
    }
    if to - from < KEYS {
        for (j, weight) in weights.iter_mut().enumerate() {
            if j < from || j >= to {
                *weight = f32::NEG_INFINITY;
            }
        }
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in weights.chunks_exact(16) {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane = if *weight > *lane { *weight } else { *lane };
        }
    }
    let max = lanes.iter().fold(seen.max, |max, lane| if *lane > max { *lane } else { max });
    for weight in weights.iter_mut() {
        *weight = exp::<F>(*weight - max);
    }
    let grown = exp::<F>(seen.max - max);
    seen.sum = F::fma(seen.sum, grown, sum16(weights));
    seen.max = max;
    grown
}

#[cfg(test)]
mod tests;

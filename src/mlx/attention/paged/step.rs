//! A step over rows in pages: stores what is new, then attends.

use std::ops::Range;

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};

use super::kernels::{
    FLASH_ROWS, FLASH_THREADS, GATHER_THREADS, HEAD_DIMS, PART_THREADS, STORE_THREADS, STORE_VECTORS,
};
use super::words::Counts;
use super::{FEW, PagedAttention};
use crate::mlx::array::{Result, dims};
use crate::mlx::attention::Queries;
use crate::mlx::attention::device::{inner, joined, over_decoded};
use crate::mlx::cuda::{Constant, Launch};
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{KvSpec, Vectors};
use crate::mlx::layer::RmsNorm;
use crate::mlx::rope::Turn;
use crate::mlx::step::{RowStep, Step};

/// Query heads that share a read of their key head at most.
const MOST_SHARED: usize = 8;

/// The kernels during one step.
pub struct PagedStep<'a> {
    kernels: &'a PagedAttention,
    spec: &'a KvSpec,
    step: &'a Step,
    counts: Vec<Counts>,
    /// The words' address.
    words: Array,
    spans: Vec<(Vec<i32>, Array)>,
}

/// Queries, keys and values of a layer as one product made them, with what is to be done to the heads of queries and keys.
#[derive(Clone, Copy)]
pub struct Projected<'a> {
    /// `[tokens, (heads + 2 * kv heads) * head_dim]`: of each token queries, then keys, then values.
    pub vectors: &'a Array,
    /// Query heads.
    pub heads: usize,
    /// Norms of query heads and of key heads.
    pub norms: Option<[&'a RmsNorm; 2]>,
    /// The turn to positions.
    pub turn: &'a Turn,
    /// Factor of the scores.
    pub scale: f32,
    /// `[heads]`: of each head the score of a key whose value is 0.
    pub sinks: Option<&'a Array>,
}

/// What is stored, as `store.cu` takes it: arrays, and where a token's vectors begin in them.
struct Stored<'a> {
    arrays: [&'a Array; 3],
    begins: [usize; 2],
    strides: [usize; 3],
    queries: usize,
    norms: Option<[&'a RmsNorm; 2]>,
    turn: Option<&'a Turn>,
}

/// What of a row is decoded.
pub(super) struct Decoding {
    /// The row's number in the step.
    pub row: usize,
    /// Positions.
    pub range: Range<usize>,
    /// Slots of a result, at least as many as positions.
    pub slots: usize,
    /// Type of a result.
    pub dtype: Dtype,
}

impl<'a> PagedStep<'a> {
    /// A step that the words tell of.
    pub(super) fn new(
        kernels: &'a PagedAttention,
        spec: &'a KvSpec,
        step: &'a Step,
        counts: Vec<Counts>,
        words: Array,
    ) -> Self {
        Self { kernels, spec, step, counts, words, spans: Vec::new() }
    }

    /// The address of what the step tells kernels, `[1]`, u64.
    pub fn words(&self) -> &Array {
        &self.words
    }

    /// Stores a step's keys and values in layer `layer` and attends, out of one product. Result: `[tokens, heads * head_dim]`. Lazy.
    pub fn attend_projected(&mut self, mx: &Mlx, layer: usize, projected: Projected<'_>) -> Result<Array> {
        let Projected { vectors, heads, norms, turn, scale, sinks } = projected;
        let Vectors { heads: kv_heads, width } = self.spec.sides_of(layer)[0];
        let stride = (heads + 2 * kv_heads) * width;
        let stored = Stored {
            arrays: [vectors; 3],
            begins: [heads * width, (heads + kv_heads) * width],
            strides: [stride; 3],
            queries: heads,
            norms,
            turn: Some(turn),
        };
        let query = self.store(mx, layer, &stored)?;
        self.attend(mx, layer, Queries { array: &query, scale, sinks }, &query)
    }

    /// Stores `new` keys and values, `[tokens, kv heads, width]` each, in layer `layer`, and attends with `queries`. Lazy.
    pub fn attend_to(
        &mut self,
        mx: &Mlx,
        layer: usize,
        queries: Queries<'_>,
        new: Option<[&Array; 2]>,
    ) -> Result<Array> {
        let order = match new {
            None => queries.array.clone(),
            Some([key, value]) => {
                let dtype = queries.array.dtype();
                let [key, value] =
                    [key, value].map(|new| new.as_dtype(dtype).and_then(|new| new.contiguous()));
                let (key, value) = (key?, value?);
                let strides = self.spec.sides_of(layer).map(|side| side.heads * side.width);
                let stored = Stored {
                    arrays: [&key, &key, &value],
                    begins: [0, 0],
                    strides: [strides[0], strides[0], strides[1]],
                    queries: 0,
                    norms: None,
                    turn: None,
                };
                self.store(mx, layer, &stored)?
            }
        };
        self.attend(mx, layer, queries, &order)
    }

    /// What `store.cu` makes: turned queries, or an array that only tells the order.
    fn store(&self, mx: &Mlx, layer: usize, stored: &Stored<'_>) -> Result<Array> {
        let (kernels, spec) = (self.kernels, self.spec);
        let Stored { arrays: [query, key, value], begins, strides, queries, norms, turn } = *stored;
        let [keys_of, values_of] = spec.sides_of(layer);
        let dtype = key.dtype();
        let constants = [
            ("QUERIES", Constant::Int(queries)),
            ("KV_HEADS", Constant::Int(keys_of.heads)),
            ("NORM", Constant::Flag(norms.is_some())),
            ("TURNED", Constant::Int(turn.map_or(0, |turn| turn.dims))),
            ("NEIGHBOURS", Constant::Flag(turn.is_some_and(|turn| turn.neighbours))),
            ("K_WIDTH", Constant::Int(keys_of.width)),
            ("V_WIDTH", Constant::Int(values_of.width)),
            ("K_BITS", Constant::Int(spec.formats[0].bits())),
            ("V_BITS", Constant::Int(spec.formats[1].bits())),
            ("PAGE", Constant::Int(spec.block_tokens)),
            ("T", Constant::Type(dtype)),
            ("KEYS_AT", Constant::Int(begins[0])),
            ("VALUES_AT", Constant::Int(begins[1])),
            ("Q_STRIDE", Constant::Int(strides[0])),
            ("K_STRIDE", Constant::Int(strides[1])),
            ("V_STRIDE", Constant::Int(strides[2])),
        ];
        let nothing = &kernels.nothing;
        // What is not read has the type of what would be: a kernel is compiled for its inputs' types.
        let [q_weight, k_weight] = match norms {
            Some(norms) => norms.map(RmsNorm::weight),
            None => [key; 2],
        };
        let [rates, turned] = turn.map_or([nothing; 2], |turn| [&turn.rates, &turn.factors]);
        let eps = norms.map_or(nothing, |[norm, _]| norm.eps());
        let vectors = queries + 2 * keys_of.heads;
        let tokens = self.step.tokens();
        let shape = if queries > 0 { vec![tokens, queries, keys_of.width] } else { vec![1] };
        let shape: Vec<i32> = shape.into_iter().map(|size| size as i32).collect();
        // SAFETY: inputs are contiguous and of the shapes that the constants tell; the words name a page with room for every new
        // token, and `turned` is written whole, or tells the order and is read by nobody.
        let mut out = unsafe {
            kernels.kernels.store.call(
                mx,
                &[
                    &self.words,
                    &kernels.layers[layer].array,
                    query,
                    key,
                    value,
                    q_weight,
                    k_weight,
                    rates,
                    turned,
                    eps,
                ],
                Launch {
                    blocks: [tokens, vectors.div_ceil(STORE_VECTORS)],
                    threads: STORE_THREADS,
                    constants: &constants,
                    outputs: &[(&shape, dtype)],
                },
            )?
        };
        Ok(out.remove(0))
    }

    /// Are there kernels for a layer's shape, over codes and in tiles?
    fn serves(&self, layer: usize, queries: Queries<'_>) -> bool {
        let [keys_of, values_of] = self.spec.sides_of(layer);
        let heads = queries.array.dim(1) as usize;
        !self.spec.latent
            && keys_of == values_of
            && HEAD_DIMS.contains(&keys_of.width)
            && heads.is_multiple_of(keys_of.heads)
    }

    /// Attends over what layer `layer` holds when `order` is there.
    fn attend(&mut self, mx: &Mlx, layer: usize, queries: Queries<'_>, order: &Array) -> Result<Array> {
        let served = self.serves(layer, queries);
        let few = |at: &RowStep| served && at.tokens <= FEW;
        let rows = self.step.rows();
        let counts = self.counts[self.kernels.layers[layer].mask];
        let shared = if served && counts.queries > 0 {
            Some(self.few(mx, layer, queries, order, counts)?)
        } else {
            None
        };
        let (mut pieces, mut taken, mut number) = (Vec::new(), 0, 0);
        for run in rows.chunk_by(|a, b| few(a) && few(b)) {
            if let Some(shared) = shared.as_ref().filter(|_| few(&run[0])) {
                let tokens: usize = run.iter().map(|at| at.tokens).sum();
                pieces.push(if tokens == counts.queries {
                    shared.clone()
                } else {
                    shared.try_index(taken as i32..(taken + tokens) as i32)?
                });
                taken += tokens;
            } else {
                pieces.push(self.chunk(mx, layer, queries, order, number, run[0])?);
            }
            number += run.len();
        }
        joined(pieces)
    }

    /// All rows with few queries. Result: `[queries, heads * head_dim]`.
    fn few(
        &self,
        mx: &Mlx,
        layer: usize,
        queries: Queries<'_>,
        order: &Array,
        counts: Counts,
    ) -> Result<Array> {
        let (kernels, spec, place) = (self.kernels, self.spec, &self.kernels.layers[layer].array);
        let Vectors { heads: kv_heads, width } = spec.sides_of(layer)[0];
        let heads = queries.array.dim(1) as usize;
        let repeats = heads / kv_heads;
        let shared = (1..=MOST_SHARED).rev().find(|shared| repeats.is_multiple_of(*shared)).unwrap_or(1);
        let (query, dtype) = (queries.array.contiguous()?, queries.array.dtype());
        let factor = kernels.factor(mx, queries.scale)?;
        let sinks = queries.sinks.map(|sinks| sinks.as_dtype(dtype)).transpose()?;
        let constants = [
            ("D", Constant::Int(width)),
            ("HEADS", Constant::Int(shared)),
            ("SPLIT", Constant::Int(repeats / shared)),
            ("K_BITS", Constant::Int(spec.formats[0].bits())),
            ("V_BITS", Constant::Int(spec.formats[1].bits())),
            ("PAGE", Constant::Int(spec.block_tokens)),
            ("T", Constant::Type(dtype)),
        ];
        // SAFETY: the words hold so many shares, of rows whose pages hold what is named, once `order` is there; every share of
        // every head is written, empty ones included.
        let parts = unsafe {
            kernels.kernels.part.call(
                mx,
                &[&self.words, place, &query, &factor, order],
                Launch {
                    blocks: [counts.shares, kv_heads * (repeats / shared)],
                    threads: PART_THREADS,
                    constants: &constants,
                    outputs: &[
                        (&dims([counts.shares, heads, width]), Dtype::Float32),
                        (&dims([counts.shares, heads, 2]), Dtype::Float32),
                    ],
                },
            )?
        };
        let constants = [
            ("D", Constant::Int(width)),
            ("SINKS", Constant::Flag(sinks.is_some())),
            ("T", Constant::Type(dtype)),
        ];
        // SAFETY: a thread an element, over the shares that the words name.
        let mut joined = unsafe {
            kernels.kernels.join.call(
                mx,
                &[&self.words, place, sinks.as_ref().unwrap_or(&query), &parts[0], &parts[1]],
                Launch {
                    blocks: [counts.queries, heads],
                    threads: width,
                    constants: &constants,
                    outputs: &[(&dims([counts.queries, heads * width]), dtype)],
                },
            )?
        };
        Ok(joined.remove(0))
    }

    /// One row, number `row` of the step, with its share `at`. Result: `[tokens, heads * head_dim]`.
    fn chunk(
        &mut self,
        mx: &Mlx,
        layer: usize,
        queries: Queries<'_>,
        order: &Array,
        row: usize,
        at: RowStep,
    ) -> Result<Array> {
        let (kernels, spec) = (self.kernels, self.spec);
        let keys_of = spec.sides_of(layer)[0];
        let mask = spec.masks[layer];
        let (from, to) = (mask.visible_from(at.position), at.position + at.tokens);
        let inner = inner(queries.array.dtype());
        let slots = rounded(to - from);
        let [keys, values] =
            self.decoded(mx, layer, order, &Decoding { row, range: from..to, slots, dtype: inner })?;
        let width = keys_of.width;
        let heads = queries.array.dim(1) as usize;
        let served = self.serves(layer, queries) && inner == Dtype::Float16;
        let flash = kernels.kernels.flash(width).filter(|_| served);
        let Some(flash) = flash else {
            let seen = |array: &Array| array.try_index((.., 0..(to - from) as i32, ..));
            let (keys, values) = (seen(&keys)?, seen(&values)?);
            return over_decoded(mx, spec.latent, mask, queries, at, from, [&keys, &values]);
        };
        let (query, dtype) = (queries.array.contiguous()?, queries.array.dtype());
        let sinks = queries.sinks.map(|sinks| sinks.as_dtype(dtype)).transpose()?;
        let factor = kernels.factor(mx, queries.scale)?;
        let window = mask.window().unwrap_or(0);
        let span = self.span([at.first, at.tokens, at.position, from, slots, window].to_vec());
        let constants = [
            ("D", Constant::Int(width)),
            ("REPEATS", Constant::Int(heads / keys_of.heads)),
            ("SINKS", Constant::Flag(sinks.is_some())),
            ("T", Constant::Type(dtype)),
        ];
        // SAFETY: the span lies within the slots that were decoded and within the queries; every element is written.
        let mut attended = unsafe {
            flash.call(
                mx,
                &[&query, &keys, &values, &span, &factor, sinks.as_ref().unwrap_or(&query)],
                Launch {
                    blocks: [at.tokens.div_ceil(FLASH_ROWS), heads],
                    threads: FLASH_THREADS,
                    constants: &constants,
                    outputs: &[(&dims([at.tokens, heads * width]), dtype)],
                },
            )?
        };
        Ok(attended.remove(0))
    }

    /// Keys and values of a row, `[kv heads, slots, width]` each; behind the range nothing is written.
    pub(super) fn decoded(
        &mut self,
        mx: &Mlx,
        layer: usize,
        order: &Array,
        decoding: &Decoding,
    ) -> Result<[Array; 2]> {
        let Decoding { row, range, slots, dtype } = decoding;
        let (slots, dtype) = (*slots, *dtype);
        let (kernels, spec) = (self.kernels, self.spec);
        let [keys_of, values_of] = spec.sides_of(layer);
        let span = self.span(vec![*row, range.start, range.end, slots]);
        let eights = (keys_of.width + values_of.width) / 8 * range.len();
        let constants = [
            ("K_WIDTH", Constant::Int(keys_of.width)),
            ("V_WIDTH", Constant::Int(values_of.width)),
            ("K_BITS", Constant::Int(spec.formats[0].bits())),
            ("V_BITS", Constant::Int(spec.formats[1].bits())),
            ("PAGE", Constant::Int(spec.block_tokens)),
            ("T", Constant::Type(dtype)),
            // A kernel is compiled for its inputs' types.
            ("ORDER", Constant::Type(order.dtype())),
        ];
        // SAFETY: the row's pages hold these positions once `order` is there, and the results have room for them. What is not
        // written is not read.
        let planes = unsafe {
            kernels.kernels.gather.call(
                mx,
                &[&self.words, &kernels.layers[layer].array, &span, order],
                Launch {
                    blocks: [eights.div_ceil(GATHER_THREADS), keys_of.heads],
                    threads: GATHER_THREADS,
                    constants: &constants,
                    outputs: &[
                        (&dims([keys_of.heads, slots, keys_of.width]), dtype),
                        (&dims([values_of.heads, slots, values_of.width]), dtype),
                    ],
                },
            )?
        };
        planes.try_into().map_err(|_| MlxError::backend("decoded planes were lost".into()))
    }

    /// Numbers as an array: layers with the same ones share it.
    fn span(&mut self, numbers: Vec<usize>) -> Array {
        let numbers: Vec<i32> = numbers.into_iter().map(|number| number as i32).collect();
        if let Some((_, array)) = self.spans.iter().find(|(known, _)| *known == numbers) {
            return array.clone();
        }
        let array = Array::from_slice(&numbers, &dims([numbers.len()]));
        self.spans.push((numbers, array.clone()));
        array
    }
}

/// Slots for so many tokens: out of few sizes, so that buffers of one chunk serve the next.
fn rounded(tokens: usize) -> usize {
    let step = (tokens.next_power_of_two() / 16).max(64);
    tokens.next_multiple_of(step)
}

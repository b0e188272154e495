//! Attention over pages on NVIDIA GPUs, by kernels of our own that read tables of pages: a length is a number to them and never a
//! shape, so nothing is compiled or planned while rows grow.
//!
//! 1. New keys and values are encoded and stored for all rows of a step in one launch, with what comes before: norms of heads and
//!    the turn to their positions, where the layer's projections lie side by side.
//! 2. Few new tokens of a row read the codes where they lie, each byte once (`part.cu`), all such rows in one launch. Their keys are
//!    cut into shares, so that one row fills the machine, and the shares are joined as running softmaxes join.
//! 3. A chunk's keys are decoded once for all of its queries (`gather.cu`) and multiplied on the matrix units (`flash.cu`).
//! 4. Heads of other sizes, and latents, are decoded and left to MLX's fused operation.
//!
//! Pages are written in place, behind MLX's back. The order is kept by arrays: what stores a layer's tokens makes one that what
//! reads them takes.

use std::cell::RefCell;
use std::collections::HashMap;

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};
use prefixd_cache::Part;

use super::Queries;
use super::device::{inner, joined, over_decoded};
use super::words::{Counts, Words};
use crate::mlx::array::{Result, dims, from_f32, settle};
use crate::mlx::cuda::{Constant, CudaKernel, Launch, Source};
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{KvSpec, PoolRow, Vectors};
use crate::mlx::layer::RmsNorm;
use crate::mlx::mask::Mask;
use crate::mlx::rope::Turn;
use crate::mlx::step::{RowStep, Step};

/// New tokens of a row that are few: more cost less when their keys are decoded once for all of them.
const FEW: usize = 8;
/// Query heads that share a read of their key head at most.
const MOST_SHARED: usize = 8;
/// Threads of a block, as the kernels have them, and vectors of a block of `store.cu`.
const STORE_THREADS: usize = 128;
const STORE_VECTORS: usize = 4;
const PART_THREADS: usize = 128;
const GATHER_THREADS: usize = 256;
const FLASH_THREADS: usize = 256;
/// Queries of a block of `flash.cu`.
const FLASH_ROWS: usize = 128;
/// Sizes of heads that `part.cu` and `flash.cu` are written for.
const HEAD_DIMS: [usize; 3] = [64, 128, 256];

/// The kernels of one model.
pub struct PagedAttention {
    store: CudaKernel,
    part: CudaKernel,
    join: CudaKernel,
    gather: CudaKernel,
    /// By the size of a head.
    flash: HashMap<usize, CudaKernel>,
    layers: Vec<LayerPlace>,
    masks: Vec<Mask>,
    words: RefCell<Words>,
    /// By their bits: factors of scores, `[1]`, f32.
    factors: RefCell<HashMap<u32, Array>>,
    /// `[1]`, f32: for inputs that are not read.
    nothing: Array,
}

/// Where a layer's tensors lie in a page.
struct LayerPlace {
    /// `[8]`, i32: as `part.cu` reads it.
    array: Array,
    mask: usize,
}

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

impl PagedAttention {
    /// The kernels for a model whose rows lie in pages of the device.
    pub fn new(mx: &Mlx, spec: &KvSpec) -> Result<Self> {
        if !spec.block_tokens.is_multiple_of(16) {
            let found = spec.block_tokens;
            return Err(MlxError::input(format!(
                "blocks of {found} tokens; on this device expected a multiple of 16"
            )));
        }
        let kernel = |name: &str,
                      inputs: &[&str],
                      outputs: &[&str],
                      header: &[&str],
                      body: &str,
                      shared_bytes: usize| {
            let header = header.concat();
            CudaKernel::new(mx, Source { name, inputs, outputs, header: &header, body, shared_bytes })
        };
        let [codes, step, encode, decode, units] = [
            include_str!("paged/codes.cu"),
            include_str!("paged/step.cu"),
            include_str!("paged/encode.cu"),
            include_str!("paged/decode.cu"),
            include_str!("paged/units.cu"),
        ];
        let flash = HEAD_DIMS.map(|head_dim| {
            let tile = if head_dim > 128 { 32 } else { 64 };
            // The queries, and two tiles of keys and of values, of halves.
            let shared_bytes = (FLASH_ROWS + 4 * tile) * head_dim * 2;
            let name = format!("prefixd_flash_{head_dim}");
            let inputs = ["query", "keys", "values", "span", "factor", "sinks"];
            Ok((
                head_dim,
                kernel(
                    &name,
                    &inputs,
                    &["attended"],
                    &[units],
                    include_str!("paged/flash.cu"),
                    shared_bytes,
                )?,
            ))
        });
        let mut masks: Vec<Mask> = Vec::new();
        let mut place = |layer: usize| {
            let mask = spec.masks[layer];
            let number = masks.iter().position(|known| *known == mask).unwrap_or_else(|| {
                masks.push(mask);
                masks.len() - 1
            });
            let tensors = spec.tensors_of(layer);
            let mut at = [0_i32; 8];
            for (side, tensors) in
                [&tensors[..spec.key_planes()], &tensors[spec.key_planes()..]].into_iter().enumerate()
            {
                for (plane, stored) in tensors.iter().enumerate() {
                    at[3 * side + plane] = (stored.before * spec.block_tokens) as i32;
                }
            }
            at[6] = i32::from(mask.part() == Part::Window);
            at[7] = number as i32;
            LayerPlace { array: Array::from_slice(&at, &[8]), mask: number }
        };
        let layers: Vec<LayerPlace> = (0..spec.masks.len()).map(&mut place).collect();
        let kernels = Self {
            store: kernel(
                "prefixd_store",
                &["step", "at", "x_q", "x_k", "x_v", "q_weight", "k_weight", "rates", "turn", "eps"],
                &["turned"],
                &[codes, step, encode],
                include_str!("paged/store.cu"),
                0,
            )?,
            part: kernel(
                "prefixd_attend_part",
                &["step", "at", "query", "factor", "order"],
                &["mixed", "weights"],
                &[codes, step],
                include_str!("paged/part.cu"),
                0,
            )?,
            join: kernel(
                "prefixd_attend_join",
                &["step", "at", "sinks", "mixed", "weights"],
                &["attended"],
                &[codes, step],
                include_str!("paged/join.cu"),
                0,
            )?,
            gather: kernel(
                "prefixd_gather",
                &["step", "at", "span", "order"],
                &["keys", "values"],
                &[codes, step, decode],
                include_str!("paged/gather.cu"),
                0,
            )?,
            flash: flash.into_iter().collect::<Result<_>>()?,
            layers,
            masks,
            words: RefCell::new(Words::new(mx, spec)?),
            factors: RefCell::default(),
            nothing: from_f32(mx, &[0.0], &[1])?,
        };
        settle(mx, kernels.layers.iter().map(|layer| &layer.array).chain([&kernels.nothing]))?;
        Ok(kernels)
    }

    /// Begins a step over rows that have room for it.
    pub fn step<'a>(
        &'a self,
        mx: &Mlx,
        spec: &'a KvSpec,
        step: &'a Step,
        rows: &[&mut PoolRow],
    ) -> Result<PagedStep<'a>> {
        let mut words = self.words.borrow_mut();
        let counts = words.tell(mx, spec, step, rows, &self.masks, FEW)?;
        Ok(PagedStep { kernels: self, spec, step, counts, words: words.array.clone(), spans: Vec::new() })
    }

    /// Gives back what it holds of the device.
    pub fn free(&self, spec: &KvSpec) {
        self.words.borrow().free(spec);
    }

    fn factor(&self, mx: &Mlx, scale: f32) -> Result<Array> {
        if let Some(factor) = self.factors.borrow().get(&scale.to_bits()) {
            return Ok(factor.clone());
        }
        let factor = from_f32(mx, &[scale], &[1])?;
        settle(mx, [&factor])?;
        self.factors.borrow_mut().insert(scale.to_bits(), factor.clone());
        Ok(factor)
    }
}

impl PagedStep<'_> {
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
            kernels.store.call(
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

    /// Attends over what layer `layer` holds when `order` is there.
    fn attend(&mut self, mx: &Mlx, layer: usize, queries: Queries<'_>, order: &Array) -> Result<Array> {
        let [keys_of, values_of] = self.spec.sides_of(layer);
        let heads = queries.array.dim(1) as usize;
        let served = !self.spec.latent
            && keys_of == values_of
            && HEAD_DIMS.contains(&keys_of.width)
            && heads.is_multiple_of(keys_of.heads);
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
            kernels.part.call(
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
            kernels.join.call(
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
        let [keys_of, values_of] = spec.sides_of(layer);
        let mask = spec.masks[layer];
        let (from, to) = (mask.visible_from(at.position), at.position + at.tokens);
        let inner = inner(queries.array.dtype());
        let slots = rounded(to - from);
        let [keys, values] = self.decoded(mx, layer, order, row, from..to, slots, inner)?;
        let width = keys_of.width;
        let heads = queries.array.dim(1) as usize;
        let flash = kernels.flash.get(&width).filter(|_| {
            !spec.latent
                && keys_of == values_of
                && inner == Dtype::Float16
                && heads.is_multiple_of(keys_of.heads)
        });
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

    /// Keys and values of a row at positions `range`, `[kv heads, slots, width]` each; behind the range nothing is written.
    pub(super) fn decoded(
        &mut self,
        mx: &Mlx,
        layer: usize,
        order: &Array,
        row: usize,
        range: std::ops::Range<usize>,
        slots: usize,
        dtype: Dtype,
    ) -> Result<[Array; 2]> {
        let (kernels, spec) = (self.kernels, self.spec);
        let [keys_of, values_of] = spec.sides_of(layer);
        let span = self.span(vec![row, range.start, range.end, slots]);
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
            kernels.gather.call(
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

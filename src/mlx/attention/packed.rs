//! Attention of few queries over packed planes on CUDA: kernels of our own that read the codes where they lie.
//!
//! Decoding keys and values for MLX's fused operation moves every element four times; at long contexts that was four
//! fifths of a decode step (8B shape, 16 rows of 32k tokens, H200). Here each byte is read once. The keys of a row are cut into
//! shares, so that one row fills the machine, and the shares are joined as running softmaxes join. How many there are
//! depends on the row's length alone, so a row's result does not depend on its neighbours.

use mlx_rs::{Array, Dtype};

use super::Queries;
use crate::mlx::array::{Result, dims, distance, from_f32, settle};
use crate::mlx::backend::Backend;
use crate::mlx::cuda::{Constant, CudaKernel, Launch, Source};
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{Format, KvSpec, LayerKv, Vectors};
use crate::mlx::mask::Mask;
use crate::mlx::step::RowStep;

const INPUTS: [&str; 9] =
    ["query", "k_codes", "k_scales", "k_biases", "v_codes", "v_scales", "v_biases", "span", "factor"];
/// Threads of a block of `part.cu`: its four warps.
const THREADS: usize = 128;
/// Tokens of a share at least, and shares of a row at most.
const SHARE_TOKENS: usize = 128;
const MOST_SHARES: usize = 64;
/// Queries of a row that the kernels serve in one call, and shares of all of them together at most.
const MOST_QUERIES: usize = 64;
const MOST_PARTS: usize = 256;
/// The first slot that a query sees, where it sees all: far enough below 0 for any number of queries.
const EVERYTHING: i32 = i32::MIN / 2;
/// Keys of the proof, and relative distance allowed between these kernels and MLX's attention: bf16 has 8 bits.
const PROOF_TOKENS: usize = 256;
const TOLERANCE: f32 = 2e-2;
/// Shared memory of a block that every device has.
const SHARED_BYTES: usize = 48 << 10;

/// The kernels of one model, for layers whose keys are shaped as the first layer's.
#[derive(Debug)]
pub struct PackedAttention {
    part: CudaKernel,
    join: CudaKernel,
    factor: Array,
    constants: [(&'static str, Constant); 4],
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// The kernels during one step, with what its layers share.
#[derive(Debug)]
pub struct PackedStep<'a> {
    kernels: &'a PackedAttention,
    spans: Vec<([i32; 4], Array)>,
}

impl PackedAttention {
    /// For `heads` query heads whose scores are multiplied by `scale`; `None` where these kernels cannot serve.
    pub fn new(mx: &Mlx, backend: Backend, spec: &KvSpec, heads: usize, scale: f32) -> Result<Option<Self>> {
        let Vectors { heads: kv_heads, width: head_dim } = spec.sides_of(0)[0];
        let repeats = heads / kv_heads;
        let [key_bits, value_bits] = [spec.setting.keys, spec.setting.values].map(Format::bits);
        // As `part.cu` declares it: maximum, sum and vector of each warp and head.
        let shared = THREADS / 32 * repeats * (head_dim + 2) * size_of::<f32>();
        let fits = [64, 128, 256].contains(&head_dim) && shared <= SHARED_BYTES;
        if backend != Backend::Cuda || spec.latent || key_bits > 8 || value_bits > 8 || !fits {
            return Ok(None);
        }
        let kernel = |name, inputs, outputs, body| {
            let header = include_str!("packed/codes.cu");
            CudaKernel::new(mx, Source { name, inputs, outputs, header, body })
        };
        let shared_by_both = ["mixed", "weights"];
        let kernels = Self {
            part: kernel("prefixd_attend_part", &INPUTS, &shared_by_both, include_str!("packed/part.cu"))?,
            join: kernel(
                "prefixd_attend_join",
                &["mixed", "weights", "span"],
                &["attended"],
                include_str!("packed/join.cu"),
            )?,
            factor: from_f32(mx, &[scale], &[1])?,
            constants: [
                ("D", Constant::Int(head_dim)),
                ("REPEATS", Constant::Int(repeats)),
                ("K_BITS", Constant::Int(key_bits)),
                ("V_BITS", Constant::Int(value_bits)),
            ],
            heads,
            kv_heads,
            head_dim,
        };
        Ok(match kernels.agrees(mx, spec, scale) {
            Ok(()) => Some(kernels),
            Err(error) => {
                tracing::warn!(%error, "attention over packed planes does not work on this device; MLX's is used");
                None
            }
        })
    }

    /// Compiles the kernels and compares them with MLX's attention on this device: several queries of one row, which see all
    /// keys, or a window's.
    fn agrees(&self, mx: &Mlx, spec: &KvSpec, scale: f32) -> Result<()> {
        let wave = |shape: [usize; 3], step: f32| {
            let count: usize = shape.iter().product();
            let numbers: Vec<f32> = (0..count).map(|i| (i as f32 * step).sin()).collect();
            from_f32(mx, &numbers, &dims(shape))
        };
        let Vectors { heads, width } = spec.sides_of(0)[0];
        let (tokens, position) = (3, PROOF_TOKENS - 3);
        let mut planes = spec.setting.keys.encode(mx, &wave([heads, PROOF_TOKENS, width], 0.7)?)?;
        planes.extend(spec.setting.values.encode(mx, &wave([heads, PROOF_TOKENS, width], 0.3)?)?);
        settle(mx, &planes)?;
        let query = wave([tokens, self.heads, width], 0.9)?.as_dtype(Dtype::Bfloat16)?;
        for mask in [Mask::Causal, Mask::Window { tokens: 64 }] {
            let layer = LayerKv::with_planes(spec, mask, 0, PROOF_TOKENS, planes.clone());
            let at = RowStep { position, tokens, first: 0 };
            let found = self.step().attend(mx, &query, &layer, at)?;
            let queries = Queries { array: &query, scale, sinks: None };
            let expected = super::device(mx, spec, 0, queries, std::iter::once((&layer, at)), None)?;
            let distance = distance(mx, &found, &expected)?;
            if distance.is_nan() || distance > TOLERANCE {
                return Err(MlxError::backend(format!("{mask:?}: it differs by {distance:e} from MLX's")));
            }
        }
        Ok(())
    }

    /// Begins a step.
    pub fn step(&self) -> PackedStep<'_> {
        PackedStep { kernels: self, spans: Vec::new() }
    }
}

impl PackedStep<'_> {
    /// Are these few enough queries, over keys of the shape that the kernels were made for?
    pub fn serves(&self, keys: Vectors, tokens: usize) -> bool {
        let PackedAttention { kv_heads, head_dim, .. } = *self.kernels;
        keys == Vectors { heads: kv_heads, width: head_dim } && tokens <= MOST_QUERIES
    }

    /// One row's queries `[tokens, heads, head_dim]` over what its layer holds, their own tokens included. Result:
    /// `[tokens, heads * head_dim]`, of the queries' type. Lazy.
    ///
    /// A length is a number to these kernels, not a shape: nothing is compiled or planned anew while a row grows.
    pub fn attend(&mut self, mx: &Mlx, query: &Array, layer: &LayerKv, at: RowStep) -> Result<Array> {
        let (kernels, tokens) = (self.kernels, at.tokens);
        let (from, to) = (layer.mask().visible_from(at.position), at.position + 1);
        let most = MOST_SHARES.min(MOST_PARTS / tokens);
        let shares = (to + tokens - 1 - from).div_ceil(SHARE_TOKENS).min(most);
        let first = match layer.mask().window() {
            None => EVERYTHING,
            Some(window) => (to as i32) - (window as i32) - layer.origin() as i32,
        };
        let [to, capacity, count] = dims([to - layer.origin(), layer.capacity(), shares]);
        let span = self.span([first, to, capacity, count]);
        let mut constants = kernels.constants.to_vec();
        constants.push(("T", Constant::Type(query.dtype())));
        let (heads, head_dim) = (kernels.heads, kernels.head_dim);
        let mut inputs = vec![query];
        inputs.extend(layer.planes());
        inputs.extend([&span, &kernels.factor]);
        // SAFETY: planes are contiguous, `[kv heads, capacity, …]` of the formats in `constants`, and the span lies
        // within their capacity; `part` writes every share of every head, empty ones included.
        let parts = unsafe {
            kernels.part.call(
                mx,
                &inputs,
                Launch {
                    blocks: [tokens * shares, kernels.kv_heads],
                    threads: THREADS,
                    constants: &constants,
                    outputs: &[
                        (&dims([tokens, shares, heads, head_dim]), Dtype::Float32),
                        (&dims([tokens, shares, heads, 2]), Dtype::Float32),
                    ],
                },
            )?
        };
        let mut inputs: Vec<&Array> = parts.iter().collect();
        inputs.push(&span);
        // SAFETY: a thread an element, over the shares that `span` names.
        let mut joined = unsafe {
            kernels.join.call(
                mx,
                &inputs,
                Launch {
                    blocks: [tokens, heads],
                    threads: head_dim,
                    constants: &constants,
                    outputs: &[(&dims([tokens, heads * head_dim]), query.dtype())],
                },
            )?
        };
        Ok(joined.remove(0))
    }

    /// The array of a span: rows' layers with the same window share it.
    fn span(&mut self, slots: [i32; 4]) -> Array {
        if let Some((_, array)) = self.spans.iter().find(|(known, _)| *known == slots) {
            return array.clone();
        }
        let array = Array::from_slice(&slots, &[4]);
        self.spans.push((slots, array.clone()));
        array
    }
}

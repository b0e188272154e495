//! Attention of single queries over packed planes on CUDA: kernels of our own that read the codes where they lie.
//!
//! Decoding keys and values for MLX's fused operation moves every element four times; at long contexts that was four
//! fifths of a decode step (8B shape, 16 rows of 32k tokens, H200). Here each byte is read once. The keys of a row are cut into
//! shares, so that one row fills the machine, and the shares are joined as running softmaxes join. How many there are
//! depends on the row's length alone, so a row's result does not depend on its neighbours.

use mlx_rs::{Array, Dtype};

use crate::mlx::array::{Result, dims, from_f32};
use crate::mlx::backend::Backend;
use crate::mlx::cuda::{Constant, CudaKernel, Launch, Source};
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{Format, KvSpec, LayerKv, Vectors};
use crate::mlx::step::RowStep;

const INPUTS: [&str; 9] =
    ["query", "k_codes", "k_scales", "k_biases", "v_codes", "v_scales", "v_biases", "span", "factor"];
/// Threads of a block of `part.cu`: its four warps.
const THREADS: usize = 128;
/// Tokens of a share at least, and shares of a row at most.
const SHARE_TOKENS: usize = 128;
const MOST_SHARES: usize = 64;
/// Shared memory of a block that every device has.
const SHARED_BYTES: usize = 48 << 10;

/// The kernels of one model.
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
        let Vectors { heads: kv_heads, width: head_dim } = spec.keys;
        let repeats = heads / kv_heads;
        let [key_bits, value_bits] = [spec.setting.keys, spec.setting.values].map(Format::bits);
        // As `part.cu` declares it: maximum, sum and vector of each warp and head.
        let shared = THREADS / 32 * repeats * (head_dim + 2) * size_of::<f32>();
        let fits = [64, 128, 256].contains(&head_dim) && shared <= SHARED_BYTES;
        if backend != Backend::Cuda || key_bits > 8 || value_bits > 8 || !fits {
            return Ok(None);
        }
        let kernel = |name, inputs, outputs, body| {
            let header = include_str!("packed/codes.cu");
            CudaKernel::new(mx, Source { name, inputs, outputs, header, body })
        };
        let shared_by_both = ["mixed", "weights"];
        Ok(Some(Self {
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
        }))
    }

    /// Begins a step.
    pub fn step(&self) -> PackedStep<'_> {
        PackedStep { kernels: self, spans: Vec::new() }
    }
}

impl PackedStep<'_> {
    /// One row's only query `[1, heads, head_dim]` over what its layer holds, its own token included. Result:
    /// `[1, heads * head_dim]`, of the query's type. Lazy.
    pub fn attend(&mut self, mx: &Mlx, query: &Array, layer: &LayerKv, at: RowStep) -> Result<Array> {
        let kernels = self.kernels;
        let (from, to) = (layer.mask().visible_from(at.position), at.position + 1);
        let shares = (to - from).div_ceil(SHARE_TOKENS).min(MOST_SHARES);
        let slots = [from - layer.origin(), to - layer.origin(), layer.capacity(), shares];
        let span = self.span(dims(slots));
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
                    blocks: [shares, kernels.kv_heads],
                    threads: THREADS,
                    constants: &constants,
                    outputs: &[
                        (&dims([shares, heads, head_dim]), Dtype::Float32),
                        (&dims([shares, heads, 2]), Dtype::Float32),
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
                    blocks: [1, heads],
                    threads: head_dim,
                    constants: &constants,
                    outputs: &[(&dims([1, heads * head_dim]), query.dtype())],
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

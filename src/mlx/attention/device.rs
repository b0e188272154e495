//! Attention by MLX's fused operation, row by row over decoded planes; rows with one query over packed ones where there
//! are kernels for it.

use mlx_rs::fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};

use super::{PackedStep, Queries};
use crate::mlx::array::{Result, dims};
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{Format, KvSpec, LayerKv, Vectors};
use crate::mlx::mask::{RowMask, Span};
use crate::mlx::step::RowStep;

/// Rows are layers, all number `layer`, with their share of the step. Result: `[tokens, heads * head_dim]`, of the queries' type.
pub fn device<'a>(
    mx: &Mlx,
    spec: &KvSpec,
    layer: usize,
    queries: Queries<'_>,
    rows: impl Iterator<Item = (&'a LayerKv, RowStep)>,
    mut packed: Option<&mut PackedStep<'_>>,
) -> Result<Array> {
    let dtype = queries.array.dtype();
    // Keys and values decode to f16; f32 queries keep their precision.
    let inner = if dtype == Dtype::Float32 { Dtype::Float32 } else { Dtype::Float16 };
    let heads = queries.array.dim(1) as usize;
    let vectors = queries.array.as_dtype(inner)?;
    let sinks = queries.sinks.map(|sinks| sinks.as_dtype(inner)).transpose()?;
    let [keys_of, values_of] = spec.sides_of(layer);
    let mut attended = Vec::new();
    for (layer, at) in rows {
        let RowStep { position, tokens, .. } = at;
        if let Some(packed) = packed.as_mut().filter(|packed| packed.serves(keys_of, tokens)) {
            let query = queries.array.try_index(at.first as i32..at.range().end as i32)?.contiguous()?;
            attended.push(packed.attend(mx, &query, layer, at)?);
            continue;
        }
        let mask = layer.mask();
        let (from, to) = (mask.visible_from(position), position + tokens);
        let planes = layer.read(mx, from, to)?;
        let (keys, values) = planes.split_at(spec.key_planes());
        let decode = |format: Format, Vectors { heads, width }: Vectors, planes: &[Array]| -> Result<Array> {
            let vectors = format.decode(mx, planes)?.as_dtype(inner)?;
            Ok(vectors.reshape(&dims([1, heads, to - from, width]))?)
        };
        let keys = decode(spec.formats[0], keys_of, keys)?;
        let values = decode(spec.formats[1], values_of, values)?;
        let keys = if spec.latent { mlx_rs::ops::concatenate(&[values.clone(), keys], -1)? } else { keys };
        let query = vectors.try_index(at.first as i32..at.range().end as i32)?;
        let query = query.transpose_axes(&[1, 0, 2])?.expand_dims(0)?;
        let span = Span { origin: layer.origin(), position, tokens };
        let sdpa = |mask: Option<ScaledDotProductAttentionMask<'_>>| {
            scaled_dot_product_attention(&query, &keys, &values, queries.scale, mask, sinks.as_ref())
        };
        let out = match mask.for_row(mx, span, inner)? {
            RowMask::All => sdpa(None)?,
            RowMask::Suffix => sdpa(Some(ScaledDotProductAttentionMask::Causal))?,
            RowMask::Additive(mask) => sdpa(Some((&mask).into()))?,
        };
        let by_token = out.transpose_axes(&[0, 2, 1, 3])?;
        attended.push(by_token.reshape(&dims([tokens, heads * values_of.width]))?.as_dtype(dtype)?);
    }
    if let [one] = attended.as_slice() {
        return Ok(one.clone());
    }
    Ok(mlx_rs::ops::concatenate(&attended, 0)?)
}

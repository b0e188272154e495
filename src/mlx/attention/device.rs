//! Attention by MLX's fused operation, row by row over decoded planes.

use mlx_rs::fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};

use super::Queries;
use crate::mlx::array::{Result, dims};
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{Format, KvSpec, LayerKv, Vectors};
use crate::mlx::mask::{Mask, RowMask, Span};
use crate::mlx::step::RowStep;

/// Rows are layers, all number `layer`, with their share of the step. Result: `[tokens, heads * head_dim]`, of the queries' type.
pub fn device<'a>(
    mx: &Mlx,
    spec: &KvSpec,
    layer: usize,
    queries: Queries<'_>,
    rows: impl Iterator<Item = (&'a LayerKv, RowStep)>,
) -> Result<Array> {
    let inner = inner(queries.array.dtype());
    let [keys_of, values_of] = spec.sides_of(layer);
    let mut attended = Vec::new();
    for (layer, at) in rows {
        let (from, to) = (layer.mask().visible_from(at.position), at.position + at.tokens);
        let planes = layer.read(mx, from, to)?;
        let (keys, values) = planes.split_at(spec.key_planes());
        let decode = |format: Format, Vectors { heads, width }: Vectors, planes: &[Array]| -> Result<Array> {
            let vectors = format.decode(mx, planes)?.as_dtype(inner)?;
            Ok(vectors.reshape(&dims([heads, to - from, width]))?)
        };
        let keys = decode(spec.formats[0], keys_of, keys)?;
        let values = decode(spec.formats[1], values_of, values)?;
        attended.push(over_decoded(
            mx,
            spec.latent,
            layer.mask(),
            queries,
            at,
            layer.origin(),
            [&keys, &values],
        )?);
    }
    joined(attended)
}

/// The type that keys and values are decoded to: f16, but f32 queries keep their precision.
pub(super) fn inner(queries: Dtype) -> Dtype {
    if queries == Dtype::Float32 { Dtype::Float32 } else { Dtype::Float16 }
}

/// Pieces of a step's result one behind the other.
pub(super) fn joined(pieces: Vec<Array>) -> Result<Array> {
    match <[Array; 1]>::try_from(pieces) {
        Ok([one]) => Ok(one),
        Err(pieces) => Ok(mlx_rs::ops::concatenate(&pieces, 0)?),
    }
}

/// One row's queries, those of `at`, over its decoded keys and values from the first visible one to the last, `[kv heads, keys, width]`
/// each. `latent`: a key is the value followed by what lies on the side of keys.
pub(super) fn over_decoded(
    mx: &Mlx,
    latent: bool,
    mask: Mask,
    queries: Queries<'_>,
    at: RowStep,
    origin: usize,
    [keys, values]: [&Array; 2],
) -> Result<Array> {
    let (dtype, inner) = (queries.array.dtype(), values.dtype());
    let (heads, width) = (queries.array.dim(1) as usize, values.dim(-1) as usize);
    let sinks = queries.sinks.map(|sinks| sinks.as_dtype(inner)).transpose()?;
    let keys = if latent { mlx_rs::ops::concatenate(&[values, keys], -1)? } else { keys.clone() };
    let (keys, values) = (keys.expand_dims(0)?, values.expand_dims(0)?);
    let query = queries.array.try_index(at.first as i32..at.range().end as i32)?.as_dtype(inner)?;
    let query = query.transpose_axes(&[1, 0, 2])?.expand_dims(0)?;
    let span = Span { origin, position: at.position, tokens: at.tokens };
    let sdpa = |mask: Option<ScaledDotProductAttentionMask<'_>>| {
        scaled_dot_product_attention(&query, &keys, &values, queries.scale, mask, sinks.as_ref())
    };
    let out = match mask.for_row(mx, span, inner)? {
        RowMask::All => sdpa(None)?,
        RowMask::Suffix => sdpa(Some(ScaledDotProductAttentionMask::Causal))?,
        RowMask::Additive(mask) => sdpa(Some((&mask).into()))?,
    };
    let by_token = out.transpose_axes(&[0, 2, 1, 3])?;
    Ok(by_token.reshape(&dims([at.tokens, heads * width]))?.as_dtype(dtype)?)
}

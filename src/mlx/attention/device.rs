//! Attention by MLX's fused operation, row by row over decoded planes.

use mlx_rs::fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};

use super::Queries;
use crate::mlx::array::{Result, dims};
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{Format, KvSpec, LayerKv};
use crate::mlx::mask::{RowMask, Span};

/// Rows are layers with the position of their first query. Result: `[rows * tokens, heads * head_dim]`, of the
/// queries' type.
pub fn device<'a>(
    mx: &Mlx,
    spec: &KvSpec,
    queries: &Queries<'_>,
    rows: impl Iterator<Item = (&'a LayerKv, usize)>,
) -> Result<Array> {
    let dtype = queries.array.dtype();
    // Keys and values decode to f16; f32 queries keep their precision.
    let inner = if dtype == Dtype::Float32 { Dtype::Float32 } else { Dtype::Float16 };
    let by_head = queries.array.transpose_axes(&[0, 2, 1, 3])?.as_dtype(inner)?;
    let mut attended = Vec::new();
    for (number, (layer, position)) in rows.enumerate() {
        let mask = layer.mask();
        let (from, to) = (mask.visible_from(position), position + queries.tokens);
        let planes = layer.read(mx, from, to)?;
        let (keys, values) = planes.split_at(spec.key_planes());
        let decode = |format: Format, planes: &[Array]| -> Result<Array> {
            let vectors = format.decode(mx, planes)?.as_dtype(inner)?;
            Ok(vectors.reshape(&dims([1, spec.kv_heads, to - from, spec.head_dim]))?)
        };
        let (keys, values) = (decode(spec.setting.keys, keys)?, decode(spec.setting.values, values)?);
        let number = number as i32;
        let query = by_head.try_index((number..number + 1, .., .., ..))?;
        let span = Span { origin: layer.origin(), position, tokens: queries.tokens };
        let sdpa = |mask: Option<ScaledDotProductAttentionMask<'_>>| {
            scaled_dot_product_attention(&query, &keys, &values, queries.scale, mask, None)
        };
        attended.push(match mask.for_row(mx, span, inner)? {
            RowMask::All => sdpa(None)?,
            RowMask::Suffix => sdpa(Some(ScaledDotProductAttentionMask::Causal))?,
            RowMask::Additive(mask) => sdpa(Some((&mask).into()))?,
        });
    }
    let all = if let [one] = attended.as_slice() {
        one.clone()
    } else {
        mlx_rs::ops::concatenate(&attended, 0)?
    };
    let (rows, heads) = (attended.len(), queries.array.dim(2) as usize);
    let flat = all.transpose_axes(&[0, 2, 1, 3])?.reshape(&dims([rows * queries.tokens, heads * spec.head_dim]))?;
    Ok(flat.as_dtype(dtype)?)
}

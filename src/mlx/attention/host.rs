//! Attention on the host: our kernel over the pages' memory.

use mlx_rs::Array;

use super::Queries;
use crate::mlx::array::{Result, dims, from_vec, host as memory};
use crate::mlx::cpu::attention::{Row, Shape, attend};
use crate::mlx::cpu::store::Side;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{Format, HostRow, KvSpec, Vectors};
use crate::mlx::step::RowStep;

const _: () = assert!(cfg!(target_endian = "little"), "codes are read as bytes of little-endian words");

/// Queries of a layer over what rows, each with its share of the step, have stored in it. Result:
/// `[tokens, heads * head_dim]`, f32.
pub fn host<'a>(
    mx: &Mlx,
    spec: &KvSpec,
    layer: usize,
    queries: Queries<'_>,
    rows: impl Iterator<Item = (&'a HostRow, RowStep)>,
) -> Result<Array> {
    let heads = queries.array.dim(1) as usize;
    let (keys, values) = (0..spec.key_planes(), spec.key_planes()..spec.tensors_of(layer).len());
    let [Vectors { heads: kv_heads, width }, Vectors { width: value_dim, .. }] = spec.sides_of(layer);
    let head_dim = if spec.latent { value_dim + width } else { width };
    let shape = Shape {
        heads,
        kv_heads,
        head_dim,
        value_dim,
        joined: spec.latent,
        window: spec.masks[layer].window(),
        scale: queries.scale,
        sinks: queries.sinks.map(|sinks| memory(mx, sinks)).transpose()?,
        keys: side(spec, layer, spec.formats[0], keys),
        values: side(spec, layer, spec.formats[1], values),
    };
    let row = |(row, at): (&'a HostRow, RowStep)| Row {
        pages: row.pages(spec, layer),
        position: at.position,
        tokens: at.tokens,
    };
    let rows: Vec<_> = rows.map(row).collect();
    let vectors = memory::<f32>(mx, queries.array)?;
    let (tokens, width) = (vectors.len() / (heads * head_dim), heads * value_dim);
    let mut out = vec![0.0; tokens * width];
    attend(shape, &rows, vectors, &mut out);
    from_vec(mx, out, &dims([tokens, width]))
}

fn side(spec: &KvSpec, layer: usize, format: Format, planes: std::ops::Range<usize>) -> Side {
    let mut begins = [0; 3];
    for (begin, stored) in begins.iter_mut().zip(&spec.tensors_of(layer)[planes]) {
        *begin = stored.before * spec.block_tokens;
    }
    Side { encoding: format.encoding(), planes: begins }
}

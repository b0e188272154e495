//! Attention on the host: our kernel over the planes' memory.

use mlx_rs::Array;

use super::Queries;
use crate::mlx::array::{Result, bytes, dims, from_f32, host as memory, settle};
use crate::mlx::cpu::attention::{Row, Shape, attend};
use crate::mlx::cpu::store::{Affine, Store};
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{Format, KvSpec, LayerKv};
use crate::mlx::step::RowStep;

/// Rows are layers with their share of the step. Result: `[tokens, heads * head_dim]`, f32.
pub fn host<'a>(
    mx: &Mlx,
    spec: &KvSpec,
    queries: Queries<'_>,
    rows: impl Iterator<Item = (&'a LayerKv, RowStep)>,
) -> Result<Array> {
    let rows: Vec<_> = rows.collect();
    settle(mx, rows.iter().flat_map(|(layer, _)| layer.planes()).chain([queries.array]))?;
    let heads = queries.array.dim(1) as usize;
    let mask = rows.first().map(|(layer, _)| layer.mask());
    let shape = Shape {
        heads,
        kv_heads: spec.keys.heads,
        head_dim: spec.keys.width,
        window: mask.and_then(super::super::mask::Mask::window),
        scale: queries.scale,
        sinks: queries.sinks.map(|sinks| memory(mx, sinks)).transpose()?,
    };
    let stores = rows.iter().map(|(layer, at)| {
        let (keys, values) = layer.planes().split_at(spec.key_planes());
        Ok(Row {
            keys: store(mx, spec.setting.keys, keys)?,
            values: store(mx, spec.setting.values, values)?,
            capacity: layer.capacity(),
            origin: layer.origin(),
            position: at.position,
            tokens: at.tokens,
        })
    });
    let stores = stores.collect::<Result<Vec<_>>>()?;
    let vectors = memory::<f32>(mx, queries.array)?;
    let (mut out, width) = (vec![0.0; vectors.len()], heads * spec.keys.width);
    attend(shape, &stores, vectors, &mut out);
    from_f32(mx, &out, &dims([vectors.len() / width, width]))
}

fn store<'a>(mx: &Mlx, format: Format, planes: &'a [Array]) -> Result<Store<'a>> {
    match (format, planes) {
        (Format::F32, [vectors]) => Ok(Store::F32(memory(mx, vectors)?)),
        (Format::F16, [vectors]) => Ok(Store::F16(memory(mx, vectors)?)),
        (Format::Affine8, [codes, scales, biases]) => Ok(Store::Affine8(affine(mx, codes, scales, biases)?)),
        (Format::Affine4, [codes, scales, biases]) => Ok(Store::Affine4(affine(mx, codes, scales, biases)?)),
        _ => Err(MlxError::backend(format!("{} planes for {format:?}", planes.len()))),
    }
}

fn affine<'a>(mx: &Mlx, codes: &'a Array, scales: &'a Array, biases: &'a Array) -> Result<Affine<'a>> {
    const { assert!(cfg!(target_endian = "little"), "codes are read as bytes of little-endian words") };
    let codes = bytes(mx, codes)?;
    Ok(Affine { codes, scales: memory(mx, scales)?, biases: memory(mx, biases)? })
}

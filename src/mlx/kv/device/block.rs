//! Planes to blocks and back: copies, in both directions.

use std::ops::Range;

use mlx_rs::Array;
use prefixd_blas::threads;
use prefixd_cache::{Payload, TensorBytes};
use prefixd_engine::ImportBlock;

use super::layer::LayerKv;
use super::row::DeviceRow;
use crate::mlx::array::{Result, bytes, dims, from_bytes, settle};
use crate::mlx::gate::Mlx;
use crate::mlx::kv::block::{Chain, missing};
use crate::mlx::kv::spec::{KvSpec, Stored};

impl DeviceRow {
    /// Copies the tokens at absolute positions `range`.
    pub fn export(&self, mx: &Mlx, spec: &KvSpec, range: Range<usize>) -> Result<Payload> {
        let mut copies = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            if layer.origin() > range.start {
                return Err(missing(&range, number, layer.origin()));
            }
            for view in layer.read(mx, range.start, range.end)? {
                copies.push(view.contiguous()?);
            }
        }
        // All at once: waiting for each by itself took four fifths of a prefill on CUDA.
        settle(mx, &copies)?;
        let mut tensors = Vec::with_capacity(copies.len());
        for (stored, array) in spec.tensors().iter().zip(&copies) {
            let source = bytes(mx, array)?;
            let mut data = spec.memory.buffer(source.len());
            data.copy_from_slice(source);
            tensors.push(TensorBytes {
                name: stored.name.clone(),
                part: stored.part,
                dtype: stored.plane.block_dtype,
                shape: vec![stored.plane.heads, range.len(), stored.plane.width],
                data: data.share(),
            });
        }
        Ok(Payload { tensors })
    }

    /// Copies the tokens of a chain of blocks behind its own.
    pub fn append(&mut self, mx: &Mlx, spec: &KvSpec, chain: &Chain<'_>) -> Result<()> {
        let brought =
            self.layers.iter().enumerate().map(|(number, layer)| more(mx, spec, chain, number, layer));
        let brought: Vec<More> = brought.collect::<Result<_>>()?;
        // Tokens behind a row's end are nobody's: until the layers that begin anew are put in, the row is as it was.
        for (number, (layer, more)) in self.layers.iter_mut().zip(&brought).enumerate() {
            if let More::Behind(planes) = more {
                let tokens = chain.length - chain.held;
                layer.reserve(mx, spec, number, chain.held, tokens)?;
                layer.write(mx, chain.held, tokens, planes)?;
            }
        }
        settle(mx, self.layers.iter().flat_map(LayerKv::planes))?;
        for (layer, more) in self.layers.iter_mut().zip(brought) {
            if let More::Anew(anew) = more {
                *layer = anew;
            }
        }
        self.length = chain.length;
        self.states.lose();
        Ok(())
    }
}

/// What a chain of blocks brings to a layer.
enum More {
    /// Tokens behind those that it holds, plane by plane: `[heads, tokens, width]`.
    Behind(Vec<Array>),
    /// The layer, without what it held.
    Anew(LayerKv),
}

fn more(mx: &Mlx, spec: &KvSpec, chain: &Chain<'_>, number: usize, layer: &LayerKv) -> Result<More> {
    let (stored, mask, length) = (spec.tensors_of(number), layer.mask(), chain.length);
    let carried =
        |block: &ImportBlock<'_>| stored.iter().all(|stored| block.payload.tensor(&stored.name).is_some());
    let origin = spec
        .retained(mask)
        .map_or(0, |retained| chain.origin(mask.visible_from(chain.end), retained, carried))
        .max(chain.held);
    if origin == length && origin > chain.held {
        return Ok(More::Anew(LayerKv::with_planes(spec, mask, origin, 0, Vec::new())));
    }
    let anew = origin > chain.held || layer.origin() == chain.held;
    let capacity = if anew { LayerKv::roomy(length - origin) } else { length - origin };
    let mut sources: Vec<Vec<(usize, &ImportBlock<'_>, &TensorBytes)>> = vec![Vec::new(); stored.len()];
    for (index, (start, block)) in chain.blocks().enumerate() {
        if start + block.used_tokens > origin {
            for (of_plane, tensor) in sources.iter_mut().zip(chain.tensors(index, stored.iter())?) {
                of_plane.push((start, block, tensor));
            }
        }
    }
    let mut gathered: Vec<Vec<u8>> = vec![Vec::new(); stored.len()];
    threads::pieces(true, &mut gathered, 1, |plane, gathered| {
        gathered[0] = gather(&stored[plane], &sources[plane], origin, capacity);
    });
    let planes = stored.iter().zip(&gathered).map(|(Stored { plane, .. }, bytes)| {
        from_bytes(mx, bytes, &dims([plane.heads, capacity, plane.width]), plane.dtype)
    });
    let planes = planes.collect::<Result<_>>()?;
    Ok(if anew {
        More::Anew(LayerKv::with_planes(spec, mask, origin, capacity, planes))
    } else {
        More::Behind(planes)
    })
}

/// The bytes `[heads, capacity, width]` of one plane, zero behind the last token. Sources are tensors with their blocks and
/// those blocks' first positions.
fn gather(
    stored: &Stored,
    sources: &[(usize, &ImportBlock<'_>, &TensorBytes)],
    origin: usize,
    capacity: usize,
) -> Vec<u8> {
    let (heads, vector) = (stored.plane.heads, stored.plane.vector_bytes());
    let mut bytes = vec![0_u8; heads * capacity * vector];
    for &(start, block, tensor) in sources {
        let skipped = origin.saturating_sub(start);
        let (count, slot) = (block.used_tokens - skipped, start + skipped - origin);
        for head in 0..heads {
            let source = &tensor.data[(head * block.block_tokens + skipped) * vector..][..count * vector];
            bytes[(head * capacity + slot) * vector..][..count * vector].copy_from_slice(source);
        }
    }
    bytes
}

//! Rows to blocks and back: the packed bytes as they are, never decoded.
//!
//! 1. Exporting what was imported gives the same bytes.
//! 2. A tensor is named `layer.side[.plane]`, `003.k.packed` say, shaped `[heads, tokens, width]`, little-endian.
//! 3. An import takes all it is given or nothing: a tensor that is missing, shaped or typed otherwise is an error.
//! 4. A window layer takes only the blocks it still needs; window parts of blocks before those may be missing.

use std::ops::Range;
use std::rc::Rc;

use mlx_rs::Array;
use prefixd_cache::{Part, Payload, TensorBytes};
use prefixd_engine::ImportBlock;
use rayon::prelude::*;

use super::batch::{BatchKv, RowKv};
use super::format::Plane;
use super::layer::LayerKv;
use super::spec::{KvSpec, Side};
use crate::mlx::array::{Result, bytes, dims, from_bytes, item_bytes, settle};
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::mask::Mask;

fn tensor_name(layer: usize, side: Side, plane: &Plane) -> String {
    format!("{layer:03}.{}{}", side.letter(), plane.suffix)
}

fn part(mask: Mask) -> Part {
    match mask {
        Mask::Causal => Part::Full,
        Mask::Window { .. } => Part::Window,
    }
}

impl BatchKv {
    /// The bytes of a row's tokens at absolute positions `range`.
    ///
    /// # Errors
    /// When the row does not hold them; a window layer holds at least the last two blocks of a row.
    pub fn export(&self, mx: &Mlx, row: usize, range: Range<usize>) -> Result<Payload> {
        let RowKv { length, layers } = self.row(row)?;
        if range.is_empty() || range.end > *length {
            return Err(MlxError::block(format!("tokens {range:?} of a row that holds {length}")));
        }
        let mut copies = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            if layer.origin() > range.start {
                return Err(MlxError::block(format!(
                    "tokens {range:?}: layer {number} has a window and holds positions from {} on",
                    layer.origin()
                )));
            }
            for view in layer.read(mx, range.start, range.end)? {
                copies.push(view.contiguous()?);
            }
        }
        // All at once: waiting for each by itself took four fifths of a prefill on CUDA.
        settle(mx, &copies)?;
        let mut tensors = Vec::with_capacity(copies.len());
        let mut copies = copies.iter();
        for (number, layer) in layers.iter().enumerate() {
            for ((side, plane), array) in self.spec().sides().zip(&mut copies) {
                tensors.push(TensorBytes {
                    name: tensor_name(number, side, plane),
                    part: part(layer.mask()),
                    dtype: plane.block_dtype,
                    shape: vec![plane.heads, range.len(), plane.width],
                    data: bytes(mx, array)?.to_vec(),
                });
            }
        }
        Ok(Payload { tensors })
    }

    /// A batch of one row that holds the blocks' tokens, in order from position 0.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn import(mx: &Mlx, spec: &Rc<KvSpec>, blocks: &[ImportBlock<'_>]) -> Result<Self> {
        let mut row = Self::start(spec.clone());
        row.append(mx, 0, blocks, blocks.iter().map(|block| block.used_tokens).sum())?;
        Ok(row)
    }

    /// Appends the blocks' tokens to a row. `end` is what the row will hold when the last piece is in: window layers take
    /// what is needed there.
    ///
    /// # Errors
    /// When a block lacks what the row needs, or holds something else than this model's tensors. The row stays as it was.
    pub fn append(&mut self, mx: &Mlx, row: usize, blocks: &[ImportBlock<'_>], end: usize) -> Result<()> {
        let RowKv { length, layers } = self.row(row)?;
        let (spec, held) = (self.spec().clone(), *length);
        let (starts, length) = chain(held, blocks)?;
        if length > end {
            return Err(MlxError::input(format!("blocks up to token {length} for a row that ends at {end}")));
        }
        let mut more = Vec::with_capacity(layers.len());
        for (number, layer) in layers.iter().enumerate() {
            let mask = layer.mask();
            let chain = Chain { spec: &spec, number, mask, blocks, starts: &starts, length, end };
            more.push(chain.more(mx, layer, held)?);
        }
        let row = &mut self.rows_mut()[row];
        // Tokens behind a row's end are nobody's: until the layers that begin anew are put in, the row is as it was.
        for (layer, more) in row.layers.iter_mut().zip(&more) {
            if let More::Behind(planes) = more {
                layer.reserve(mx, &spec, held, length - held)?;
                layer.write(mx, held, length - held, planes)?;
            }
        }
        settle(mx, row.layers.iter().flat_map(LayerKv::planes))?;
        for (layer, more) in row.layers.iter_mut().zip(more) {
            if let More::Anew(anew) = more {
                *layer = anew;
            }
        }
        row.length = length;
        Ok(())
    }
}

/// First positions of the blocks behind a row of `held` tokens, and where they end, after checking that they form a chain.
fn chain(from: usize, blocks: &[ImportBlock<'_>]) -> Result<(Vec<usize>, usize)> {
    let mut starts = Vec::with_capacity(blocks.len());
    let mut next = from;
    for (i, block) in blocks.iter().enumerate() {
        let (held, used) = (block.block_tokens, block.used_tokens);
        let last = i + 1 == blocks.len();
        if used == 0 || used > held || (used < held && !last) {
            return Err(MlxError::block(format!(
                "block {i} of {}: {used} of {held} tokens wanted; only the last may be used in part",
                blocks.len()
            )));
        }
        starts.push(next);
        next += used;
    }
    Ok((starts, next))
}

/// What a chain of blocks brings to a layer.
enum More {
    /// Tokens behind those that it holds, plane by plane: `[heads, tokens, width]`.
    Behind(Vec<Array>),
    /// The layer, without what it held.
    Anew(LayerKv),
}

/// One layer's share of a chain of blocks, which ends at position `length` of a row that will end at `end`.
struct Chain<'a> {
    spec: &'a KvSpec,
    number: usize,
    mask: Mask,
    blocks: &'a [ImportBlock<'a>],
    starts: &'a [usize],
    length: usize,
    end: usize,
}

impl Chain<'_> {
    /// What comes to `layer` of a row that holds `held` tokens.
    fn more(&self, mx: &Mlx, layer: &LayerKv, held: usize) -> Result<More> {
        let origin = self.origin().max(held);
        if origin == self.length && origin > held {
            return Ok(More::Anew(LayerKv::with_planes(self.mask, origin, 0, Vec::new())));
        }
        let anew = origin > held || layer.origin() == held;
        let tokens = self.length - origin;
        let capacity = if anew { LayerKv::roomy(tokens) } else { tokens };
        let sides: Vec<_> = self.spec.sides().collect();
        let gathered: Vec<_> = (sides.par_iter())
            .map(|(side, plane)| self.gather(*side, plane, origin, capacity))
            .collect::<Result<_>>()?;
        let planes = sides.iter().zip(&gathered).map(|((_, plane), bytes)| {
            from_bytes(mx, bytes, &dims([plane.heads, capacity, plane.width]), plane.dtype)
        });
        let planes = planes.collect::<Result<_>>()?;
        Ok(if anew {
            More::Anew(LayerKv::with_planes(self.mask, origin, capacity, planes))
        } else {
            More::Behind(planes)
        })
    }

    /// First position to take. Full layers take all. Window layers must have what the next query sees, and take what
    /// a coming export may ask for as far as the blocks carry it.
    fn origin(&self) -> usize {
        let Some(retained) = self.spec.retained(self.mask) else { return 0 };
        let needed = self.mask.visible_from(self.end);
        let wished = self.end.saturating_sub(retained);
        let mut origin = self.length;
        for (block, &start) in self.blocks.iter().zip(self.starts).rev() {
            let carried = self
                .spec
                .sides()
                .all(|(side, plane)| block.payload.tensor(&tensor_name(self.number, side, plane)).is_some());
            if start + block.used_tokens <= needed && (!carried || start + block.used_tokens <= wished) {
                break;
            }
            origin = start;
        }
        origin.max(wished.min(self.length))
    }

    /// The bytes `[heads, capacity, width]` of one plane, zero behind the last token.
    fn gather(&self, side: Side, plane: &Plane, origin: usize, capacity: usize) -> Result<Vec<u8>> {
        let vector = plane.width * item_bytes(plane.dtype);
        let heads = plane.heads;
        let mut bytes = vec![0_u8; heads * capacity * vector];
        for (i, (block, &start)) in self.blocks.iter().zip(self.starts).enumerate() {
            let end = start + block.used_tokens;
            if end <= origin {
                continue;
            }
            let tensor = self.tensor(i, block, side, plane)?;
            let skipped = origin.saturating_sub(start);
            let (count, slot) = (block.used_tokens - skipped, start + skipped - origin);
            for head in 0..heads {
                let source = &tensor.data[(head * block.block_tokens + skipped) * vector..][..count * vector];
                bytes[(head * capacity + slot) * vector..][..count * vector].copy_from_slice(source);
            }
        }
        Ok(bytes)
    }

    fn tensor<'b>(
        &self,
        index: usize,
        block: &ImportBlock<'b>,
        side: Side,
        plane: &Plane,
    ) -> Result<&'b TensorBytes> {
        let name = tensor_name(self.number, side, plane);
        let tensor = block.payload.tensor(&name).ok_or_else(|| {
            MlxError::block(format!("block {index} lacks the tensor {name}, which is needed"))
        })?;
        let shape = [plane.heads, block.block_tokens, plane.width];
        let bytes = shape.iter().product::<usize>() * item_bytes(plane.dtype);
        if tensor.dtype != plane.block_dtype || tensor.shape != shape || tensor.data.len() != bytes {
            return Err(MlxError::block(format!(
                "block {index}, tensor {name}: found {:?} {:?} of {} bytes, expected {:?} {shape:?} of {bytes}",
                tensor.dtype,
                tensor.shape,
                tensor.data.len(),
                plane.block_dtype
            )));
        }
        Ok(tensor)
    }
}

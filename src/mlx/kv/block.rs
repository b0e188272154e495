//! Rows to blocks and back: the packed bytes as they are, never decoded.
//!
//! 1. Exporting what was imported gives the same bytes.
//! 2. A tensor is named `layer.side[.plane]`, `003.k.packed` say, shaped `[heads, tokens, width]`, little-endian.
//! 3. An import takes all it is given or nothing: a tensor that is missing, shaped or typed otherwise is an error.
//! 4. Window layers take only the blocks they still need; window parts of blocks before those may be missing.

use std::ops::Range;
use std::rc::Rc;

use prefixd_cache::{Payload, TensorBytes};
use prefixd_engine::ImportBlock;

use super::batch::{BatchKv, RowKv};
use super::spec::{KvSpec, Stored};
use crate::mlx::array::Result;
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;

impl BatchKv {
    /// The bytes of a row's tokens at absolute positions `range`. On the host a whole page is not copied: the payload shows
    /// the page itself.
    ///
    /// # Errors
    /// When the row does not hold them; a window layer holds at least the last two blocks of a row.
    pub fn export(&self, mx: &Mlx, row: usize, range: Range<usize>) -> Result<Payload> {
        let row = self.row(row)?;
        if range.is_empty() || range.end > row.length() {
            let length = row.length();
            return Err(MlxError::block(format!("tokens {range:?} of a row that holds {length}")));
        }
        match row {
            RowKv::Host(row) => row.export(self.spec(), range),
            RowKv::Pool(row) => row.export(self.spec(), range),
            RowKv::Device(row) => row.export(mx, self.spec(), range),
        }
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
    /// what is needed there. A whole block that lies in one piece is taken as a page, without a copy on the host, and on a device
    /// when its page is still there.
    ///
    /// # Errors
    /// When a block lacks what the row needs, or holds something else than this model's tensors. The row stays as it was.
    pub fn append(&mut self, mx: &Mlx, row: usize, blocks: &[ImportBlock<'_>], end: usize) -> Result<()> {
        let chain = Chain::new(self.row(row)?.length(), blocks, end)?;
        let spec = self.spec().clone();
        match &mut self.rows_mut()[row] {
            RowKv::Host(row) => row.append(&spec, &chain),
            RowKv::Pool(row) => row.append(&spec, &chain),
            RowKv::Device(row) => row.append(mx, &spec, &chain),
        }
    }
}

/// A row does not hold `range`, because layer `layer` has a window.
pub(super) fn missing(range: &Range<usize>, layer: usize, held: usize) -> MlxError {
    MlxError::block(format!(
        "tokens {range:?}: layer {layer} has a window and holds positions from {held} on"
    ))
}

/// Blocks that follow one another behind a row's tokens.
pub struct Chain<'a> {
    blocks: &'a [ImportBlock<'a>],
    starts: Vec<usize>,
    /// Tokens that the row holds already.
    pub held: usize,
    /// Tokens that it holds with the blocks.
    pub length: usize,
    /// Tokens that it will hold with the pieces that follow these.
    pub end: usize,
}

impl<'a> Chain<'a> {
    fn new(held: usize, blocks: &'a [ImportBlock<'a>], end: usize) -> Result<Self> {
        let mut starts = Vec::with_capacity(blocks.len());
        let mut length = held;
        for (i, block) in blocks.iter().enumerate() {
            let (held, used) = (block.block_tokens, block.used_tokens);
            let last = i + 1 == blocks.len();
            if used == 0 || used > held || (used < held && !last) {
                return Err(MlxError::block(format!(
                    "block {i} of {}: {used} of {held} tokens wanted; only the last may be used in part",
                    blocks.len()
                )));
            }
            starts.push(length);
            length += used;
        }
        if length > end {
            return Err(MlxError::input(format!("blocks up to token {length} for a row that ends at {end}")));
        }
        Ok(Self { blocks, starts, held, length, end })
    }

    /// The blocks, each with its first position.
    pub fn blocks(&self) -> impl Iterator<Item = (usize, &ImportBlock<'a>)> {
        self.starts.iter().copied().zip(self.blocks)
    }

    /// First position that layers with a window take, at most the end of the blocks: what the next query sees, from `needed`
    /// on, and up to `retained` tokens for a coming export as far as blocks are `carried`.
    pub fn origin(
        &self,
        needed: usize,
        retained: usize,
        carried: impl Fn(&ImportBlock<'_>) -> bool,
    ) -> usize {
        let wished = self.end.saturating_sub(retained);
        let mut origin = self.length;
        for (block, &start) in self.blocks.iter().zip(&self.starts).rev() {
            let end = start + block.used_tokens;
            if end <= needed && (end <= wished || !carried(block)) {
                break;
            }
            origin = start;
        }
        origin.max(wished.min(self.length))
    }

    /// Tensors of a block, checked, in the order asked for.
    pub fn tensors<'s>(
        &self,
        index: usize,
        wanted: impl Iterator<Item = &'s Stored>,
    ) -> Result<Vec<&'a TensorBytes>> {
        let ImportBlock { payload, block_tokens, .. } = self.blocks[index];
        let mut next = 0;
        let tensor = |stored: &Stored| {
            let Stored { name, plane, .. } = stored;
            // Nearly always the next one: blocks are written in this order.
            let behind = payload.tensors[next..].iter().position(|tensor| tensor.name == *name);
            let found = behind.map(|at| next + at);
            let found = found.or_else(|| payload.tensors.iter().position(|tensor| tensor.name == *name));
            let at = found.ok_or_else(|| {
                MlxError::block(format!("block {index} lacks the tensor {name}, which is needed"))
            })?;
            let tensor = &payload.tensors[at];
            let shape = [plane.heads, block_tokens, plane.width];
            let bytes = block_tokens * plane.token_bytes();
            if tensor.dtype != plane.block_dtype || tensor.shape != shape || tensor.data.len() != bytes {
                return Err(MlxError::block(format!(
                    "block {index}, tensor {name}: found {:?} {:?} of {} bytes, expected {:?} {shape:?} of {bytes}",
                    tensor.dtype,
                    tensor.shape,
                    tensor.data.len(),
                    plane.block_dtype
                )));
            }
            next = at + 1;
            Ok(tensor)
        };
        wanted.map(tensor).collect()
    }
}

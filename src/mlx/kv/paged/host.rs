//! Rows in the host's memory, as the host's kernels write and read them.

use super::HostRow;
use crate::mlx::array::Result;
use crate::mlx::cpu::store::Pages;
use crate::mlx::error::MlxError;
use crate::mlx::kv::spec::KvSpec;
use crate::mlx::step::RowStep;

impl HostRow {
    /// Writes this row's share, `at`, of the encoded planes of a whole step, `[tokens, heads, width]` each, into a layer.
    pub fn write(&mut self, spec: &KvSpec, layer: usize, at: RowStep, encoded: &[Vec<u8>]) -> Result<()> {
        let page_tokens = spec.block_tokens;
        for (stored, encoded) in spec.tensors_of(layer).iter().zip(encoded) {
            let (vector, token) = (stored.plane.vector_bytes(), stored.plane.token_bytes());
            let new = encoded.get(at.first * token..at.range().end * token).ok_or_else(|| {
                let (range, found) = (at.range(), encoded.len());
                MlxError::backend(format!("tokens {range:?} of encoded planes of {found} bytes"))
            })?;
            let mut done = 0;
            while done < at.tokens {
                let position = at.position + done;
                let (number, slot) = (position / page_tokens, position % page_tokens);
                let count = (page_tokens - slot).min(at.tokens - done);
                let page = self.table_mut(stored.part).own_mut(number).ok_or_else(|| {
                    MlxError::backend(format!("no room for the token at position {position}"))
                })?;
                let plane = &mut page[stored.before * page_tokens..][..page_tokens * token];
                let new = &new[done * token..][..count * token];
                for head in 0..stored.plane.heads {
                    let slots = plane[(head * page_tokens + slot) * vector..].chunks_exact_mut(vector);
                    for (slot, token) in slots.zip(new.chunks_exact(token)) {
                        slot.copy_from_slice(&token[head * vector..][..vector]);
                    }
                }
                done += count;
            }
        }
        Ok(())
    }

    /// What a layer holds, to be read.
    pub fn pages<'a>(&'a self, spec: &KvSpec, layer: usize) -> Pages<'a> {
        let table = self.table(spec.masks[layer].part());
        Pages { first: table.first(), tokens: spec.block_tokens, memory: table.pages().collect() }
    }
}

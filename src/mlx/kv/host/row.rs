//! One row: its length, and a table of pages for each part.
//!
//! 1. Pages before the one that the row's end is in are full and shared. The last may be shared too, with a block or
//!    after a trim: then it is copied before it is written.
//! 2. Tokens are encoded once, when they enter; from then on pages move.
//! 3. Window layers hold what the next query sees, what the last step appended and a block before it; whole pages before
//!    that leave when room is made for the next step.

use mlx_rs::Array;
use prefixd_cache::{Bytes, Part};

use super::table::PageTable;
use crate::mlx::array::{Result, bytes};
use crate::mlx::cpu::store::Pages;
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::spec::KvSpec;
use crate::mlx::kv::state::RowStates;
use crate::mlx::step::RowStep;

/// A row in pages.
#[derive(Clone, Debug, Default)]
pub struct HostRow {
    pub(super) length: usize,
    pub(super) full: PageTable,
    pub(super) window: PageTable,
    /// What recurrent layers keep: a layer's tensors one behind the other, f32.
    pub(in crate::mlx) states: RowStates<Bytes>,
    /// First position that window layers hold, where a page begins before it.
    pub(super) window_origin: usize,
}

impl HostRow {
    /// Tokens held.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The pages of a part.
    pub(super) fn table(&self, part: Part) -> &PageTable {
        if part == Part::Window { &self.window } else { &self.full }
    }

    fn table_mut(&mut self, part: Part) -> &mut PageTable {
        if part == Part::Window { &mut self.window } else { &mut self.full }
    }

    /// Makes room for `more` tokens behind the row's end, in memory that is the row's alone.
    ///
    /// # Errors
    /// When a recurrent layer's state is missing.
    pub fn reserve(&mut self, spec: &KvSpec, more: usize) -> Result<()> {
        if let Some(states) = &spec.states {
            let zero = || Ok(spec.memory.buffer(states.layer_bytes()).share());
            self.states.begin(states.layers.len(), zero)?;
        }
        let (length, tokens) = (self.length, spec.block_tokens);
        let retained = spec.masks.iter().filter_map(|mask| spec.retained(*mask)).max().unwrap_or(0);
        self.window.drop_before(length.saturating_sub(retained) / tokens);
        for part in [Part::Full, Part::Window] {
            let token_bytes = spec.token_bytes(part);
            if token_bytes > 0 {
                let (from, to) = (length / tokens, (length + more).div_ceil(tokens));
                self.table_mut(part).make_own(&spec.memory, from, to, tokens * token_bytes);
            }
        }
        Ok(())
    }

    /// Writes this row's share, `at`, of the encoded planes of a whole step, `[tokens, heads, width]` each, into a layer.
    pub fn write(
        &mut self,
        mx: &Mlx,
        spec: &KvSpec,
        layer: usize,
        at: RowStep,
        encoded: &[Array],
    ) -> Result<()> {
        let page_tokens = spec.block_tokens;
        for (stored, encoded) in spec.tensors_of(layer).iter().zip(encoded) {
            let (vector, token) = (stored.plane.vector_bytes(), stored.plane.token_bytes());
            let encoded = bytes(mx, encoded)?;
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

    /// Counts `more` tokens as held: all layers have them. Pages that are full now can be shared.
    pub fn advance(&mut self, spec: &KvSpec, more: usize) {
        self.length += more;
        self.states.commit();
        let full = self.length / spec.block_tokens;
        self.full.share_before(full);
        self.window.share_before(full);
    }

    /// What a layer holds, to be read.
    pub fn pages<'a>(&'a self, spec: &KvSpec, layer: usize) -> Pages<'a> {
        let table = self.table(spec.masks[layer].part());
        Pages { first: table.first(), tokens: spec.block_tokens, memory: table.pages().collect() }
    }

    /// First position that window layers hold.
    pub(super) fn window_from(&self, spec: &KvSpec) -> usize {
        (self.window.first() * spec.block_tokens).max(self.window_origin)
    }

    /// Forgets the tokens from `length` on. Window layers must still hold what the next query sees.
    pub fn trim(&mut self, spec: &KvSpec, length: usize) -> Result<()> {
        let held = self.window_from(spec);
        let needed = spec.masks.iter().filter(|mask| mask.reach().is_some());
        if let Some(needed) =
            needed.map(|mask| mask.visible_from(length)).min().filter(|needed| held > *needed)
        {
            return Err(MlxError::input(format!(
                "cannot trim to {length} tokens: window layers hold positions from {held}, {needed} is needed"
            )));
        }
        self.length = length;
        let end = length.div_ceil(spec.block_tokens);
        self.full.truncate(end);
        self.window.truncate(end);
        Ok(())
    }
}

//! One row: its length, and a table of pages for each part.
//!
//! 1. Pages before the one that the row's end is in are full and shared. The last may be shared too, with a block or
//!    after a trim: then it is copied before it is written.
//! 2. Tokens are encoded once, when they enter; from then on pages move.
//! 3. Window layers hold what the next query sees, what the last step appended and a block before it; whole pages before
//!    that leave when room is made for the next step.

use prefixd_cache::{Memory, Part};

use super::memory::PageMemory;
use super::pool::DevicePool;
use super::table::PageTable;
use crate::mlx::array::Result;
use crate::mlx::error::MlxError;
use crate::mlx::kv::spec::KvSpec;
use crate::mlx::kv::state::{RowStates, StatesSpec};

/// A row in the host's memory.
pub type HostRow = PagedRow<Memory>;
/// A row in a device's.
pub type PoolRow = PagedRow<DevicePool>;

/// A row in pages.
#[derive(Debug)]
pub struct PagedRow<M: PageMemory> {
    pub(super) length: usize,
    pub(super) full: PageTable<M>,
    pub(super) window: PageTable<M>,
    /// What recurrent layers keep.
    pub(in crate::mlx) states: RowStates<M::State>,
    /// First position that window layers hold, where a page begins before it.
    pub(super) window_origin: usize,
}

impl<M: PageMemory> Default for PagedRow<M> {
    fn default() -> Self {
        Self {
            length: 0,
            full: PageTable::default(),
            window: PageTable::default(),
            states: RowStates::default(),
            window_origin: 0,
        }
    }
}

impl<M: PageMemory> PagedRow<M> {
    /// Tokens held.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The pages of a part.
    pub(in crate::mlx) fn table(&self, part: Part) -> &PageTable<M> {
        if part == Part::Window { &self.window } else { &self.full }
    }

    pub(super) fn table_mut(&mut self, part: Part) -> &mut PageTable<M> {
        if part == Part::Window { &mut self.window } else { &mut self.full }
    }

    /// Makes room for `more` tokens behind the row's end, in memory that is the row's alone.
    /// `zero` makes what a recurrent layer holds before the first token.
    fn make_room(
        &mut self,
        spec: &KvSpec,
        more: usize,
        zero: impl FnOnce() -> Result<M::State>,
    ) -> Result<()> {
        if let Some(states) = &spec.states {
            self.states.begin(states.layers.len(), zero)?;
        }
        let memory = M::of(spec)?;
        let (length, tokens) = (self.length, spec.block_tokens);
        let retained = spec.masks.iter().filter_map(|mask| spec.retained(*mask)).max().unwrap_or(0);
        self.window.drop_before(length.saturating_sub(retained) / tokens);
        for part in [Part::Full, Part::Window] {
            let token_bytes = spec.token_bytes(part);
            if token_bytes > 0 {
                let (from, to) = (length / tokens, (length + more).div_ceil(tokens));
                self.table_mut(part).make_own(memory, part, from, to, tokens * token_bytes)?;
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

    /// A copy: pages that are full are shared, the one being written is copied.
    pub fn duplicate(&self, spec: &KvSpec) -> Result<Self> {
        let memory = M::of(spec)?;
        Ok(Self {
            length: self.length,
            full: self.full.duplicate(memory)?,
            window: self.window.duplicate(memory)?,
            states: self.states.clone(),
            window_origin: self.window_origin,
        })
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

impl HostRow {
    /// Makes room for `more` tokens behind the row's end, in memory that is the row's alone.
    ///
    /// # Errors
    /// When a recurrent layer's state is missing, or there is no memory.
    pub fn reserve(&mut self, spec: &KvSpec, more: usize) -> Result<()> {
        let bytes = spec.states.as_ref().map_or(0, StatesSpec::layer_bytes);
        self.make_room(spec, more, || Ok(spec.memory.buffer(bytes).share()))
    }
}

impl PoolRow {
    /// The same, and for the states that the next step makes.
    ///
    /// # Errors
    /// As on the host.
    pub fn reserve(&mut self, spec: &KvSpec, more: usize) -> Result<()> {
        let pool = DevicePool::of(spec)?;
        let bytes = spec.states.as_ref().map_or(0, StatesSpec::layer_bytes);
        self.make_room(spec, more, || pool.zero_state(bytes))?;
        for layer in 0..self.states.layers() {
            self.states.put(layer, pool.state(bytes)?);
        }
        Ok(())
    }
}

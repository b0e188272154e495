//! The pages of one part of a row's tokens, in order.
//!
//! A page holds a block's worth of tokens of all layers of the part, laid out as the part's file is: tensor by tensor, each
//! `[heads, tokens of a page, width]`.
//!
//! 1. A shared page may be held by blocks and by other rows, and is never written; only the row's own pages, the last of
//!    the table, are. The two are different types, and the way from shared to own copies when anybody else holds the page.
//! 2. Pages leave at the front: those that no window reaches.

use std::collections::VecDeque;

use prefixd_cache::Part;

use super::memory::PageMemory;
use crate::mlx::array::Result;

/// Pages in order.
#[derive(Debug)]
pub struct PageTable<M: PageMemory> {
    /// Number of the first page held; page `n` begins at position `n` times the tokens of a page.
    first: usize,
    shared: VecDeque<M::Shared>,
    own: Vec<M::Own>,
}

impl<M: PageMemory> Default for PageTable<M> {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl<M: PageMemory> PageTable<M> {
    /// A table that holds the pages from number `first` on.
    pub fn starting_at(first: usize) -> Self {
        Self { first, shared: VecDeque::new(), own: Vec::new() }
    }

    /// Number of the first page held.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Number after the last page held.
    pub fn end(&self) -> usize {
        self.first + self.shared.len() + self.own.len()
    }

    /// Takes a page that others may hold as the next one.
    pub fn push_shared(&mut self, page: M::Shared) {
        self.shared.push_back(page);
    }

    /// Takes a page of this row alone as the next one.
    pub fn push_own(&mut self, page: M::Own) {
        self.own.push(page);
    }

    /// The memory of each page, from number `first` on.
    pub fn pages(&self) -> impl Iterator<Item = &M::Page> {
        self.shared.iter().map(|page| &**page).chain(self.own.iter().map(|page| &**page))
    }

    /// A page that others may hold.
    pub fn shared(&self, number: usize) -> Option<&M::Shared> {
        self.shared.get(number.checked_sub(self.first)?)
    }

    /// A page to write into.
    pub fn own_mut(&mut self, number: usize) -> Option<&mut M::Own> {
        self.own.get_mut(number.checked_sub(self.first + self.shared.len())?)
    }

    /// Makes the pages `from..to` the row's own, copying the one that is shared (none behind it is) and adding those that
    /// are missing, of `bytes` each.
    ///
    /// # Errors
    /// When there is no memory for them. What was made stays.
    pub fn make_own(&mut self, memory: &M, part: Part, from: usize, to: usize, bytes: usize) -> Result<()> {
        while self.first + self.shared.len() > from
            && let Some(page) = self.shared.pop_back()
        {
            match memory.make_own(page) {
                Ok(own) => self.own.insert(0, own),
                Err((page, error)) => {
                    self.shared.push_back(page);
                    return Err(error);
                }
            }
        }
        while self.end() < to {
            self.own.push(memory.fresh(part, bytes)?);
        }
        Ok(())
    }

    /// A copy: shared pages are shared, the row's own are copied.
    pub fn duplicate(&self, memory: &M) -> Result<Self> {
        let own = self.own.iter().map(|page| memory.duplicate(page)).collect::<Result<_>>()?;
        Ok(Self { first: self.first, shared: self.shared.clone(), own })
    }

    /// Ends the writing of the pages before number `end`.
    pub fn share_before(&mut self, end: usize) {
        let count = end.saturating_sub(self.first + self.shared.len()).min(self.own.len());
        self.shared.extend(self.own.drain(..count).map(M::share));
    }

    /// Lets go of the pages before number `first`.
    pub fn drop_before(&mut self, first: usize) {
        while self.first < first && self.shared.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// Lets go of the pages from number `end` on.
    pub fn truncate(&mut self, end: usize) {
        let held = end.saturating_sub(self.first);
        self.own.truncate(held.saturating_sub(self.shared.len()));
        self.shared.truncate(held);
    }
}

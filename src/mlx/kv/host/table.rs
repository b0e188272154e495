//! The pages of one part of a row's tokens, in order.
//!
//! A page holds a block's worth of tokens of all layers of the part, laid out as the part's file is: tensor by tensor, each
//! `[heads, tokens of a page, width]`.
//!
//! 1. A shared page may be held by blocks and by other rows, and is never written; only the row's own pages, the last of
//!    the table, are. The two are different types, and the way from shared to own copies when anybody else holds the page.
//! 2. Pages leave at the front: those that no window reaches.

use std::collections::VecDeque;

use prefixd_cache::{Buffer, Bytes, Memory};

/// Pages in order.
#[derive(Clone, Debug, Default)]
pub struct PageTable {
    /// Number of the first page held; page `n` begins at position `n` times the tokens of a page.
    first: usize,
    shared: VecDeque<Bytes>,
    own: Vec<Buffer>,
}

impl PageTable {
    /// A table that holds the pages from number `first` on.
    pub fn starting_at(first: usize) -> Self {
        Self { first, ..Self::default() }
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
    pub fn push_shared(&mut self, page: Bytes) {
        self.shared.push_back(page);
    }

    /// Takes a page of this row alone as the next one.
    pub fn push_own(&mut self, page: Buffer) {
        self.own.push(page);
    }

    /// The memory of each page, from number `first` on.
    pub fn pages(&self) -> impl Iterator<Item = &[u8]> {
        self.shared.iter().map(|page| &**page).chain(self.own.iter().map(|page| &**page))
    }

    /// A page that others may hold.
    pub fn shared(&self, number: usize) -> Option<&Bytes> {
        self.shared.get(number.checked_sub(self.first)?)
    }

    /// A page to write into.
    pub fn own_mut(&mut self, number: usize) -> Option<&mut Buffer> {
        self.own.get_mut(number.checked_sub(self.first + self.shared.len())?)
    }

    /// Makes the pages `from..to` the row's own, copying the one that is shared (none behind it is) and adding those that
    /// are missing, of `bytes` each.
    pub fn make_own(&mut self, memory: &Memory, from: usize, to: usize, bytes: usize) {
        while self.first + self.shared.len() > from
            && let Some(page) = self.shared.pop_back()
        {
            self.own.insert(0, page.into_buffer());
        }
        while self.end() < to {
            self.own.push(memory.buffer(bytes));
        }
    }

    /// Ends the writing of the pages before number `end`.
    pub fn share_before(&mut self, end: usize) {
        let count = end.saturating_sub(self.first + self.shared.len()).min(self.own.len());
        self.shared.extend(self.own.drain(..count).map(Buffer::share));
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

//! Pins from outside: a block with everything before it, and the snapshot that goes with it.
//!
//! 1. As in a server, a pin of a prefix is one of its blocks and of the snapshot that a prompt with this beginning goes on
//!    from.

use prefixd_migrations::Row;

use super::Inspector;
use super::entry::now_us;
use super::stored::Stored;
use crate::disk::index::Change;
use crate::error::CacheError;
use crate::key::BlockKey;
use crate::retention::{Keep, Pin, Retention};

impl Inspector {
    /// Pins a block, and with it everything before it and the snapshot that a prompt up to its end goes on from; by a
    /// snapshot's key that snapshot and the block it lies on. [`Pin::None`] takes the pin of both back.
    ///
    /// # Errors
    /// The store is only looked at, or its index fails.
    pub fn pin(&mut self, key: &BlockKey, pin: Pin) -> Result<(), CacheError> {
        let Some(named) = self.stored.get(key) else { return Ok(()) };
        let until_us = Keep::at(&Retention { pin, ..Retention::default() }, now_us()).pinned_until_us;
        let beside = if named.is_snapshot() { self.ground(named) } else { self.resumed_at(key) };
        let mut pinned = vec![(*key, named.pinned(until_us))];
        if let Some((key, stored)) = beside.and_then(|key| Some((key, self.stored.get(&key)?))) {
            // Others may have pinned it for longer.
            let held_us = if pin == Pin::None { 0 } else { stored.facts().pinned_until_us };
            pinned.push((key, stored.pinned(until_us.max(held_us))));
        }
        let changes: Vec<Change> = pinned.iter().map(|(key, stored)| stored.put(*key)).collect();
        self.change(&changes)?;
        self.stored.extend(pinned);
        Ok(())
    }

    /// The last block of a chain that leads to a snapshot, as far as it is there: the shortest of those that it lies on.
    pub(super) fn ground(&self, snapshot: &Stored) -> Option<BlockKey> {
        let blocks = self.stored.iter().filter_map(|(key, stored)| Some((key, stored.block()?)));
        let under = blocks.filter(|(key, row)| snapshot.lies_on(key, row));
        under.min_by_key(|(_, row)| row.tokens.len()).map(|(key, _)| *key).or(snapshot.facts().parent)
    }

    /// The snapshot that a prompt up to this block's end goes on from.
    fn resumed_at(&self, key: &BlockKey) -> Option<BlockKey> {
        let mut next = Some(*key);
        while let Some((key, row)) = next.and_then(|key| Some((key, self.block(&key)?))) {
            let here = self.stored.iter().filter(|(_, stored)| stored.lies_on(&key, row));
            if let Some((deepest, _)) = here.max_by_key(|(_, stored)| stored.facts().end()) {
                return Some(*deepest);
            }
            next = row.parent.map(BlockKey::from_bytes);
        }
        None
    }

    pub(super) fn block(&self, key: &BlockKey) -> Option<&Row> {
        self.stored.get(key).and_then(Stored::block)
    }
}

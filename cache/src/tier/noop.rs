//! The tier of a cache without one: it keeps nothing.

use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};

use super::{Done, Event, Item, LowerTier, Put, answer};
use crate::block::Block;
use crate::key::BlockKey;
use crate::policy::Usage;
use crate::retention::Keep;

/// Refuses whatever is put; nothing is found in it.
#[derive(Debug, Default)]
pub(crate) struct Noop {
    refused: Vec<Event>,
}

impl LowerTier for Noop {
    fn put(&mut self, put: Put) {
        let (key, copy, queued_bytes) = (put.block.key, put.copy, put.block.bytes());
        let reason = "there is no tier below RAM".into();
        self.refused.push(Event::Failed { key, copy, queued_bytes, reason, short_bytes: 0 });
    }

    fn load(&self, items: Vec<Item>, begun: Instant, done: Done) {
        answer(items, begun, done);
    }

    fn remove(&mut self, _: Vec<BlockKey>) {}

    fn drop_windows(&mut self, _: Vec<BlockKey>) {}

    fn touch(&mut self, _: Vec<(BlockKey, Usage, Keep)>) {}

    fn clear(&mut self) {}

    fn barrier(&mut self) -> Receiver<()> {
        let (reached, wait) = bounded(1);
        // There is room for one, and the other end is here.
        reached.send(()).ok();
        wait
    }

    fn event(&mut self) -> Option<Event> {
        (!self.refused.is_empty()).then(|| self.refused.remove(0))
    }

    fn is_stuck(&self) -> bool {
        false
    }

    fn estimated_bytes(&self, block: &Block) -> u64 {
        block.bytes()
    }
}

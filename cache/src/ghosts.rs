//! Remembers, for a bounded number of blocks, why they are no longer here, so that a miss can say so.

use std::collections::{HashMap, VecDeque};

use crate::key::BlockKey;

/// About 6 MB when full; the oldest is forgotten first.
const CAPACITY: usize = 65_536;

/// Why a block left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Evicted,
    Expired,
    Quarantined,
}

#[derive(Debug, Default)]
pub(crate) struct Ghosts {
    left: HashMap<BlockKey, Left>,
    order: VecDeque<BlockKey>,
}

impl Ghosts {
    pub fn remember(&mut self, key: BlockKey, why: Left) {
        if self.left.insert(key, why).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > CAPACITY {
            if let Some(oldest) = self.order.pop_front() {
                self.left.remove(&oldest);
            }
        }
    }

    pub fn why(&self, key: &BlockKey) -> Option<Left> {
        self.left.get(key).copied()
    }

    pub fn clear(&mut self) {
        self.left.clear();
        self.order.clear();
    }
}

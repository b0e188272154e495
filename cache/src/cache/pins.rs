//! Pins that the owner gives to prefixes, and the share of the budget that they have.
//!
//! 1. What [`pin`](PrefixCache::pin) pins never takes more than a share of the budget: see [`Tuning`](crate::Tuning).
//!    While the share has room anybody may take it. A tenant and its parts that have less than their fair part, the share
//!    divided by all who pin, get room all the same: pins of whoever has most end early, down to that one's fair part.
//! 2. Snapshots have pins and a share of their own, by the same rule.

use std::time::Duration;

use serde::Serialize;

use crate::cache::PrefixCache;
use crate::key::{Account, BlockKey, Tenant};
use crate::retention::{Keep, Pin, Retention};
use crate::tree::Room;

/// What [`PrefixCache::pin`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Pinned {
    /// Blocks that are pinned for at least so long now.
    pub blocks: u64,
    /// Blocks of the prefix for which the pins' share of the budget had no room.
    pub refused_blocks: u64,
}

impl PrefixCache {
    /// Pins the blocks that hold `prefix`, and the snapshot that a prompt with this beginning goes on from, for `time` from now, or leaves them pinned if they are for longer. Blocks beyond
    /// the share of the budget that pins may take, or beyond the tenant's fair part while others fill the rest, are not
    /// pinned, and counted.
    pub fn pin(&mut self, tenant: &Tenant, prefix: &[u32], time: Duration) -> Pinned {
        let keys = self.blocks_of(tenant, prefix);
        let retention = Retention { pin: Pin::For(time), ..Retention::default() };
        let until_us = Keep::at(&retention, self.clock.now_us()).pinned_until_us;
        let mut pinned = Pinned::default();
        for (at, key) in keys.iter().enumerate() {
            if !self.pin_until(key, until_us) {
                pinned.refused_blocks = (keys.len() - at) as u64;
                self.counters.refused_pins += pinned.refused_blocks;
                break;
            }
            pinned.blocks += 1;
        }
        self.pin_snapshot(tenant, prefix, until_us);
        pinned
    }

    /// Ends the pins of these blocks, those for ever excepted: they are the operator's.
    pub fn unpin(&mut self, keys: &[BlockKey]) {
        for key in keys {
            let Some(node) = self.tree.get(key) else { continue };
            if node.keep.pinned_until_us > 0 && node.keep.pinned_until_us < u64::MAX {
                self.tree.end_pin(key);
                self.note_use(key);
            }
        }
        self.unpin_snapshots(keys);
    }

    /// False when the share has no room.
    fn pin_until(&mut self, key: &BlockKey, until_us: u64) -> bool {
        let Some(node) = self.tree.get(key) else { return false };
        let (old, account) = (node.keep, node.tenant.account());
        let keep = old.pinned_until(until_us);
        let more_bytes = if node.is_retained() { 0 } else { node.bytes() };
        if !self.make_pin_room(&account, more_bytes) {
            return false;
        }
        if keep != old {
            self.tree.retain(key, keep);
            self.note_use(key);
        }
        true
    }

    /// Makes room in the share for `more_bytes` of an account. False when it has its fair part already; then no pin ends.
    fn make_pin_room(&mut self, account: &Account, more_bytes: u64) -> bool {
        let limit_bytes = self.pin_limit_bytes();
        loop {
            match self.tree.pins().room(account, more_bytes, limit_bytes) {
                Room::There => return true,
                Room::After(key) if self.pins_may_yield() => {
                    self.tree.end_pin(&key);
                    self.note_use(&key);
                    self.counters.yielded_pins += 1;
                }
                Room::After(_) | Room::None => return false,
            }
        }
    }

    fn pin_limit_bytes(&self) -> u64 {
        (self.lasting_budget_bytes() as f64 * self.pin_share) as u64
    }

    /// The budget of the tier that keeps things: the disk's while it works, else that of RAM.
    pub(super) fn lasting_budget_bytes(&self) -> u64 {
        let sound = self.lower.keeps() && self.lower.degraded.is_none();
        if sound { self.lower.budget_bytes() } else { self.options.resident_bytes }
    }

    /// A disk that takes nothing for a while lowers the limit; that is no reason to end what it holds.
    pub(super) fn pins_may_yield(&self) -> bool {
        self.lower.degraded.is_none()
    }

    /// A longer block takes the place of a pinned one.
    pub(super) fn inherit_pin(&mut self, from: &BlockKey, to: &BlockKey) {
        let (Some(old), Some(new)) = (self.tree.get(from), self.tree.get(to)) else { return };
        if old.is_retained() {
            let keep = new.keep.pinned_until(old.keep.pinned_until_us);
            self.tree.retain(to, keep);
        }
    }
}

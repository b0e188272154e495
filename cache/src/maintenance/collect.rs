//! Cleaning up: what no lookup can find, what outlived itself, what is over a budget.

use std::collections::{BTreeSet, HashMap, HashSet};

use prefixd_migrations::Row;
use serde::Serialize;

use super::entry::now_us;
use super::{Inspector, Removed};
use crate::error::CacheError;
use crate::key::{BlockKey, Fingerprint};
use crate::retention::Keep;

/// What [`Inspector::collect`] removes. Pinned blocks stay, whatever it says.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    /// Blocks of every other fingerprint leave as well.
    pub only: Option<Fingerprint>,
    /// The coldest blocks leave until those that stay fit.
    pub budget_bytes: Option<u64>,
    /// The quarantine stays.
    pub keep_quarantine: bool,
    /// Nothing is removed; the report says what would be.
    pub dry_run: bool,
}

/// What [`Inspector::collect`] removed, or would have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CollectReport {
    /// Blocks whose parent is not there.
    pub orphan_blocks: u64,
    /// Blocks that outlived their lifetime.
    pub expired_blocks: u64,
    /// Blocks of another fingerprint.
    pub foreign_blocks: u64,
    /// Blocks over the budget.
    pub over_budget_blocks: u64,
    /// All of these, and the quarantine.
    pub removed: Removed,
}

impl Inspector {
    /// Removes what is of no use.
    ///
    /// # Errors
    /// The store is only looked at; something cannot be removed.
    pub fn collect(&mut self, wanted: &Collection) -> Result<CollectReport, CacheError> {
        let mut report = CollectReport::default();
        let mut leaving: BTreeSet<BlockKey> = BTreeSet::new();
        self.lost(&mut leaving, wanted, &mut report);
        if let Some(budget_bytes) = wanted.budget_bytes {
            report.over_budget_blocks = self.over_budget(&mut leaving, budget_bytes);
        }
        // Children before parents: an interrupted run leaves no orphan behind.
        let mut keys: Vec<BlockKey> = leaving.into_iter().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(self.rows.get(key).map_or(0, |row| row.start)));
        if wanted.dry_run {
            let bytes = keys.iter().filter_map(|key| self.rows.get(key)).map(Row::all_bytes).sum();
            report.removed = Removed { blocks: keys.len() as u64, quarantine_files: 0, bytes };
            if !wanted.keep_quarantine {
                report.removed.quarantine_files = self.listing.quarantine_files;
                report.removed.bytes += self.listing.quarantine_bytes;
            }
            return Ok(report);
        }
        report.removed = self.remove(&keys)?;
        if !wanted.keep_quarantine {
            let (files, bytes) = self.empty_quarantine()?;
            report.removed.quarantine_files = files;
            report.removed.bytes += bytes;
        }
        Ok(report)
    }

    /// Blocks that are foreign, have outlived themselves, or stand on nothing, from the start of chains to their ends.
    fn lost(&self, leaving: &mut BTreeSet<BlockKey>, wanted: &Collection, report: &mut CollectReport) {
        let now_us = now_us();
        let needed = self.needed();
        let mut rows: Vec<(&BlockKey, &Row)> = self.rows.iter().collect();
        rows.sort_by_key(|(_, row)| row.start);
        for (key, row) in rows {
            let keep = Keep::of(row);
            let parent = row.parent.map(BlockKey::from_bytes);
            let expired = keep.dies_us(row.last_use_us, 0).is_some_and(|dies_us| dies_us <= now_us);
            let why = if parent.is_some_and(|p| !self.rows.contains_key(&p) || leaving.contains(&p)) {
                &mut report.orphan_blocks
            } else if wanted.only.is_some_and(|only| *only.as_bytes() != row.fingerprint) {
                &mut report.foreign_blocks
            } else if expired {
                &mut report.expired_blocks
            } else {
                continue;
            };
            if !needed.contains(key) {
                *why += 1;
                leaving.insert(*key);
            }
        }
    }

    /// The least recently used ends of chains, until what stays fits. Returns how many.
    fn over_budget(&self, leaving: &mut BTreeSet<BlockKey>, budget_bytes: u64) -> u64 {
        let needed = self.needed();
        let mut children: HashMap<BlockKey, u64> = HashMap::new();
        let staying = || self.rows.iter().filter(|(key, _)| !leaving.contains(key));
        for (_, row) in staying() {
            if let Some(parent) = row.parent {
                *children.entry(BlockKey::from_bytes(parent)).or_default() += 1;
            }
        }
        let mut bytes: u64 = staying().map(|(_, row)| row.all_bytes()).sum();
        let rank = |key: &BlockKey, row: &Row| (row.priority, row.last_use_us, *key);
        let mut ends: BTreeSet<_> = staying()
            .filter(|(key, _)| !children.contains_key(key) && !needed.contains(key))
            .map(|(key, row)| rank(key, row))
            .collect();
        let mut count = 0;
        while bytes > budget_bytes {
            let Some((_, _, key)) = ends.pop_first() else { break };
            let Some(row) = self.rows.get(&key) else { break };
            bytes -= row.all_bytes();
            count += 1;
            leaving.insert(key);
            let parent = row.parent.map(BlockKey::from_bytes);
            if let Some((parent, left)) = parent.and_then(|p| children.get_mut(&p).map(|left| (p, left))) {
                *left -= 1;
                if *left == 0
                    && !needed.contains(&parent)
                    && let Some(row) = self.rows.get(&parent)
                {
                    ends.insert(rank(&parent, row));
                }
            }
        }
        count
    }

    /// Pinned blocks and everything before them.
    fn needed(&self) -> HashSet<BlockKey> {
        let now_us = now_us();
        let mut needed = HashSet::new();
        for (key, row) in &self.rows {
            let mut next = Keep::of(row).is_pinned(now_us).then_some(*key);
            while let Some(key) = next {
                if !needed.insert(key) {
                    break;
                }
                next = self.rows.get(&key).and_then(|row| row.parent).map(BlockKey::from_bytes);
            }
        }
        needed
    }
}

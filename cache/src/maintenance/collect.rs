//! Cleaning up: what no lookup can find, what outlived itself, what is over a budget.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use prefixd_migrations::DEFAULT_PRIORITY;
use serde::Serialize;

use super::entry::now_us;
use super::stored::Stored;
use super::{Inspector, Removed};
use crate::error::CacheError;
use crate::key::{BlockKey, Fingerprint};
use crate::retention::Keep;

/// What [`Inspector::collect`] removes. What is pinned stays, whatever it says, with every block before it.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    /// Blocks and snapshots of every other fingerprint leave as well.
    pub only: Option<Fingerprint>,
    /// The coldest blocks and snapshots leave until those that stay fit.
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
    /// Snapshots whose parent is not there.
    pub orphan_snapshots: u64,
    /// Blocks that outlived their lifetime.
    pub expired_blocks: u64,
    /// Blocks of another fingerprint.
    pub foreign_blocks: u64,
    /// Snapshots of another fingerprint.
    pub foreign_snapshots: u64,
    /// Blocks over the budget.
    pub over_budget_blocks: u64,
    /// Snapshots over the budget.
    pub over_budget_snapshots: u64,
    /// All of these, and the quarantine.
    pub removed: Removed,
}

/// Why something leaves.
#[derive(Clone, Copy, Debug)]
enum Why {
    Orphan,
    Expired,
    Foreign,
    OverBudget,
}

type Leaving = BTreeMap<BlockKey, Why>;

impl Inspector {
    /// Removes what is of no use.
    ///
    /// # Errors
    /// The store is only looked at; something cannot be removed.
    pub fn collect(&mut self, wanted: &Collection) -> Result<CollectReport, CacheError> {
        let needed = self.needed();
        let mut leaving = self.lost(wanted, &needed);
        if let Some(budget_bytes) = wanted.budget_bytes {
            self.add_over_budget(&mut leaving, budget_bytes, &needed);
        }
        let mut report = self.report(&leaving);
        if wanted.dry_run {
            if !wanted.keep_quarantine {
                report.removed.quarantine_files = self.listing.quarantine_files;
                report.removed.bytes += self.listing.quarantine_bytes;
            }
            return Ok(report);
        }
        report.removed = self.remove(leaving.into_keys().collect())?;
        if !wanted.keep_quarantine {
            let (files, bytes) = self.empty_quarantine()?;
            report.removed.quarantine_files = files;
            report.removed.bytes += bytes;
        }
        Ok(report)
    }

    fn report(&self, leaving: &Leaving) -> CollectReport {
        let mut report = CollectReport::default();
        for (key, why) in leaving {
            let Some(stored) = self.stored.get(key) else { continue };
            report.removed.count(stored.is_snapshot(), stored.facts().bytes);
            let count = match (why, stored) {
                (Why::Orphan, Stored::Block(_)) => &mut report.orphan_blocks,
                (Why::Orphan, Stored::Snapshot(_)) => &mut report.orphan_snapshots,
                // Snapshots have no lifetime of their own: theirs ends with the block before them.
                (Why::Expired, _) => &mut report.expired_blocks,
                (Why::Foreign, Stored::Block(_)) => &mut report.foreign_blocks,
                (Why::Foreign, Stored::Snapshot(_)) => &mut report.foreign_snapshots,
                (Why::OverBudget, Stored::Block(_)) => &mut report.over_budget_blocks,
                (Why::OverBudget, Stored::Snapshot(_)) => &mut report.over_budget_snapshots,
            };
            *count += 1;
        }
        report
    }

    /// What is foreign, has outlived itself, or stands on nothing, from the start of chains to their ends.
    fn lost(&self, wanted: &Collection, needed: &HashSet<BlockKey>) -> Leaving {
        let now_us = now_us();
        let mut leaving = Leaving::new();
        for (key, stored) in self.by_start().into_iter().filter(|(key, _)| !needed.contains(key)) {
            let facts = stored.facts();
            let dies_us = stored.block().and_then(|row| Keep::of(row).dies_us(row.last_use_us, 0));
            let is_lost = |parent| !self.stored.contains_key(&parent) || leaving.contains_key(&parent);
            let why = if facts.parent.is_some_and(is_lost) {
                Why::Orphan
            } else if wanted.only.is_some_and(|only| only != facts.fingerprint) {
                Why::Foreign
            } else if dies_us.is_some_and(|dies_us| dies_us <= now_us) {
                Why::Expired
            } else {
                continue;
            };
            leaving.insert(key, why);
        }
        leaving
    }

    /// The least recently used of what nothing stands behind, until what stays fits.
    fn add_over_budget(&self, leaving: &mut Leaving, budget_bytes: u64, needed: &HashSet<BlockKey>) {
        let staying: BTreeMap<&BlockKey, &Stored> =
            self.stored.iter().filter(|(key, _)| !leaving.contains_key(key)).collect();
        let mut behind: HashMap<BlockKey, u64> = HashMap::new();
        for parent in staying.values().filter_map(|stored| stored.facts().parent) {
            *behind.entry(parent).or_default() += 1;
        }
        let mut bytes: u64 = staying.values().map(|stored| stored.facts().bytes).sum();
        let rank =
            |key: &BlockKey, stored: &Stored| (self.priority(stored), stored.facts().last_use_us, *key);
        let mut ends: BTreeSet<_> = staying
            .iter()
            .filter(|(key, _)| !behind.contains_key(key) && !needed.contains(key))
            .map(|(key, stored)| rank(key, stored))
            .collect();
        while bytes > budget_bytes {
            let Some((_, _, key)) = ends.pop_first() else { break };
            let Some(facts) = staying.get(&key).map(|stored| stored.facts()) else { break };
            bytes -= facts.bytes;
            leaving.insert(key, Why::OverBudget);
            if let Some((parent, left)) = facts.parent.and_then(|p| behind.get_mut(&p).map(|left| (p, left)))
            {
                *left -= 1;
                if *left == 0
                    && !needed.contains(&parent)
                    && let Some(stored) = staying.get(&parent)
                {
                    ends.insert(rank(&parent, stored));
                }
            }
        }
    }

    /// A block's own; a snapshot has that of the block which it stands behind.
    fn priority(&self, stored: &Stored) -> u8 {
        let parent = || stored.facts().parent.and_then(|parent| self.block(&parent));
        stored.block().or_else(parent).map_or(DEFAULT_PRIORITY, |row| row.priority)
    }

    /// What is pinned, and every block before it.
    fn needed(&self) -> HashSet<BlockKey> {
        let now_us = now_us();
        let mut needed = HashSet::new();
        for (key, stored) in &self.stored {
            let mut next = stored.facts().is_pinned(now_us).then_some(*key);
            while let Some(key) = next {
                if !needed.insert(key) {
                    break;
                }
                next = self.stored.get(&key).and_then(|stored| stored.facts().parent);
            }
        }
        needed
    }
}

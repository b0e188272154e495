//! What lookups found, tenant by tenant, so that one can be told about itself and about nobody else.
//!
//! 1. A tenant's numbers depend on its own lookups alone.
//! 2. Memory is bounded: of the tenants that have not asked for longest the numbers go into one sum without names.

use std::collections::HashMap;

use serde::Serialize;

use crate::key::Tenant;
use crate::lookup::{Lookup, Miss};
use crate::stats::MissStats;

/// About 1 MB.
const MAX_TENANTS: usize = 4_096;

/// What one tenant's lookups found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TenantStats {
    /// Calls of `lookup`.
    pub lookups: u64,
    /// Tokens asked for.
    pub asked_tokens: u64,
    /// Tokens found in RAM.
    pub resident_hit_tokens: u64,
    /// Tokens found on disk.
    pub disk_hit_tokens: u64,
    /// Tokens whose blocks were found and could not be used, because the state that a recurrent model needs there was not.
    pub no_state_tokens: u64,
    /// Lookups by the reason they ended.
    pub misses: MissStats,
}

#[derive(Debug, Default)]
pub(crate) struct Tenants {
    known: HashMap<Tenant, (u64, TenantStats)>,
    sum: TenantStats,
    uses: u64,
}

impl Tenants {
    pub fn count(&mut self, tenant: &Tenant, lookup: &Lookup) {
        self.uses += 1;
        self.sum.add(lookup);
        let entry = self.known.entry(*tenant).or_default();
        entry.0 = self.uses;
        entry.1.add(lookup);
        if self.known.len() > MAX_TENANTS {
            self.forget();
        }
    }

    pub fn of(&self, tenant: &Tenant) -> TenantStats {
        self.known.get(tenant).map(|(_, stats)| *stats).unwrap_or_default()
    }

    pub fn sum(&self) -> TenantStats {
        self.sum
    }

    /// Keeps the later half.
    fn forget(&mut self) {
        let mut uses: Vec<u64> = self.known.values().map(|(use_, _)| *use_).collect();
        uses.sort_unstable();
        let middle = uses.get(uses.len() / 2).copied().unwrap_or_default();
        self.known.retain(|_, (use_, _)| *use_ >= middle);
    }
}

impl TenantStats {
    fn add(&mut self, lookup: &Lookup) {
        let reuse = lookup.reuse();
        self.lookups += 1;
        self.asked_tokens += lookup.asked_tokens as u64;
        self.resident_hit_tokens += reuse.resident_tokens as u64;
        self.disk_hit_tokens += reuse.disk_tokens as u64;
        self.no_state_tokens += reuse.no_state_tokens as u64;
        let misses = &mut self.misses;
        *match lookup.miss {
            Miss::Nothing => &mut misses.nothing,
            Miss::Absent => &mut misses.absent,
            Miss::Diverged { .. } => &mut misses.diverged,
            Miss::Evicted { .. } => &mut misses.evicted,
            Miss::Quarantined { .. } => &mut misses.quarantined,
            Miss::Expired { .. } => &mut misses.expired,
            Miss::Unreadable { .. } => &mut misses.unreadable,
            Miss::OtherFingerprint { .. } => &mut misses.other_fingerprint,
            Miss::NoState { .. } => &mut misses.no_state,
        } += 1;
    }
}

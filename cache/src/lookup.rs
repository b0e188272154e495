//! The answer to "what of this prompt is known": a chain of hits from token 0, and why it ends where it ends.

use serde::Serialize;

use crate::key::BlockKey;

/// What the cache knows of one prompt. No bytes have moved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Tokens asked for: the prompt up to the caller's limit.
    pub asked_tokens: usize,
    /// Tokens known from the start of the prompt, to the token.
    pub tokens: usize,
    /// The blocks that hold them, contiguous from position 0.
    pub hits: Vec<Hit>,
    /// The state after them, where the model needs one; `None` then when there are no tokens.
    pub snapshot: Option<SnapshotHit>,
    /// Tokens behind them whose blocks are known, of no use because no snapshot lies there.
    pub no_state_tokens: usize,
    /// Why not more.
    pub miss: Miss,
}

impl Lookup {
    /// The same, in consecutive parts of whole blocks that can be [restored](crate::PrefixCache::restore) side by side: one when nothing has
    /// to be read, else as many as keep each at `most_tokens` tokens, or at one block. `tokens` of a part is the end of its last block.
    /// The snapshot belongs to the last part.
    pub fn parts(&self, most_tokens: usize) -> Vec<Self> {
        if self.hits.iter().all(|hit| hit.tier == Tier::Resident) {
            return vec![self.clone()];
        }
        let mut parts: Vec<Self> = Vec::new();
        for hit in &self.hits {
            let end = hit.start + hit.used_tokens;
            if let Some(part) = parts.last_mut().filter(|part| end - part.hits[0].start <= most_tokens) {
                part.hits.push(*hit);
                part.tokens = end;
            } else {
                let Self { asked_tokens, no_state_tokens, miss, .. } = *self;
                let (hits, tokens, snapshot) = (vec![*hit], end, None);
                parts.push(Self { asked_tokens, tokens, hits, snapshot, no_state_tokens, miss });
            }
        }
        if let Some(last) = parts.last_mut() {
            last.snapshot = self.snapshot;
        }
        parts
    }

    /// Tokens by the tier they are in, and how many are missing and why.
    pub fn reuse(&self) -> Reuse {
        let tokens_in =
            |tier| self.hits.iter().filter(|hit| hit.tier == tier).map(|hit| hit.used_tokens).sum();
        Reuse {
            resident_tokens: tokens_in(Tier::Resident),
            disk_tokens: tokens_in(Tier::Disk),
            missed_tokens: self.asked_tokens - self.tokens,
            no_state_tokens: self.no_state_tokens,
            miss: self.miss,
        }
    }
}

/// A lookup in numbers, as a client may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reuse {
    /// Tokens found in RAM.
    pub resident_tokens: usize,
    /// Tokens found on disk.
    pub disk_tokens: usize,
    /// Tokens not found.
    pub missed_tokens: usize,
    /// Of these, tokens whose blocks are known, while the state that a recurrent model needs there is not.
    pub no_state_tokens: usize,
    /// Why not.
    pub miss: Miss,
}

/// One block of a [`Lookup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The block.
    pub key: BlockKey,
    /// Position of its first token.
    pub start: usize,
    /// Tokens it holds.
    pub block_tokens: usize,
    /// Tokens of it that the prompt shares, from its first; fewer than `block_tokens` only in the last hit.
    pub used_tokens: usize,
    /// The fastest tier it is in.
    pub tier: Tier,
}

/// The snapshot of a [`Lookup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHit {
    /// Its key.
    pub key: BlockKey,
    /// The fastest tier it is in.
    pub tier: Tier,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// In RAM.
    Resident,
    /// In a file.
    Disk,
}

/// Why a lookup ends where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Miss {
    /// It does not: all of the prompt, up to the caller's limit, is known.
    Nothing,
    /// Nobody computed what follows, as far as the cache remembers.
    Absent,
    /// The prompt and the closest known one part here.
    Diverged {
        /// Position of the first token that differs.
        at: usize,
    },
    /// What follows was known and had to make room.
    Evicted {
        /// Position of the first token that is gone.
        at: usize,
    },
    /// What follows was known and its file was found damaged.
    Quarantined {
        /// Position of the first token that is gone.
        at: usize,
    },
    /// What follows outlived its lifetime.
    Expired {
        /// Position of the first token that is gone.
        at: usize,
    },
    /// What follows is on disk, and the disk does not give it at the moment.
    Unreadable {
        /// Position of the first token that cannot be had.
        at: usize,
    },
    /// What follows is known, a block of it at least, but not the state that a recurrent model needs to go on from there.
    NoState {
        /// Position of the first token that cannot be used.
        at: usize,
    },
    /// What follows is on disk, computed by another model, template or KV setting.
    OtherFingerprint {
        /// Position of the first token that cannot be used.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(number: u8, used_tokens: usize, tier: Tier) -> Hit {
        let key = BlockKey::from_bytes([number; 32]);
        Hit { key, start: number as usize * 16, block_tokens: 16, used_tokens, tier }
    }

    fn lookup(tiers: &[Tier], last_tokens: usize) -> Lookup {
        let last = tiers.len() - 1;
        let used = |i| if i == last { last_tokens } else { 16 };
        let hits = tiers.iter().enumerate().map(|(i, tier)| hit(i as u8, used(i), *tier)).collect();
        let tokens = last * 16 + last_tokens;
        let snapshot = Some(SnapshotHit { key: BlockKey::from_bytes([99; 32]), tier: Tier::Disk });
        Lookup { asked_tokens: 500, tokens, hits, snapshot, no_state_tokens: 0, miss: Miss::Absent }
    }

    #[test]
    fn parts_hold_every_hit_once_in_order_and_the_snapshot_is_in_the_last() {
        let whole = lookup(&[Tier::Disk; 9], 5);
        for (most, ends) in [
            (1, vec![16, 32, 48, 64, 80, 96, 112, 128, 133]),
            (16, vec![16, 32, 48, 64, 80, 96, 112, 128, 133]),
            (33, vec![32, 64, 96, 128, 133]),
            (64, vec![64, 128, 133]),
            (133, vec![133]),
            (1000, vec![133]),
        ] {
            let parts = whole.parts(most);
            assert_eq!(parts.iter().map(|part| part.tokens).collect::<Vec<_>>(), ends, "{most}");
            assert_eq!(parts.iter().flat_map(|part| part.hits.clone()).collect::<Vec<_>>(), whole.hits);
            let snapshots: Vec<_> = parts.iter().map(|part| part.snapshot.is_some()).collect();
            assert_eq!(snapshots.iter().rposition(|has| *has), Some(parts.len() - 1));
            assert_eq!(snapshots.iter().filter(|has| **has).count(), 1);
        }
    }

    #[test]
    fn what_needs_no_reading_is_one_part() {
        let resident = lookup(&[Tier::Resident; 9], 16);
        assert_eq!(resident.parts(16), vec![resident]);
        assert_eq!(lookup(&[Tier::Resident, Tier::Disk], 16).parts(16).len(), 2);
    }
}

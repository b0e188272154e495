//! What the scheduler and the API know of a loaded model.

use prefixd_cache::{Fingerprint, Memory};

use crate::state::StateSpec;

/// Memory of the device that computes, as the engine counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// What all of it together may take; `None`: the engine sets no bound.
    pub budget_bytes: Option<u64>,
    /// The model's weights.
    pub weights_bytes: u64,
    /// All that is in use: weights, rows, and what a step works on.
    pub active_bytes: u64,
    /// Pages of rows and of blocks that stay on the device, with free ones; part of what is in use.
    pub pages_bytes: u64,
    /// Of these, pages that only blocks keep: they go when a row needs the room.
    pub resident_bytes: u64,
    /// Freed and kept for reuse.
    pub kept_bytes: u64,
    /// The most that was in use at once.
    pub peak_bytes: u64,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    /// Identity of everything that decides the bytes of a block besides its tokens.
    pub fingerprint: Fingerprint,
    /// Logits per token.
    pub vocab: usize,
    /// The longest sequence, prompt and answer together, in tokens.
    pub context_tokens: usize,
    /// What the model keeps for a row.
    pub state: StateSpec,
    /// Bytes that the state of all rows together may take where it computes; `None`: the engine sets no bound.
    pub rows_bytes: Option<u64>,
    /// What computes: `cpu`, `metal`, `cuda`, `sim`.
    pub backend: String,
    /// The KV setting as the user writes it: `k8v4`, `16`, ...
    pub kv_format: String,
    /// What rows and the blocks exported from them take their memory from: blocks read from disk are to count with them.
    pub memory: Memory,
}

//! What the scheduler and the API know of a loaded model.

use prefixd_cache::Fingerprint;

use crate::state::StateSpec;

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
    /// What computes: `cpu`, `metal`, `cuda`, `sim`.
    pub backend: String,
    /// The KV setting as the user writes it: `k8v4`, `16`, ...
    pub kv_format: String,
}

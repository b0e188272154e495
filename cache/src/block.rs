//! One block: a fixed run of tokens of one prompt prefix, with the KV bytes that computing them left behind.

use crate::key::{BlockKey, Tenant};
use crate::payload::{Part, Payload};

/// A block in RAM. Immutable: every tier and every reader shares the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Names the block and the whole prefix it ends.
    pub key: BlockKey,
    /// The block before it; `None` for the first block of a prompt.
    pub parent: Option<BlockKey>,
    /// Whose prefix it is.
    pub tenant: Tenant,
    /// Position of its first token in the prompt.
    pub start: usize,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Its KV bytes.
    pub payload: Payload,
}

impl Block {
    /// Position after its last token.
    pub fn end(&self) -> usize {
        self.start + self.tokens.len()
    }

    /// RAM the block takes: tensors and tokens.
    pub fn bytes(&self) -> u64 {
        self.payload.bytes() + 4 * self.tokens.len() as u64
    }

    /// Whether it is a snapshot: what recurrent layers hold after its last token. Its tokens are those behind the last whole
    /// block, `parent`, and may be none.
    pub fn is_snapshot(&self) -> bool {
        self.payload.tensors.iter().any(|tensor| tensor.part == Part::State)
    }

    /// Whether any tensor belongs to sliding-window layers.
    pub fn has_window_part(&self) -> bool {
        self.payload.tensors.iter().any(|tensor| tensor.part == Part::Window)
    }
}

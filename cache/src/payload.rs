//! What a block carries: the named host-byte tensors of its tokens, whatever computed them.
//!
//! 1. The cache never looks inside a tensor: what went in comes out, byte for byte.
//! 2. A tensor belongs to one part. The window part can be left out when no window reaches the block any more.

use safetensors::Dtype;

use crate::memory::Bytes;

/// Which layers a tensor belongs to, and with that what a prefix needs of it to go on after n tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Layers that see the whole prefix: all n tokens' are needed.
    Full,
    /// Sliding-window layers: the last tokens' are needed, as many as the window can still see.
    Window,
    /// Recurrent layers: what they hold after exactly n tokens is needed, and nothing else. Snapshots have it alone.
    State,
}

/// One tensor as host bytes, little-endian, row-major, contiguous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorBytes {
    /// Unique within the payload; letters, digits, `.`, `_`.
    pub name: String,
    /// The part it belongs to.
    pub part: Part,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions; their product times the element size is `data.len()`.
    pub shape: Vec<usize>,
    /// The bytes: where they were computed or read, shared with whoever else holds them.
    pub data: Bytes,
}

/// The tensors of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// In the engine's order.
    pub tensors: Vec<TensorBytes>,
}

impl Payload {
    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.data.len() as u64).sum()
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorBytes> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

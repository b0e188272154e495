//! What can go wrong with MLX and with a model's files, in the contract's kinds.

use std::path::PathBuf;

use mlx_rs::error::Exception;
use prefixd_engine::EngineError;

use crate::mlx::kv::KvSettingError;
use crate::mlx::memory::MemoryNeed;

/// Why something in this module failed: the contract's error, in a type of this module's own, so that MLX's exceptions
/// become one where they are thrown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct MlxError(EngineError);

impl MlxError {
    /// See [`EngineError::Backend`].
    pub(super) fn backend(what: String) -> Self {
        Self(EngineError::Backend(what))
    }

    /// Of the kind that a device's own words say.
    pub(super) fn described(what: &str) -> Self {
        Self(kind(what))
    }

    /// See [`EngineError::Block`].
    pub(super) fn block(what: String) -> Self {
        Self(EngineError::Block(what))
    }

    /// See [`EngineError::Input`].
    pub(super) fn input(what: String) -> Self {
        Self(EngineError::Input(what))
    }
}

impl From<MlxError> for EngineError {
    fn from(error: MlxError) -> Self {
        error.0
    }
}

impl From<EngineError> for MlxError {
    fn from(error: EngineError) -> Self {
        Self(error)
    }
}

impl From<Exception> for MlxError {
    fn from(error: Exception) -> Self {
        Self(kind(error.what()))
    }
}

/// What MLX and the systems under it say when an allocation fails, in lower case.
const OUT_OF_MEMORY: [&str; 7] = [
    "out of memory",
    "outofmemory",
    "insufficient memory",
    "unable to allocate",
    "maximum allowed buffer size",
    "memoryallocation",
    "bad_alloc",
];

/// What they say when every later call fails as well.
const DEVICE_LOST: [&str; 14] = [
    "illegal memory access",
    "illegal address",
    "misaligned address",
    "illegal instruction",
    "unspecified launch failure",
    "device-side assert",
    "uncorrectable",
    "launch timed out",
    "no cuda-capable device",
    "driver shutting down",
    "context is destroyed",
    "gpu hang",
    "gpu timeout",
    "innocent victim",
];

/// The kind of an exception. MLX tells them apart by their texts alone, so this is the one place that reads them.
fn kind(what: &str) -> EngineError {
    let lower = what.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
    let what = plain_words(what);
    if says(&OUT_OF_MEMORY) {
        EngineError::OutOfMemory(what)
    } else if says(&DEVICE_LOST) {
        EngineError::DeviceLost(what)
    } else {
        EngineError::Backend(what)
    }
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// The model wants something that is not implemented.
    #[error("config.json: {key} is {found}; supported: {expected}")]
    Unsupported {
        /// Key of the configuration.
        key: &'static str,
        /// What it says.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// No family of this name is implemented.
    #[error(
        "config.json: model_type is {found}, which is not supported; nearest to it: {nearest}. `prefixd models` lists all"
    )]
    Family {
        /// What the file says.
        found: String,
        /// Supported ones that are spelled alike.
        nearest: String,
    },
    /// The configuration contradicts itself.
    #[error("config.json: {0}")]
    Config(String),
    /// A tensor is missing, left over, or of another shape.
    #[error("weights: {0}")]
    Weights(String),
    /// There is not enough memory.
    #[error("not enough memory: {0}. A model of fewer parameters or fewer bits would fit")]
    Memory(MemoryNeed),
    /// The model cannot be served in this KV setting.
    #[error(transparent)]
    Kv(#[from] KvSettingError),
    /// MLX failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// An error of MLX's in its own words, without the place in its source that it ends with.
pub fn plain_words(text: &str) -> String {
    let text = text.split(" at ").take_while(|part| !part.starts_with('/')).collect::<Vec<_>>().join(" at ");
    text.trim_matches('"').to_owned()
}

impl From<MlxError> for LoadError {
    fn from(error: MlxError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<Exception> for LoadError {
    fn from(error: Exception) -> Self {
        MlxError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_s_text_says_what_kind_of_failure_it_is() {
        let memory = [
            "[malloc] Unable to allocate 137438953472 bytes.",
            "[metal::malloc] Attempting to allocate 20971520000 bytes which is greater than the maximum allowed buffer size of 17179869184 bytes.",
            "[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
            "cudaMallocAsync(&data, size, stream) failed: out of memory",
        ];
        let lost = [
            "cudaStreamSynchronize(stream) failed: an illegal memory access was encountered",
            "cudaEventSynchronize(event) failed: unspecified launch failure",
            "[METAL] Command buffer execution failed: Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)",
        ];
        let other = [
            "[matmul] Last dimension of first input with shape (2,3) must match second to last dimension of second input with shape (2,3).",
            "Cache thrashing is happening, please set the environment variable MLX_CUDA_SDPA_CACHE_SIZE to a larger value",
        ];
        assert!(memory.iter().all(|what| matches!(kind(what), EngineError::OutOfMemory(_))));
        assert!(lost.iter().all(|what| matches!(kind(what), EngineError::DeviceLost(_))));
        assert!(other.iter().all(|what| matches!(kind(what), EngineError::Backend(_))));
    }

    #[test]
    fn places_in_the_librarys_source_are_left_out() {
        for (text, plain) in [
            ("[matmul] shapes at odds at /tmp/mlx-c/mlx/c/ops.cpp:12", "[matmul] shapes at odds"),
            ("\"[load] no\" at /root/mlx-rs/src/array.rs:3:4", "[load] no"),
            ("looked at it", "looked at it"),
        ] {
            assert_eq!(plain_words(text), plain);
        }
    }
}

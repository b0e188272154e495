//! prefixd-cache: a tiered, content-addressed, crash-proof store of prompt prefix blocks.
#![forbid(unsafe_code)]

mod key;
mod payload;

pub use key::{BlockKey, Fingerprint, Tenant};
pub use payload::{Part, Payload, TensorBytes};
pub use safetensors::Dtype;

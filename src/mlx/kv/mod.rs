//! Quantized KV caches that batch: rows of packed keys and values, and their way to blocks and back.

mod batch;
pub mod block;
mod format;
mod layer;
mod spec;

pub use batch::BatchKv;
pub(super) use batch::RowKv;
pub(super) use format::GROUP;
pub use format::{Format, KvSetting, KvSettingError, Vectors};
pub(super) use layer::{LayerKv, MOST_SPARE};
pub use spec::KvSpec;

#[cfg(test)]
mod tests;

//! Quantized KV caches that batch: rows of packed keys and values, and their way to blocks and back.
//!
//! Rows keep their tokens in [`paged`] memory and share pages with each other: where attention runs on the host
//! ([`Kernels::Host`](super::Kernels::Host)) in the host's, which the cache's blocks are made of; on NVIDIA GPUs in the device's. Other
//! devices have [`device`] arrays for each row. [`batch`] and [`block`] are what all have in common.

mod batch;
pub mod block;
mod device;
mod format;
mod paged;
mod spec;
mod state;

pub use batch::BatchKv;
pub(super) use batch::RowKv;
pub(super) use device::{DeviceRow, LayerKv, MOST_SPARE};
pub(super) use format::GROUP;
pub use format::{Format, KvSetting, KvSettingError, Vectors};
pub(super) use paged::{DeviceMemory, DevicePage, DevicePool, HostRow, PoolRow};
pub use spec::KvSpec;
pub(super) use state::{DeviceState, RowStates};
pub use state::{StateTensor, StatesSpec};

#[cfg(test)]
mod tests;

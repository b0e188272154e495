//! Quantized KV caches that batch: rows of packed keys and values, and their way to blocks and back.
//!
//! Where attention runs on the host ([`Kernels::Host`](super::Kernels::Host)), rows keep their tokens in [`host`] pages, shared
//! with each other and with the cache's blocks. On a device they have [`device`] arrays of their own. [`batch`] and
//! [`block`] are what both have in common.

mod batch;
pub mod block;
mod device;
mod format;
mod host;
mod spec;
mod state;

pub use batch::BatchKv;
pub(super) use batch::RowKv;
pub(super) use device::{DeviceRow, LayerKv, MOST_SPARE};
pub(super) use format::GROUP;
pub use format::{Format, KvSetting, KvSettingError, Vectors};
pub(super) use host::HostRow;
pub use spec::KvSpec;
pub(super) use state::DeviceState;
pub use state::{StateTensor, StatesSpec};

#[cfg(test)]
mod tests;

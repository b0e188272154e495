//! Rows whose tokens lie in pages: of the host's memory, or of a device's.

mod block;
mod host;
mod memory;
mod pool;
mod row;
mod table;

pub use pool::{DeviceMemory, DevicePage, DevicePool};
pub use row::PagedRow;

/// A row in the host's memory.
pub type HostRow = PagedRow<prefixd_cache::Memory>;
/// A row in a device's.
pub type PoolRow = PagedRow<DevicePool>;

//! Rows whose tokens lie in pages: of the host's memory, or of a device's.

mod block;
mod host;
mod memory;
mod pool;
mod row;
mod table;

pub use memory::PageMemory;
pub use pool::{DeviceMemory, DevicePage, DevicePool};
pub use row::{HostRow, PoolRow};

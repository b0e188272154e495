//! Rows whose tokens lie in pages of host memory.

mod block;
mod row;
mod table;

pub use row::HostRow;

//! Rows whose tokens lie in arrays of their own, layer by layer, on whatever device MLX computes on.

mod block;
mod layer;
mod row;

pub use layer::{LayerKv, MOST_SPARE};
pub use row::DeviceRow;

//! The only module that names `mlx_rs`: the gate, weights, models, quantized KV caches and the engine over them.

pub mod gate;

pub use gate::{Gate, GateError, Host, Job, Mlx, Owner};

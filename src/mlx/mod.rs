//! The only module that names `mlx_rs`: weights, models, quantized KV caches and the engine over them.
//!
//! In data-flow order: `gate` (who may touch MLX), `backend` (what it runs on), `config` and `weights` (what a model
//! directory holds), `layer` and `model` (what it computes), `step`, `pass` and `attention` (one forward pass), [`kv`] (what it
//! leaves behind), `engine` (all of it behind the [`Engine`](prefixd_engine::Engine) contract).

mod array;
mod attention;
mod backend;
mod budget;
pub mod config;
mod cpu;
mod cuda;
mod engine;
mod error;
mod fields;
mod fingerprint;
mod gate {
    //! Who may touch MLX: whoever can show that they are on the thread that its streams belong to.

    pub use prefixd_engine::EngineThread as Mlx;
}
pub mod kv;
mod layer;
mod logits;
mod mask;
mod memory;
mod microfloat;
mod model;
mod pass;
mod product;
mod quantization;
mod rope;
mod selfcheck;
mod step;
mod weights;

pub use array::zeros;
pub use attention::Proof;
pub use backend::{Arithmetic, Backend, Kernels};
pub use budget::DeviceBudget;
pub use engine::{LoadOptions, MlxEngine};
pub use error::{LoadError, MlxError};
pub use gate::Mlx;
pub use kv::{BatchKv, KvSetting, KvSettingError};
pub use mask::Mask;
pub use memory::MemoryNeed;
pub use model::{FAMILIES, Family, State};
pub use prefixd_blas::packed::instruction_set;
pub use quantization::WEIGHT_FORMATS;
pub use selfcheck::{SelfCheck, SelfCheckError, self_check};
pub use weights::{LoadProgress, LoadStage, weight_files};

#[cfg(test)]
mod tests;

//! prefixd: an LLM server on MLX that never computes the same prompt prefix twice.
//!
//! Modules in data-flow order: a request enters through `api`, becomes tokens in `prompt`, is scheduled, computed by
//! an engine (`prefixd-engine` says what that is, `mlx` is one), and its prefix is kept by the `prefixd-cache` crate.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
mod lfs;
mod machine;
pub mod mlx;
pub mod prompt;
mod python_json;
pub mod scheduler;
pub mod service;
pub mod source;
mod wording;

//! The HTTP side over real connections, down to the bytes: on engines without a model.

// Helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cache;
mod chat;
mod client;
mod completions;
mod echo;
mod errors;
mod life;
mod model;
mod server;

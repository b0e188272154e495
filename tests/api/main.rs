//! The HTTP side over real connections, down to the bytes: on engines without a model.

// Helpers of tests may fail as tests do, and take JSON written in place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value)]

mod agents;
mod cache;
mod chat;
mod client;
mod completions;
mod contexts;
mod cut;
mod echo;
mod errors;
mod foreign;
mod format;
mod forms;
mod life;
mod limits;
mod messages;
mod metrics;
mod model;
mod openapi;
mod pins;
mod prompts;
mod responses;
mod server;
mod thinking;
mod told;
mod wire;

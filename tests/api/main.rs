//! The HTTP side over real connections, down to the bytes: on engines without a model.

mod cache;
mod chat;
mod client;
mod completions;
mod echo;
mod errors;
mod life;
mod model;
mod server;

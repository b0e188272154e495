//! The pieces that model files are made of.

mod attention;
mod conv;
mod delta;
mod embedding;
mod experts;
mod feed;
mod host;
mod linear;
mod mixer;
mod mlp;
mod norm;
mod source;

pub use attention::SelfAttention;
pub use embedding::{Embedding, Unembedding};
pub use feed::Feed;
pub use mixer::Mixer;
pub use mlp::Mlp;
pub use norm::{Offset, RmsNorm};
pub use source::{Codes, Source};

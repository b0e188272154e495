//! The pieces that model files are made of.

mod attention;
mod embedding;
mod experts;
mod feed;
mod host;
mod linear;
mod mlp;
mod norm;
mod source;

pub use attention::SelfAttention;
pub use embedding::{Embedding, Unembedding};
pub use feed::Feed;
pub use mlp::Mlp;
pub use norm::{Offset, RmsNorm};
pub use source::{Codes, Source};

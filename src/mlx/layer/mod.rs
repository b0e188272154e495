//! The pieces that model files are made of.

mod attention;
mod beside;
mod conv;
mod delta;
mod embedding;
mod experts;
mod feed;
mod fused;
mod host;
mod latent;
mod linear;
mod mamba;
mod mixer;
mod mlp;
mod norm;
mod per_layer;
mod scan;
mod source;

pub use attention::{KeyValues, SelfAttention};
pub use beside::ExpertsBeside;
pub use embedding::{Embedding, Unembedding};
pub use feed::Feed;
pub use fused::FusedKernels;
pub use mixer::Mixer;
pub use mlp::Mlp;
pub use norm::{Offset, RmsNorm};
pub use per_layer::{PerLayerEmbedding, PerLayerInput};
pub use scan::ScanKernels;
pub use source::{Codes, Source};

//! The engine over MLX: a loaded model and the steps it takes.
//!
//! 1. It lives, works and is dropped on the gate's thread: it holds the token, which stays there.
//! 2. Every method returns with its work done. A method that fails leaves rows at their old length.
//! 3. After loading, every array is materialized, private ones included.

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use mlx_rs::Array;
use prefixd_cache::Payload;

use super::array::{Result, dims, host, host_contiguous, is_settled, settle};
use super::attention::PackedAttention;
use super::backend::{Arithmetic, Backend};
use super::config::ModelConfig;
use super::error::LoadError;
use super::fingerprint::fingerprint;
use super::gate::Mlx;
use super::kv::{BatchKv, KvSetting, KvSpec, LayerKv};
use super::layer::{Holding, Source};
use super::model::{self, Model};
use super::pass::Pass;
use super::step::Step;
use super::weights::{LoadProgress, Weights};
use crate::engine::{DecodedAndPrefilled, Engine, EngineError, EngineInfo, ImportBlock};

/// How a model is to be served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadOptions {
    /// Formats of stored keys and values.
    pub kv: KvSetting,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// On the CPU, quantized weights are held as f32 while they take at most this many bytes, else as codes.
    pub dense_budget_bytes: u64,
    /// Instead of what suits the backend.
    pub arithmetic: Option<Arithmetic>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { kv: KvSetting::DEFAULT, block_tokens: 256, dense_budget_bytes: 8 << 30, arithmetic: None }
    }
}

/// A model on MLX.
pub struct MlxEngine {
    mx: Mlx,
    info: EngineInfo,
    model: Box<dyn Model>,
    spec: Rc<KvSpec>,
    arithmetic: Arithmetic,
    backend: Backend,
    packed: Option<PackedAttention>,
}

/// Which logits a step is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Those of each row's last token.
    Last,
    /// Those of every token.
    All,
}

impl MlxEngine {
    /// Loads the model in `dir`.
    ///
    /// # Errors
    /// What is missing, malformed or unsupported, by name.
    pub fn load(
        mx: &Mlx,
        dir: &Path,
        options: LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> std::result::Result<Self, LoadError> {
        let config = ModelConfig::read(dir)?;
        options.kv.check(config.head_dim)?;
        let backend = Backend::detect(mx)?;
        let arithmetic = options.arithmetic.unwrap_or_else(|| backend.arithmetic());
        let masks = config.masks.clone();
        let spec =
            KvSpec::new(options.kv, config.kv_heads, config.head_dim, masks, options.block_tokens.max(1));
        let fingerprint = fingerprint(dir, &config, &spec, arithmetic, progress)?;
        let mut source = Source {
            weights: Weights::open(mx, dir)?,
            config: &config,
            arithmetic,
            holding: holding(backend, &config, options.dense_budget_bytes),
            progress,
        };
        let model = model::load(mx, &mut source)?;
        source.weights.finish()?;
        let arrays = model.arrays();
        settle(mx, arrays)?;
        let info = EngineInfo {
            fingerprint,
            vocab: config.vocab,
            context_tokens: config.context_tokens,
            window_tokens: config.window_tokens(),
            kv_bytes_per_token: spec.bytes_per_token(),
            backend: backend.name().to_owned(),
            kv_format: spec.setting.to_string(),
        };
        let packed = PackedAttention::new(mx, backend, &spec, config.heads, config.attention_scale)?;
        Ok(Self { mx: mx.token(), info, model, spec: Rc::new(spec), arithmetic, backend, packed })
    }

    /// What computes.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// How it computes.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Tokens of a block.
    pub fn block_tokens(&self) -> usize {
        self.spec.block_tokens
    }

    /// Number of the model's arrays, and how many of them are materialized.
    pub fn materialized(&self) -> (usize, usize) {
        let arrays = self.model.arrays();
        (arrays.len(), arrays.iter().filter(|array| is_settled(&self.mx, array)).count())
    }

    /// Appends `tokens` to the only row. Returns the logits of every one of them.
    pub fn score(&mut self, row: &mut BatchKv, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        only_row(row)?;
        self.step(&mut [(row, tokens.len())], tokens, Wanted::All)
    }

    /// Forgets the tokens of a row from `length` on.
    pub fn trim(&mut self, batch: &mut BatchKv, row: usize, length: usize) -> Result<()> {
        batch.trim(&self.mx, row, length)
    }

    /// New tokens for the rows of batches, each batch with the number of tokens that each of its rows gets. `ids` are
    /// all of them, row by row.
    fn step(
        &mut self,
        batches: &mut [(&mut BatchKv, usize)],
        ids: &[u32],
        wanted: Wanted,
    ) -> Result<Vec<Vec<f32>>> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.info.vocab) {
            let vocab = self.info.vocab;
            return Err(EngineError::Backend(format!("token {id} is outside the vocabulary of {vocab}")));
        }
        let mx = &self.mx;
        let spec = self.spec.clone();
        let spans =
            batches.iter().flat_map(|(batch, tokens)| batch.lengths().map(|length| (length, *tokens)));
        let step = Step::new(mx, spans);
        let ids = Array::from_slice(ids, &dims([ids.len()]));
        let rows = batches.iter_mut().flat_map(|(batch, _)| batch.rows_mut()).collect();
        let mut pass = Pass::new(&step, &spec, rows, self.arithmetic.kernels, self.packed.as_ref());
        let hidden = self.model.forward(mx, &ids, &mut pass)?;
        let hidden = if wanted == Wanted::Last { pass.last(mx, &hidden)? } else { hidden };
        let logits = self.model.logits(mx, &hidden)?.as_type::<f32>()?;
        let rows = batches.iter().flat_map(|(batch, _)| batch.rows());
        settle(mx, rows.flat_map(|row| &row.layers).flat_map(LayerKv::planes).chain([&logits]))?;
        for (batch, tokens) in batches {
            for row in batch.rows_mut() {
                row.length += *tokens;
            }
        }
        let logits = host_contiguous(mx, &logits)?;
        Ok(host::<f32>(mx, &logits)?.chunks_exact(self.info.vocab).map(<[f32]>::to_vec).collect())
    }
}

/// Packed weights stay packed where MLX multiplies them well, and where numbers would not fit.
fn holding(backend: Backend, config: &ModelConfig, dense_budget_bytes: u64) -> Holding {
    // In floating point: sizes out of a file may multiply to anything.
    let [hidden, inner, vocab, layers] =
        [config.hidden, config.intermediate, config.vocab, config.masks.len()].map(|size| size as f64);
    let heads = 2.0 * (config.heads as f64 + config.kv_heads as f64) * config.head_dim as f64;
    let bytes = 4.0 * (layers * hidden * (heads + 3.0 * inner) + 2.0 * vocab * hidden);
    let dense = backend == Backend::Cpu && bytes <= dense_budget_bytes as f64;
    if dense { Holding::Dense } else { Holding::Packed }
}

fn only_row(row: &BatchKv) -> Result<()> {
    match row.len() {
        1 => Ok(()),
        count => Err(EngineError::Backend(format!("a prefill works on one row, found {count}"))),
    }
}

fn one_each(batch: &BatchKv, tokens: &[u32]) -> Result<()> {
    let (rows, tokens) = (batch.len(), tokens.len());
    if rows == tokens {
        return Ok(());
    }
    Err(EngineError::Backend(format!("{tokens} tokens for a batch of {rows} rows")))
}

impl Engine for MlxEngine {
    type Kv = BatchKv;

    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn empty(&self) -> BatchKv {
        BatchKv::new(self.spec.clone())
    }

    fn start(&mut self) -> Result<BatchKv> {
        Ok(BatchKv::start(self.spec.clone()))
    }

    fn import(&mut self, blocks: &[ImportBlock<'_>]) -> Result<BatchKv> {
        BatchKv::import(&self.mx, &self.spec, blocks)
    }

    fn prefill(&mut self, row: &mut BatchKv, tokens: &[u32]) -> Result<Vec<f32>> {
        let (_, logits) = self.decode_and_prefill(&mut self.empty(), &[], row, tokens)?;
        Ok(logits)
    }

    fn decode(&mut self, batch: &mut BatchKv, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        one_each(batch, tokens)?;
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        self.step(&mut [(batch, 1)], tokens, Wanted::Last)
    }

    fn decode_and_prefill(
        &mut self,
        batch: &mut BatchKv,
        tokens: &[u32],
        row: &mut BatchKv,
        chunk: &[u32],
    ) -> Result<DecodedAndPrefilled> {
        one_each(batch, tokens)?;
        only_row(row)?;
        if chunk.is_empty() {
            return Err(EngineError::Backend("a prefill of no tokens has no logits".into()));
        }
        let ids = [tokens, chunk].concat();
        let mut logits = self.step(&mut [(batch, 1), (row, chunk.len())], &ids, Wanted::Last)?;
        let last = logits.pop().ok_or_else(|| EngineError::Backend("no logits came back".into()))?;
        Ok((logits, last))
    }

    fn extend(&mut self, batch: &mut BatchKv, rows: BatchKv) -> Result<()> {
        batch.extend(&self.mx, rows)
    }

    fn filter(&mut self, batch: &mut BatchKv, keep: &[usize]) -> Result<()> {
        batch.filter(&self.mx, keep)
    }

    fn extract(&mut self, batch: &BatchKv, row: usize) -> Result<BatchKv> {
        batch.extract(&self.mx, row)
    }

    fn export(&mut self, batch: &BatchKv, row: usize, range: Range<usize>) -> Result<Payload> {
        batch.export(&self.mx, row, range)
    }
}

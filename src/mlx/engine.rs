//! The engine over MLX: a loaded model and the steps it takes.
//!
//! 1. It lives, works and is dropped on the gate's thread: it holds the token, which stays there.
//! 2. Every method returns with its work done. A method that fails leaves rows at their old length.
//! 3. After loading, every array is materialized, private ones included.

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use mlx_rs::{Array, Dtype};
use prefixd_cache::Payload;
use prefixd_engine::{
    Engine, EngineError, EngineInfo, ImportBlock, LayerState, MemoryUse, OwnState, ReuseRule, RowLogits,
    RowWork, StateSpec, Wanted, check_work,
};

use super::array::{Result, dims, is_settled, settle, wait};
use super::attention::{PagedAttention, Proof};
use super::backend::{Arithmetic, Backend, Kernels};
use super::budget::{self, DeviceBudget, DeviceLimits};
use super::config::Recurrent;
use super::cpu::scan::StateShape;
use super::cuda::Driver;
use super::error::LoadError;
use super::fingerprint::fingerprint;
use super::gate::Mlx;
use super::kv::{BatchKv, DevicePool, KvSetting, KvSpec, MOST_SPARE, RowKv, StateTensor, StatesSpec};
use super::layer::{FusedKernels, ScanKernels, Source};
use super::logits::ToHost;
use super::memory::MemoryNeed;
use super::model::{self, Model};
use super::pass::Pass;
use super::product::DeviceProducts;
use super::step::{RowStep, Step};
use super::weights::{LoadProgress, Weights, weight_files};

/// Tokens of a chunk from which on its buffers are given back: those of smaller ones are soon used again.
const GIVEN_BACK_FROM: usize = 64;

/// How a model is to be served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadOptions {
    /// Formats of stored keys and values.
    pub kv: KvSetting,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// What all of the model and its rows may take of a device that has memory of its own.
    pub device_budget: DeviceBudget,
    /// Tokens of a step at most, for which working memory is set aside there.
    pub step_tokens: usize,
    /// Instead of what suits the backend.
    pub arithmetic: Option<Arithmetic>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            kv: KvSetting::DEFAULT,
            block_tokens: 256,
            device_budget: DeviceBudget::default(),
            step_tokens: 2048,
            arithmetic: None,
        }
    }
}

/// A model on MLX.
pub struct MlxEngine {
    mx: Mlx,
    info: EngineInfo,
    elements: u64,
    model: Box<dyn Model>,
    spec: Rc<KvSpec>,
    arithmetic: Arithmetic,
    backend: Backend,
    /// Where rows lie in pages of a device.
    paged: Option<PagedAttention>,
    to_host: ToHost,
    proofs: Vec<Proof>,
    /// Memory when the model was loaded.
    loaded: MemoryUse,
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
        let (family, config) = model::open(dir)?;
        for mask in &config.masks {
            options.kv.check(config.sides(*mask)[1].width)?;
        }
        let backend = Backend::detect(mx)?;
        let limits = DeviceLimits::set(mx, backend, options.device_budget)?;
        let arithmetic = options.arithmetic.unwrap_or_else(|| backend.arithmetic());
        let (kernels, block_tokens) = (arithmetic.kernels, options.block_tokens.max(1));
        let layers = config.own_masks().iter().map(|mask| (*mask, config.sides(*mask)));
        let spec = match config.latent {
            None => KvSpec::with_layers(kernels, options.kv, layers, block_tokens),
            Some(_) => KvSpec::of_latents(kernels, options.kv, layers, block_tokens),
        };
        let spec =
            spec.with_states(config.recurrent.as_ref().map(|recurrent| states_of(recurrent, arithmetic)));
        let driver = match (backend, kernels) {
            (Backend::Cuda, Kernels::Device) => Some(Rc::new(Driver::open(mx)?)),
            _ => None,
        };
        let spec = match &driver {
            Some(driver) => {
                let pool = DevicePool::new(driver.clone(), spec.memory.clone(), u64::MAX);
                spec.with_pool(pool)
            }
            None => spec,
        };
        let files = weight_files(dir)?;
        let weights = Weights::open(mx, &files)?;
        if backend == Backend::Cpu {
            weights.memory().check()?;
        }
        let fingerprint = fingerprint(dir, &files, &config, &spec, arithmetic, progress)?;
        let products = DeviceProducts::new(mx, backend)?.map(Rc::new);
        let fused = FusedKernels::new(mx, backend)?.map(Rc::new);
        let scans = ScanKernels::new(mx, backend)?.map(Rc::new);
        let joined = spec.pool.is_some() && config.rope.long_queries.is_none();
        let mut source = Source {
            weights,
            elements: 0,
            config: &config,
            arithmetic,
            products,
            fused,
            scans,
            joined,
            progress,
        };
        let model = (family.load)(mx, &mut source)?;
        let elements = source.elements;
        source.weights.finish()?;
        let arrays = model.arrays();
        settle(mx, arrays)?;
        let mut used = budget::used(mx);
        used.weights_bytes = used.active_bytes;
        used.budget_bytes = limits.map(|limits| limits.budget_bytes);
        let rows_bytes = limits.map(|limits| {
            let step = budget::step_bytes(&config, options.step_tokens, config.context_tokens);
            limits.budget_bytes.saturating_sub(used.weights_bytes + limits.kept_bytes + step)
        });
        let info = EngineInfo {
            fingerprint,
            vocab: config.vocab,
            context_tokens: config.context_tokens,
            state: state_of(&spec, &config.shared)?,
            rows_bytes,
            backend: backend.name().to_owned(),
            kv_format: spec.setting.to_string(),
            memory: spec.memory.clone(),
        };
        if let (Some(pool), Some(rows_bytes), Some(limits)) = (&spec.pool, rows_bytes, limits) {
            pool.limit(rows_bytes);
            budget::leave(mx, limits.budget_bytes.saturating_sub(rows_bytes));
        }
        let mut proofs = Vec::new();
        let paged = match &spec.pool {
            Some(pool) => {
                let paged = PagedAttention::new(mx, &spec, pool.device())?;
                proofs = paged.prove(mx, &spec, config.heads, arithmetic.float)?;
                Some(paged)
            }
            None => None,
        };
        let to_host = ToHost::new(mx, driver.as_ref(), config.vocab)?;
        let (mx, spec) = (mx.token(), Rc::new(spec));
        Ok(Self {
            mx,
            info,
            elements,
            model,
            spec,
            arithmetic,
            backend,
            paged,
            to_host,
            proofs,
            loaded: used,
        })
    }

    /// What computes.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// How it computes.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// What the model in `dir` takes to load.
    pub fn memory(mx: &Mlx, dir: &Path) -> std::result::Result<MemoryNeed, LoadError> {
        Ok(Weights::open(mx, &weight_files(dir)?)?.memory())
    }

    /// Weights in the model's matrices: multiply-adds of a token, about.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// What kernels of our own were compared on when the model was loaded; empty where there are none.
    pub fn proofs(&self) -> &[Proof] {
        &self.proofs
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

    /// New tokens for rows of a batch. Rows pass through the model in the order of `work`.
    fn forward(&mut self, batch: &mut BatchKv, work: &[RowWork<'_>]) -> Result<Vec<RowLogits>> {
        let mx = &self.mx;
        let spec = self.spec.clone();
        let lengths: Vec<usize> = batch.lengths().collect();
        let step = Step::new(mx, work.iter().map(|work| (lengths[work.row], work.tokens.len())));
        let ids: Vec<u32> = work.iter().flat_map(|work| work.tokens.iter().copied()).collect();
        let ids = Array::from_slice(&ids, &dims([ids.len()]));
        let mut rows: Vec<Option<&mut RowKv>> = batch.rows_mut().iter_mut().map(Some).collect();
        let rows = work.iter().filter_map(|work| rows[work.row].take()).collect();
        let mut pass = Pass::new(mx, &step, &spec, rows, self.paged.as_ref())?;
        let hidden = self.model.forward(mx, &ids, &mut pass)?;
        let wanted: Vec<i32> =
            step.rows().iter().zip(work).flat_map(|(at, work)| wanted(*at, work)).collect();
        let logits = match pass.select(mx, &hidden, &wanted)? {
            Some(hidden) => Some(self.model.logits(mx, &hidden)?),
            None => None,
        };
        let rows = work.iter().map(|work| &batch.rows()[work.row]);
        let stored = rows.flat_map(RowKv::arrays);
        let logits = if let Some(logits) = logits {
            self.to_host.bring(mx, &logits, stored, self.info.vocab)?
        } else {
            // What lies in pages is there when what was computed from it is.
            settle(mx, stored.chain([&hidden]))?;
            Vec::new()
        };
        let mut logits = logits.into_iter();
        let mut rows = Vec::with_capacity(work.len());
        for work in work {
            rows.push(logits.by_ref().take(work.wanted.count(work.tokens.len())).collect());
            batch.rows_mut()[work.row].advance(&spec, work.tokens.len());
        }
        Ok(rows)
    }
}

/// Indices among all new tokens of a step of those whose logits a row's work wants.
fn wanted(at: RowStep, work: &RowWork<'_>) -> Range<i32> {
    let Range { start, end } = at.range();
    (end - work.wanted.count(end - start)) as i32..end as i32
}

/// What layers keep: those with attention by their masks, those that share with one of them, then the recurrent ones.
fn state_of(spec: &KvSpec, shared: &[usize]) -> std::result::Result<StateSpec, LoadError> {
    // What a row may hold beyond its tokens: on a device the page that it writes and a copy of it, or spare slots.
    let spare = match (spec.kernels, &spec.pool) {
        (Kernels::Host, _) => 0,
        (Kernels::Device, Some(_)) => 2 * spec.block_tokens,
        (Kernels::Device, None) => MOST_SPARE,
    };
    let attention = spec.masks.iter().enumerate().map(|(layer, mask)| {
        let token_bytes = spec.layer_bytes(layer) as u64;
        OwnState {
            rule: mask.reach().map_or(ReuseRule::All, ReuseRule::Last),
            token_bytes,
            row_bytes: token_bytes * spare as u64,
        }
    });
    let shared = shared.iter().map(|with| LayerState::Shared { with: *with });
    let recurrent = spec.states.iter().flat_map(|states| {
        // In pages of a device a step writes the next one beside it.
        let row_bytes = states.layer_bytes() as u64 * if spec.pool.is_some() { 2 } else { 1 };
        states.layers.iter().map(move |_| OwnState { rule: ReuseRule::At, token_bytes: 0, row_bytes })
    });
    let layers = attention.map(LayerState::Own).chain(shared).chain(recurrent.map(LayerState::Own));
    StateSpec::new(layers.collect()).map_err(|error| LoadError::Config(error.to_string()))
}

/// What the recurrent layers of a model keep: the last vectors that went into the convolution, and the matrices.
fn states_of(recurrent: &Recurrent, arithmetic: Arithmetic) -> StatesSpec {
    let tail = StateTensor {
        name: "tail",
        shape: vec![recurrent.taps - 1, recurrent.width],
        dtype: arithmetic.float,
    };
    let matrices =
        recurrent.rule.state().map(|(name, StateShape { value_heads, key_dim, value_dim, .. })| {
            StateTensor { name, shape: vec![value_heads, key_dim, value_dim], dtype: Dtype::Float32 }
        });
    let tensors = [Some(tail), matrices].into_iter().flatten().collect();
    StatesSpec { layers: recurrent.numbers().collect(), tensors }
}

impl Engine for MlxEngine {
    type Kv = BatchKv;

    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn memory(&self) -> MemoryUse {
        let MemoryUse { budget_bytes, weights_bytes, .. } = self.loaded;
        let pages_bytes = self.spec.pool.as_ref().map_or(0, DevicePool::taken_bytes);
        let used = budget::used(&self.mx);
        MemoryUse {
            budget_bytes,
            weights_bytes,
            active_bytes: used.active_bytes + pages_bytes,
            peak_bytes: used.peak_bytes + pages_bytes,
            pages_bytes,
            resident_bytes: self.spec.pool.as_ref().map_or(0, DevicePool::resident_bytes),
            ..used
        }
    }

    fn empty(&self) -> BatchKv {
        BatchKv::new(self.spec.clone())
    }

    fn start(&mut self) -> std::result::Result<BatchKv, EngineError> {
        Ok(BatchKv::start(self.spec.clone()))
    }

    fn append(
        &mut self,
        batch: &mut BatchKv,
        row: usize,
        blocks: &[ImportBlock<'_>],
        end_tokens: usize,
    ) -> std::result::Result<(), EngineError> {
        Ok(batch.append(&self.mx, row, blocks, end_tokens)?)
    }

    fn step(
        &mut self,
        batch: &mut BatchKv,
        work: &[RowWork<'_>],
    ) -> std::result::Result<Vec<RowLogits>, EngineError> {
        check_work(work, batch.len(), self.info.vocab)?;
        if work.is_empty() {
            return Ok(Vec::new());
        }
        let logits = self.forward(batch, work);
        if logits.is_err() && self.paged.is_some() {
            // What has begun may still write into pages that are free from now on.
            wait(&self.mx);
        }
        // A prompt is done, or a step has failed.
        let done = work.iter().any(|work| work.wanted == Wanted::Last && work.tokens.len() > GIVEN_BACK_FROM);
        if self.info.rows_bytes.is_some() && (done || logits.is_err()) {
            budget::give_back(&self.mx);
        }
        Ok(logits?)
    }

    fn trim(
        &mut self,
        batch: &mut BatchKv,
        row: usize,
        tokens: usize,
    ) -> std::result::Result<(), EngineError> {
        Ok(batch.trim(&self.mx, row, tokens)?)
    }

    fn extend(&mut self, batch: &mut BatchKv, rows: BatchKv) -> std::result::Result<(), EngineError> {
        Ok(batch.extend(&self.mx, rows)?)
    }

    fn filter(&mut self, batch: &mut BatchKv, keep: &[usize]) -> std::result::Result<(), EngineError> {
        Ok(batch.filter(&self.mx, keep)?)
    }

    fn extract(&mut self, batch: &BatchKv, row: usize) -> std::result::Result<BatchKv, EngineError> {
        Ok(batch.extract(&self.mx, row)?)
    }

    fn export(
        &mut self,
        batch: &BatchKv,
        row: usize,
        range: Range<usize>,
    ) -> std::result::Result<Payload, EngineError> {
        Ok(batch.export(&self.mx, row, range)?)
    }

    fn snapshot(&mut self, batch: &BatchKv, row: usize) -> std::result::Result<Payload, EngineError> {
        Ok(batch.snapshot(&self.mx, row)?)
    }

    fn resume(
        &mut self,
        batch: &mut BatchKv,
        row: usize,
        snapshot: &Payload,
    ) -> std::result::Result<(), EngineError> {
        Ok(batch.resume(&self.mx, row, snapshot)?)
    }
}

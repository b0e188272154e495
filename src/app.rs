//! Wiring and shutdown order: model files, scheduler, HTTP, signals.
//!
//! Start: listen, read the text side, load the model on the scheduler thread, check it, open the cache, serve.
//! Stop, on SIGTERM, SIGHUP or Ctrl-C: refuse new requests, finish what runs within the grace, write the queued blocks, close
//! the connections, end. A second signal gives up the rest.
//!
//! The connections close last, when the scheduler has said how every answer ended: nobody is left without an end.

mod signals;
mod watch;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::web;
use prefixd_cache::{CacheOptions, DiskOptions};
use prefixd_engine::EngineInfo;
use serde_json::{Map, Value};

use self::signals::Signals;
use crate::api::{
    AdminKey, ApiKeys, ApiSettings, ApiState, KeyLimits, ServedModel, StoreLimits, server, warm_up,
};
use crate::config::{CacheConfig, Config, Size};
use crate::mlx::{DeviceBudget, KvSetting, LoadOptions, LoadProgress, MlxEngine, self_check};
use crate::prompt::{ModelText, ModelTextError, SamplingDefaults, TokenizerError};
use crate::scheduler::{SchedulerOptions, SchedulerThread, StartError};
use crate::service;
use crate::source::ModelSource;

/// Length of the prompt that proves the model right at start-up; long models' windows are not filled to save time.
const SELF_CHECK_TOKENS: usize = 640;

/// Why the server did not start, or how it failed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Host and port.
        address: String,
        /// The system's words.
        reason: std::io::Error,
    },
    /// Tokenizer, template or their configuration.
    #[error(transparent)]
    Text(#[from] ModelTextError),
    /// The tokenizer loses text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The KV setting is none.
    #[error("{0}")]
    KvBits(String),
    /// The threads that compute.
    #[error("starting the threads that compute: {0}")]
    Threads(String),
    /// The model or the cache.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A file of `cache.contexts`.
    #[error("cache.contexts: {path}: {reason}")]
    Context {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP side.
    #[error("the HTTP server failed: {0}")]
    Http(#[from] std::io::Error),
    /// The scheduler died while serving.
    #[error("{0}")]
    Scheduler(String),
}

/// A server that is ready.
pub struct App {
    scheduler: SchedulerThread,
    state: ApiState,
    listener: TcpListener,
    drain: Duration,
    contexts: Vec<NamedContext>,
}

impl App {
    /// Loads `source` and gets everything ready. `progress` hears how far loading is.
    pub fn start(
        config: &Config,
        source: &ModelSource,
        mut progress: impl FnMut(LoadProgress) + Send + 'static,
    ) -> Result<Self, AppError> {
        let address = format!("{}:{}", config.host, config.port);
        let listener = TcpListener::bind((config.host.as_str(), config.port))
            .map_err(|reason| AppError::Listen { address, reason })?;
        let disk = config.cache.as_ref().and_then(disk_options);
        if let Some(error) = disk.and_then(|disk| prefixd_cache::try_directory(&disk).err()) {
            // Later would do for the cache. Now is before minutes of loading.
            if !error.leaves_memory() {
                return Err(StartError::from(error).into());
            }
        }
        let contexts = read_contexts(config)?;
        start_threads(config)?;
        let text = ModelText::open(&source.dir)?;
        text.tokenizer.check()?;
        text.concerns().iter().for_each(|concern| tracing::warn!("{concern}"));
        let load = load_options(config)?;
        let dir = source.dir.clone();
        let build = move |mx: &crate::mlx::Mlx| {
            let failed = |error: &dyn std::error::Error| StartError::Engine(error.to_string());
            let mut engine =
                MlxEngine::load(mx, &dir, load, &mut progress).map_err(|error| failed(&error))?;
            let check = self_check(&mut engine, SELF_CHECK_TOKENS, &mut progress).map_err(|error| {
                StartError::Engine(format!("the start-up check failed, so this model is not served: {error}"))
            })?;
            let distance = format!("{:.1e}", check.distance);
            tracing::debug!(tokens = check.prompt_tokens, distance, "start-up check passed");
            Ok(engine)
        };
        let (cache, block_tokens) = (config.cache.clone(), config.block_tokens);
        let cache = move |info: &EngineInfo| cache.map(|cache| cache_options(&cache, info, block_tokens));
        let scheduler = SchedulerThread::spawn(scheduler_options(config), build, cache)?;
        if let Some(reason) = &scheduler.handle().status().cache.no_disk {
            tracing::warn!("blocks are kept in memory only, and not over a restart: {reason}");
        }
        let state =
            ApiState::new(served(config, source, text), scheduler.handle().clone(), api_settings(config));
        Ok(Self { scheduler, state, listener, drain: config.drain, contexts })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.listener
            .local_addr()
            .map_or_else(|error| error.to_string(), |address| format!("http://{address}"))
    }

    /// What is served.
    pub fn info(&self) -> &EngineInfo {
        self.scheduler.handle().info()
    }

    /// Why there is no disk tier although there should be one.
    pub fn no_disk(&self) -> Option<String> {
        self.scheduler.handle().status().cache.no_disk
    }

    /// Blocks found on disk.
    pub fn blocks_found(&self) -> u64 {
        self.scheduler.handle().status().cache.disk.map_or(0, |disk| disk.tier.blocks)
    }

    /// Serves until a signal, then ends in order. `announce` is called once signals are heard.
    pub fn run(self, announce: impl FnOnce(&Self)) -> Result<(), AppError> {
        let system = actix_web::rt::System::new();
        let mut signals = system.block_on(async { Signals::new() })?;
        announce(&self);
        let Self { scheduler, state, listener, drain, contexts } = self;
        let handle = scheduler.handle().clone();
        let ended = system.block_on(async move {
            let running = server(state.clone(), listener)?;
            service::ready();
            service::watch(handle.gate().clone())?;
            actix_web::rt::spawn(warm_up(state, contexts));
            actix_web::rt::spawn(watch::disk(handle.clone()));
            let http = running.handle();
            let stopped = actix_web::rt::spawn(async move {
                let by = signals.next().await;
                service::stopping();
                tracing::info!("stopping on {by}: running answers get {} s", drain.as_secs());
                handle.drain(drain);
                actix_web::rt::spawn(async move {
                    signals.next().await;
                    handle.drain(Duration::ZERO);
                });
                let ended = web::block(move || scheduler.join()).await;
                http.stop(true).await;
                ended
            });
            running.await?;
            stopped.await.map_err(std::io::Error::other)
        })?;
        ended
            .map_err(|_| AppError::Scheduler("the scheduler's end is unknown".into()))?
            .map_err(AppError::Scheduler)
    }
}

/// A named context's body, as `PUT /v1/contexts/NAME` takes it.
pub type NamedContext = (String, Map<String, Value>);

/// The contexts that the configuration names.
pub fn read_contexts(config: &Config) -> Result<Vec<NamedContext>, AppError> {
    let contexts = config.cache.iter().flat_map(|cache| &cache.contexts);
    contexts.map(|path| read_context(path)).collect()
}

/// A context's body, under the file's name without its ending.
fn read_context(path: &Path) -> Result<(String, Map<String, Value>), AppError> {
    let wrong = |reason: String| AppError::Context { path: path.to_owned(), reason };
    let name = path.file_stem().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| wrong("the file has no name that could be a context's".into()))?;
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let body = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("{error}; expected a JSON object as PUT /v1/contexts takes it")))?;
    Ok((name.to_owned(), body))
}

/// Starts the one pool that computes products and attention; `doctor` starts it the same way. BLAKE3, which digests the weights at the start, has
/// one of its own. The threads of both sleep when there is nothing to do.
pub fn start_threads(config: &Config) -> Result<(), AppError> {
    let known = |threads| AppError::Threads(format!("{threads} threads compute already"));
    prefixd_blas::threads::start(config.threads).map_err(known)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(config.threads);
    pool.thread_name(|i| format!("prefixd-digest-{i}"))
        .build_global()
        .map_err(|error| AppError::Threads(error.to_string()))
}

/// How the model is loaded; `doctor` loads it the same way.
pub fn load_options(config: &Config) -> Result<LoadOptions, AppError> {
    let kv: KvSetting =
        config.kv_bits.parse().map_err(|error| AppError::KvBits(format!("kv.bits: {error}")))?;
    let step_tokens = config.prefill_step_tokens;
    let device_budget = match config.device_budget {
        Size::Bytes(bytes) => DeviceBudget::Bytes(bytes),
        Size::Share(share) => DeviceBudget::Share(share),
    };
    Ok(LoadOptions {
        kv,
        block_tokens: config.block_tokens,
        device_budget,
        step_tokens,
        ..LoadOptions::default()
    })
}

/// How the cache is opened; `doctor` opens it the same way.
pub fn cache_options(cache: &CacheConfig, info: &EngineInfo, block_tokens: usize) -> CacheOptions {
    let (resident_bytes, disk) = (cache.ram_bytes, disk_options(cache));
    CacheOptions { fingerprint: info.fingerprint, block_tokens, resident_bytes, disk }
}

fn disk_options(cache: &CacheConfig) -> Option<DiskOptions> {
    cache.disk.as_ref().map(|disk| DiskOptions {
        dir: disk.dir.clone(),
        budget_bytes: disk.budget_bytes,
        free_floor_bytes: disk.free_floor_bytes,
        write_queue_bytes: disk.write_queue_bytes,
        readers: disk.readers,
    })
}

fn scheduler_options(config: &Config) -> SchedulerOptions {
    let usual = SchedulerOptions::default();
    SchedulerOptions {
        max_batch: config.max_batch,
        queue_limit: config.queue_limit,
        prefill_step_tokens: config.prefill_step_tokens,
        decode_slowdown: config.decode_slowdown,
        block_tokens: config.block_tokens,
        live_bytes: config.live_bytes,
        exact: config.exact,
        idle_ttl: config.cache.as_ref().and_then(|cache| cache.idle_ttl),
        daily_write_bytes: config.cache.as_ref().and_then(|cache| cache.daily_write_bytes),
        pin_share: config.cache.as_ref().map_or(usual.pin_share, |cache| cache.pin_share),
        snapshot_share: config.cache.as_ref().map_or(usual.snapshot_share, |cache| cache.snapshot_share),
        agent_ttl: config.cache.as_ref().map_or(usual.agent_ttl, |cache| cache.session_ttl),
        ..usual
    }
}

fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings {
        body_limit_bytes: config.body_limit_bytes,
        keepalive: config.keepalive,
        max_tokens: config.max_tokens,
        keys: ApiKeys::new(config.api_keys.iter().map(String::as_str)),
        admin: config.admin_key.as_deref().map_or_else(AdminKey::default, AdminKey::new),
        limits: KeyLimits {
            requests_per_minute: config.key_requests_per_minute,
            concurrent: config.key_concurrent_requests,
        },
        cors_origins: config.cors_origins.clone(),
        keeps_answers: config.cache.is_some() && !config.exact,
        responses: StoreLimits { budget_bytes: config.responses_bytes as usize, ttl: config.responses_ttl },
        ..ApiSettings::default()
    }
}

fn served(config: &Config, source: &ModelSource, text: ModelText) -> ServedModel {
    let mut names = vec![source.name.clone()];
    names.extend(config.names.iter().filter(|name| **name != source.name).cloned());
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    ServedModel { names, created, text, defaults: SamplingDefaults::default() }
}

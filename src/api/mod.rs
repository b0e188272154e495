//! The HTTP side: requests in, checked and turned into sequences; events out, as JSON or server-sent events.
//!
//! 1. Bad input is answered with an error object that names the field, never with a 500 or a dropped connection.
//! 2. A field that would change the answer is honoured or refused, never accepted and ignored.
//! 3. Streamed text, concatenated, equals the text that is not streamed: both come from the same [`generation`].
//! 4. A client that leaves drops its streams at once, and that is the cancel.
//!
//! 5. Nothing costs more than a small multiple of its body: what cannot fit is refused before its tokens are found, and what
//!    takes memory or time is done by few at a time ([`work`]).
//!
//! Runs on actix workers. Rendering and encoding prompts happens on actix's blocking threads. Nothing here touches MLX,
//! the cache or the disk.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_cors::Cors;
use actix_web::dev::Server;
use actix_web::{App, HttpServer, middleware, web};
use utoipa_actix_web::{AppExt, service_config::ServiceConfig};

use self::limits::Limits;
use self::metrics::Durations;
use self::openai::ResponseStore;
use self::openapi::Document;
use self::work::Work;
use crate::prompt::{ModelText, SamplingDefaults, TokenIndex};
use crate::scheduler::Handle;

mod agents;
mod anthropic;
mod auth;
mod body;
mod cache;
mod contexts;
mod elsewhere;
mod encoding;
mod error;
mod format;
mod generation;
mod health;
mod limits;
mod marks;
mod memory;
mod metrics;
mod openai;
mod openapi;
mod options;
mod plan;
mod refuse;
mod request_log;
mod session;
mod sse;
mod submit;
mod usage;
mod work;

pub use auth::{AdminKey, ApiKeys};
pub use contexts::warm_up;
pub use error::ApiError;
pub use limits::KeyLimits;
pub use openai::StoreLimits;

/// The name that always means the served model.
pub const DEFAULT_NAME: &str = "default";

/// The model as clients know it.
#[derive(Debug)]
pub struct ServedModel {
    /// Names that requests may use; the first is the model's own. `default` need not be among them.
    pub names: Vec<String>,
    /// When serving began, in seconds since 1970.
    pub created: u64,
    /// Tokenizer, template, stop tokens.
    pub text: ModelText,
    /// What a request that says nothing gets; overrides what the model's maker says.
    pub defaults: SamplingDefaults,
}

impl ServedModel {
    /// The model's own name.
    pub fn name(&self) -> &str {
        self.names.first().map_or(DEFAULT_NAME, String::as_str)
    }

    /// Every name, `default` included, without repetition.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        let default = (!self.names.iter().any(|name| name == DEFAULT_NAME)).then_some(DEFAULT_NAME);
        self.names.iter().map(String::as_str).chain(default)
    }

    fn knows(&self, name: &str) -> bool {
        self.all_names().any(|known| known == name)
    }
}

/// Limits and habits of the HTTP side.
#[derive(Debug)]
pub struct ApiSettings {
    /// A larger request body is refused.
    pub body_limit_bytes: usize,
    /// How long a sender may pause within a body.
    pub body_stall: Duration,
    /// Silence in a stream before a comment is sent; `None` sends none.
    pub keepalive: Option<Duration>,
    /// Answer length in tokens when a request names none.
    pub max_tokens: usize,
    /// Who may ask; without keys, everyone.
    pub keys: ApiKeys,
    /// Who may do what concerns every tenant.
    pub admin: AdminKey,
    /// A prompt that begins with an answered one begins with the answer's own tokens. Not where every answer must be
    /// that of a server that has just started.
    pub keeps_answers: bool,
    /// What is kept of `/v1/responses`.
    pub responses: StoreLimits,
    /// What one key may ask.
    pub limits: KeyLimits,
    /// Origins whose pages may ask, such as `https://example.org`; `*` is every one. None: no page may.
    pub cors_origins: Vec<String>,
    /// Threads that serve connections.
    pub workers: usize,
    /// How long clients may take to read what is left when the server stops.
    pub shutdown: Duration,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            body_limit_bytes: 32_000_000,
            body_stall: Duration::from_secs(20),
            keepalive: Some(Duration::from_secs(10)),
            max_tokens: 2048,
            keys: ApiKeys::default(),
            admin: AdminKey::default(),
            keeps_answers: true,
            responses: StoreLimits::default(),
            limits: KeyLimits::default(),
            cors_origins: Vec::new(),
            workers: 2,
            shutdown: Duration::from_secs(5),
        }
    }
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The model.
    pub model: Arc<ServedModel>,
    /// The way to the scheduler.
    pub scheduler: Handle,
    /// The settings.
    pub settings: Arc<ApiSettings>,
    durations: Arc<Durations>,
    token_index: TokenIndex,
    responses: Arc<ResponseStore>,
    limits: Arc<Limits>,
    work: Arc<Work>,
}

impl ApiState {
    /// Serves `model`, computed by `scheduler`.
    pub fn new(model: ServedModel, scheduler: Handle, settings: ApiSettings) -> Self {
        let text = &model.text;
        let token_index = TokenIndex::new(&text.tokenizer, &text.stop_tokens, settings.keeps_answers);
        let responses = Arc::new(ResponseStore::new(settings.responses));
        let limits = Arc::new(Limits::new(settings.limits));
        let (model, settings) = (Arc::new(model), Arc::new(settings));
        Self {
            model,
            scheduler,
            settings,
            durations: Arc::default(),
            token_index,
            responses,
            limits,
            work: Arc::default(),
        }
    }
}

/// Adds every route, with its description.
fn configure(config: &mut ServiceConfig) {
    config
        .configure(openai::configure)
        .configure(anthropic::configure)
        .configure(health::configure)
        .configure(metrics::configure)
        .configure(cache::configure)
        .configure(agents::configure)
        .configure(contexts::configure)
        .configure(memory::configure)
        .service(openapi::openapi);
}

/// What pages of other origins may do.
fn cors(settings: &ApiSettings) -> Cors {
    let cors = Cors::default().allow_any_method().allow_any_header().expose_any_header().max_age(3600);
    if settings.cors_origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin();
    }
    settings.cors_origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Serves on `listener` until the returned server is stopped. Await it inside an actix system; signals are the
/// caller's business.
pub fn server(state: ApiState, listener: TcpListener) -> io::Result<Server> {
    let (workers, shutdown) = (state.settings.workers, state.settings.shutdown);
    // Every worker adds the routes; one of their descriptions is enough.
    let (_, described) = App::new().into_utoipa_app().configure(configure).split_for_parts();
    let document = web::Data::new(Document::new(described)?);
    let app = move || {
        let (app, _) = App::new().into_utoipa_app().configure(configure).split_for_parts();
        app.app_data(web::Data::new(state.clone()))
            .app_data(document.clone())
            .default_service(web::to(openapi::not_served))
            .wrap(middleware::from_fn(limits::limits))
            .wrap(middleware::from_fn(request_log::head_as_get))
            .wrap(middleware::from_fn(request_log::without_chunks))
            .wrap(middleware::Condition::new(!state.settings.cors_origins.is_empty(), cors(&state.settings)))
            .wrap(middleware::from_fn(request_log::request_log))
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .disable_signals()
        // Whoever closes its sending side has left: its answer is cancelled, during prefill too.
        .h1_allow_half_closed(false)
        .keep_alive(Duration::from_secs(75))
        .shutdown_timeout(shutdown.as_secs())
        .listen(listener)?;
    Ok(server.run())
}

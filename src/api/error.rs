//! Everything that can go wrong with a request, and the one place where it becomes a status and an error object.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::prompt::TemplateError;
use crate::scheduler::{Failure, SubmitError};

/// Seconds after which a client may try again.
const RETRY_AFTER_BUSY: u32 = 1;
const RETRY_AFTER_SHUTDOWN: u32 = 5;
const RETRY_AFTER_FAILING: u32 = 5;

/// What a client gets when a reply cannot be written.
const UNWRITTEN: &str =
    r#"{"error": {"message": "internal error", "type": "server_error", "param": null, "code": null}}"#;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request is wrong.
    #[error("{message}")]
    Invalid {
        /// What was found and what was expected.
        message: String,
        /// The field.
        param: Option<String>,
    },
    /// The request asks for something this server does not do.
    #[error("{what} is not supported yet")]
    Unsupported {
        /// The field.
        param: &'static str,
        /// The field with its value.
        what: String,
    },
    /// No key, or an unknown one.
    #[error("the API key is missing or unknown; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`")]
    Unauthorized,
    /// There is no admin key, so nobody is an admin.
    #[error("this needs the admin key, and the server has none; start it with --admin-key")]
    AdminUnset,
    /// No admin key, or a wrong one.
    #[error("the admin key is missing or wrong; send it as `X-Admin-Key: KEY`")]
    AdminRefused,
    /// Another model was asked for.
    #[error("the model {asked:?} is not served here; {known} is")]
    UnknownModel {
        /// The name in the request.
        asked: String,
        /// The model's own name.
        known: String,
    },
    /// No agent of that name is known to this tenant.
    #[error(
        "there is no agent {id:?}; an agent begins with a request that names its session, and ends when it is not used for a while"
    )]
    UnknownAgent {
        /// The name.
        id: String,
    },
    /// No context of that name is known to this tenant.
    #[error(
        "there is no context {name:?}; put it with PUT /v1/contexts/NAME, or again when its time is over"
    )]
    UnknownContext {
        /// The name.
        name: String,
    },
    /// What is asked for needs blocks on disk.
    #[error("this server keeps no blocks on disk; evict_only would lose them")]
    NoDisk,
    /// Vectors were asked for.
    #[error("this model does not embed: {model} answers; /v1/chat/completions is where")]
    NoEmbeddings {
        /// The model's name.
        model: String,
    },
    /// No such response is stored, or no longer.
    #[error(
        "there is no response {id:?}; stored responses end with the server, in time, and when their room is needed"
    )]
    UnknownResponse {
        /// What was asked for.
        id: String,
        /// The field that named it; `None`: the path.
        param: Option<&'static str>,
    },
    /// No such path.
    #[error(
        "there is nothing at {method} {path}{}",
        instead.as_ref().map_or_else(String::new, |here| format!("; what you look for is at {here}, in the form of OpenAI's or Anthropic's API"))
    )]
    UnknownPath {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
        /// The path that was meant.
        instead: Option<String>,
    },
    /// The path exists, with another method.
    #[error("{path} does not take {method}; it takes {allowed}")]
    Method {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
        /// What works.
        allowed: String,
    },
    /// The body is over the limit.
    #[error("the request body is larger than the limit of {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The body did not come.
    #[error("the request body came too slowly: nothing for {seconds} s, or less than 1 kB a second")]
    BodyStalled {
        /// How long was waited.
        seconds: u64,
    },
    /// The model brings no chat template.
    #[error("{0}")]
    Template(#[from] TemplateError),
    /// The prompt leaves no room for an answer. Clients look for these words, and shorten the conversation.
    #[error(
        "This model's maximum context length is {} tokens, answer included; the prompt has {}{} tokens",
        .0.context_tokens, .0.at_least(), .0.prompt_tokens
    )]
    TooLong(TooLong),
    /// The scheduler did not take the request.
    #[error("{error}")]
    Submit {
        /// Its reason.
        error: SubmitError,
        /// The field that holds the prompt.
        param: &'static str,
    },
    /// The key asks too often.
    #[error("this key asks too often; it may again in {seconds} s")]
    TooManyAMinute {
        /// After which it may again.
        seconds: u32,
    },
    /// The key asks for too much at once.
    #[error("this key has {limit} answers in the making, as many as it may")]
    TooManyAtOnce {
        /// The limit.
        limit: u32,
    },
    /// The sequence failed.
    #[error("{0}")]
    Failed(#[from] Failure),
    /// A fault of this server.
    #[error("internal error: {0}")]
    Internal(String),
}

/// A prompt that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Its tokens.
    pub prompt_tokens: usize,
    /// It has so many or more: they were not all counted.
    pub or_more: bool,
    /// The model's limit.
    pub context_tokens: usize,
    /// The field that holds the prompt.
    pub param: &'static str,
}

impl TooLong {
    /// `at least `, or nothing.
    pub fn at_least(&self) -> &'static str {
        if self.or_more { "at least " } else { "" }
    }
}

impl ApiError {
    /// What the scheduler did not take, with the field that holds the prompt.
    pub fn submit(error: SubmitError, param: &'static str) -> Self {
        match error {
            SubmitError::TooLong { prompt_tokens, context_tokens } => {
                Self::TooLong(TooLong { prompt_tokens, or_more: false, context_tokens, param })
            }
            error => Self::Submit { error, param },
        }
    }

    /// A wrong field.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), param: Some(param.into()) }
    }
}

/// What clients of OpenAI's API read.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorObject,
}

/// An error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorObject {
    /// What was found and what was expected.
    pub message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field that is wrong.
    #[schema(required)]
    pub param: Option<String>,
    /// A name for programs.
    #[schema(required)]
    pub code: Option<&'static str>,
}

/// An error on the wire.
struct Wire<'a> {
    status: u16,
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
    retry_after: Option<u32>,
}

impl ApiError {
    fn wire(&self) -> Wire<'_> {
        let wire = |status, kind, param, code| Wire { status, kind, param, code, retry_after: None };
        let invalid = |param, code| wire(400, "invalid_request_error", param, code);
        match self {
            Self::Invalid { param, .. } => invalid(param.as_deref(), None),
            Self::Unsupported { param, .. } => invalid(Some(param), Some("unsupported_parameter")),
            Self::Unauthorized => wire(401, "invalid_request_error", None, Some("invalid_api_key")),
            Self::AdminUnset => wire(403, "invalid_request_error", None, Some("admin_disabled")),
            Self::AdminRefused => wire(401, "invalid_request_error", None, Some("invalid_admin_key")),
            Self::UnknownModel { .. } => {
                wire(404, "invalid_request_error", Some("model"), Some("model_not_found"))
            }
            Self::UnknownAgent { .. } => {
                wire(404, "invalid_request_error", Some("agent_id"), Some("agent_not_found"))
            }
            Self::UnknownContext { .. } => {
                wire(404, "invalid_request_error", Some("context"), Some("context_not_found"))
            }
            Self::NoDisk => wire(409, "invalid_request_error", Some("evict_only"), Some("no_disk_tier")),
            Self::NoEmbeddings { .. } => invalid(Some("model"), Some("model_does_not_embed")),
            Self::UnknownResponse { param: Some(param), .. } => {
                invalid(Some(param), Some("previous_response_not_found"))
            }
            Self::UnknownResponse { param: None, .. } => {
                wire(404, "invalid_request_error", None, Some("response_not_found"))
            }
            Self::UnknownPath { .. } => wire(404, "invalid_request_error", None, Some("unknown_url")),
            Self::Method { .. } => wire(405, "invalid_request_error", None, Some("method_not_allowed")),
            Self::BodyTooLarge { .. } => wire(413, "invalid_request_error", None, Some("body_too_large")),
            Self::BodyStalled { .. } => wire(408, "invalid_request_error", None, Some("body_timeout")),
            Self::Template(TemplateError::NoTools) => invalid(Some("tools"), None),
            Self::Template(_) => invalid(Some("messages"), None),
            Self::TooLong(TooLong { param, .. })
            | Self::Submit { error: SubmitError::TooLong { .. }, param } => {
                invalid(Some(param), Some("context_length_exceeded"))
            }
            Self::Submit { error: SubmitError::Empty | SubmitError::Vocabulary { .. }, param } => {
                invalid(Some(param), None)
            }
            Self::Submit { error: SubmitError::Busy { .. }, .. } => Wire {
                retry_after: Some(RETRY_AFTER_BUSY),
                ..wire(429, "rate_limit_error", None, Some("queue_full"))
            },
            Self::TooManyAMinute { seconds } => Wire {
                retry_after: Some(*seconds),
                ..wire(429, "rate_limit_error", None, Some("rate_limit_exceeded"))
            },
            Self::TooManyAtOnce { .. } => Wire {
                retry_after: Some(RETRY_AFTER_BUSY),
                ..wire(429, "rate_limit_error", None, Some("concurrency_limit_exceeded"))
            },
            Self::Submit { error: SubmitError::Closed, .. } | Self::Failed(Failure::ShuttingDown) => Wire {
                retry_after: Some(RETRY_AFTER_SHUTDOWN),
                ..wire(503, "server_error", None, Some("shutting_down"))
            },
            Self::Submit { error: SubmitError::Failing { .. }, .. } => Wire {
                retry_after: Some(RETRY_AFTER_FAILING),
                ..wire(503, "server_error", None, Some("engine_failing"))
            },
            Self::Failed(Failure::Constraint(_)) => wire(500, "server_error", None, Some("format_error")),
            Self::Failed(Failure::Engine(_)) => wire(500, "server_error", None, Some("engine_error")),
            Self::Internal(_) => wire(500, "server_error", None, None),
        }
    }

    /// The error object.
    pub fn body(&self) -> ErrorBody {
        let Wire { kind, param, code, .. } = self.wire();
        let param = param.map(str::to_owned);
        ErrorBody { error: ErrorObject { message: self.to_string(), kind, param, code } }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.wire().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.respond(&self.body())
    }
}

impl ApiError {
    /// The error's status and headers around `body`.
    pub fn respond(&self, body: &impl Serialize) -> HttpResponse {
        let wire = self.wire();
        let mut response = HttpResponse::build(self.status_code());
        if let Some(seconds) = wire.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        match self {
            Self::Unauthorized => drop(response.insert_header((header::WWW_AUTHENTICATE, "Bearer"))),
            Self::Method { allowed, .. } => drop(response.insert_header((header::ALLOW, allowed.as_str()))),
            // What was not read of the body would be taken for the next request.
            Self::BodyTooLarge { .. } | Self::BodyStalled { .. } => drop(response.force_close()),
            _ => {}
        }
        if wire.status >= 500 {
            tracing::warn!(status = wire.status, error = %self, "request failed");
        }
        json_response(&mut response, body)
    }
}

/// A JSON body. Our replies always serialize; should one not, the client still gets an error object.
pub fn json_response(response: &mut actix_web::HttpResponseBuilder, body: &impl Serialize) -> HttpResponse {
    match serde_json::to_vec(body) {
        Ok(bytes) => response.content_type("application/json").body(bytes),
        Err(error) => {
            tracing::error!(%error, "a reply could not be written");
            HttpResponse::InternalServerError().content_type("application/json").body(UNWRITTEN)
        }
    }
}

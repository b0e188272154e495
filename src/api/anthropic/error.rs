//! Errors in Anthropic's words: the same status and headers, another object.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::{ApiError, TooLong};

/// An [`ApiError`] on its way to a client of Anthropic's API.
#[derive(Debug)]
pub struct AnthropicError(ApiError);

impl From<ApiError> for AnthropicError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl fmt::Display for AnthropicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for AnthropicError {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        self.0.respond(&body(&self.0))
    }
}

/// What clients of Anthropic's API read.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnthropicErrorBody {
    /// `error`
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The error.
    pub error: AnthropicErrorObject,
}

/// An error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnthropicErrorObject {
    /// The kind of error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What was found and what was expected.
    pub message: String,
    /// What a client can act on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<AnthropicErrorDetails>,
}

/// What a client can act on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnthropicErrorDetails {
    /// What kind of refusal it is.
    pub error_code: &'static str,
    /// Fields that this server does not act on.
    pub unsupported: Vec<&'static str>,
}

/// The error object.
pub fn body(error: &ApiError) -> AnthropicErrorBody {
    let kind = match error.status_code().as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    // Anthropic's clients understand these: they go on without a thread, and send the whole history.
    let threads = matches!(error, ApiError::Unsupported { param: "thread", .. });
    let details = threads.then_some(AnthropicErrorDetails {
        error_code: "thread_unsupported_request",
        unsupported: vec!["thread"],
    });
    let message = match error {
        // Clients look for these words, and shorten the conversation.
        ApiError::TooLong(long @ TooLong { prompt_tokens, context_tokens, .. }) => {
            let most = context_tokens - 1;
            format!("prompt is too long: {}{prompt_tokens} tokens > {most} maximum", long.at_least())
        }
        error => error.to_string(),
    };
    let error = AnthropicErrorObject { kind, message, details };
    AnthropicErrorBody { kind: "error", error }
}

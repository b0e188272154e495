//! What requests on several endpoints may say. Fields that are not named here are ignored, except those that an endpoint
//! refuses.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

/// Sampling, lengths and stops. `null` is the same as nothing.
// The names are OpenAI's.
#[allow(clippy::struct_field_names)]
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Options {
    pub model: Option<String>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub max_tokens: Option<i64>,
    pub max_completion_tokens: Option<i64>,
    pub min_tokens: Option<u64>,
    pub ignore_eos: Option<bool>,
    pub stop: Option<Stop>,
    pub stop_token_ids: Option<Vec<u32>>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i64>,
    pub min_p: Option<f32>,
    pub seed: Option<i64>,
    pub repetition_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub logit_bias: Option<BTreeMap<String, f32>>,
    pub n: Option<u64>,
    pub cache_salt: Option<String>,
    /// Names the conversation, as the header `X-Session-ID` does.
    pub session_id: Option<String>,
    /// The same, where there is no session.
    pub prompt_cache_key: Option<String>,
    /// A context put under `/v1/contexts`: its messages and tools come before those of the request.
    pub context: Option<String>,
    /// Ours: tell in `usage.prefixd` what the cache did.
    pub prefixd_usage: Option<bool>,
}

/// What a stream reports.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    pub include_usage: Option<bool>,
}

/// One stop string or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum Stop {
    One(String),
    Several(Vec<String>),
}

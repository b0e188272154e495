//! What requests on several endpoints may say. Fields that are not named here are ignored, except those that an endpoint
//! refuses.

use std::collections::BTreeMap;
use std::fmt;

use actix_web::HttpRequest;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::error::ApiError;

/// Sampling, lengths and stops. `null` is the same as nothing.
// The names are OpenAI's.
#[allow(clippy::struct_field_names)]
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Options {
    pub model: Option<String>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    /// -1: as many as there is room for.
    #[serde(default, deserialize_with = "whole")]
    pub max_tokens: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
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
    /// Ours: how the cache treats the request.
    pub prefixd: Option<CacheChoice>,
}

/// How the cache treats a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheChoice {
    /// False: what is known of the prompt is used, and nothing is kept of it or of its answer. The header `X-Prefixd-Store`
    /// says the same.
    pub store: Option<bool>,
}

const STORE_HEADER: &str = "x-prefixd-store";

impl Options {
    /// Puts what the header says of storing into `prefixd`.
    pub fn settle_store(&mut self, request: &HttpRequest) -> Result<(), ApiError> {
        let Some(header) = request.headers().get(STORE_HEADER) else { return Ok(()) };
        let store = match header.as_bytes() {
            b"true" => true,
            b"false" => false,
            found => {
                let found = String::from_utf8_lossy(found);
                let message = format!("the header X-Prefixd-Store is {found:?}; expected true or false");
                return Err(ApiError::field("X-Prefixd-Store", message));
            }
        };
        let said = &mut self.prefixd.get_or_insert_default().store;
        if let Some(other) = said.filter(|other| *other != store) {
            let message = format!(
                "prefixd.store is {other} and the header X-Prefixd-Store {store}; expected one of them, or the same"
            );
            return Err(ApiError::field("prefixd.store", message));
        }
        *said = Some(store);
        Ok(())
    }

    /// The cache is to learn nothing from the request.
    pub fn read_only(&self) -> bool {
        self.prefixd.is_some_and(|choice| choice.store == Some(false))
    }
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

/// Below it every integer is a float of its own.
const EXACT: f64 = (1_u64 << 53) as f64;

/// An integer, also as some languages write one: `1.0`.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    deserializer.deserialize_any(Whole)
}

struct Whole;

impl Visitor<'_> for Whole {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let number = i64::try_from(number);
        number.map(Some).map_err(|_| E::custom("the integer is beyond all bounds; expected a smaller one"))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.fract() == 0.0 && number.abs() < EXACT {
            return Ok(Some(number as i64));
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }
}

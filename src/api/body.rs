//! Reads a request: its body, bounded, in time, UTF-8, JSON, an object; then its fields, with the path of what is wrong; and its query.

use std::time::{Duration, Instant};

use actix_web::web::{self, Payload};
use actix_web::{HttpRequest, http::header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ApiSettings;
use super::encoding::whole_characters;
use super::error::ApiError;
use crate::wording::plain;

/// Of a body over the limit, this much more is read and thrown away, so that a client that only reads after sending gets the
/// answer instead of a broken pipe.
const DRAIN_FACTOR: usize = 4;
/// JSON values of a body at most, besides a prompt's token ids.
const MOST_VALUES: usize = 200_000;
/// Some editors and libraries begin a file with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// Bytes a second that a body must come at on average, pauses aside; a sender of single bytes would hold a connection for days.
const SLOWEST: f64 = 1000.0;

/// A body as a JSON object of at most [`MOST_VALUES`] values and `tokens` more. Read, a value of two letters takes a hundred bytes.
pub fn object(bytes: &[u8], tokens: usize) -> Result<Map<String, Value>, ApiError> {
    let invalid = |message: String| ApiError::Invalid { message, param: None };
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(invalid(format!("the request body is not UTF-8: byte {} is wrong", error.valid_up_to())));
    }
    let (values, most) = (count_values(bytes), MOST_VALUES.saturating_add(tokens));
    if values > most {
        return Err(invalid(format!("the request body has {values} JSON values; expected at most {most}")));
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let read = serde_json::from_slice(bytes).or_else(|_| serde_json::from_slice(&whole_characters(bytes)));
    match read {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(invalid(format!("the request body is {}; expected a JSON object", kind(&other)))),
        Err(error) => Err(invalid(format!("the request body is not valid JSON: {error}"))),
    }
}

/// Items of lists, members of objects, and lists and objects themselves.
fn count_values(json: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
        } else {
            in_string = *byte == b'"';
            count += usize::from(matches!(byte, b',' | b'[' | b'{'));
        }
    }
    count
}

/// The body, as it came.
pub async fn read_bytes(
    request: &HttpRequest,
    mut payload: Payload,
    settings: &ApiSettings,
) -> Result<Vec<u8>, ApiError> {
    let limit = settings.body_limit_bytes;
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(limit));
    let (mut received, started) = (0, Instant::now());
    loop {
        let allowed = settings.body_stall + Duration::from_secs_f64(received as f64 / SLOWEST);
        let patience = allowed.saturating_sub(started.elapsed()).min(settings.body_stall);
        let chunk = tokio::time::timeout(patience, payload.next()).await;
        let chunk = chunk.map_err(|_| ApiError::BodyStalled { seconds: settings.body_stall.as_secs() })?;
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|error| ApiError::Invalid {
            message: format!("the request body: {error}"),
            param: None,
        })?;
        received += chunk.len();
        if received <= limit {
            bytes.extend_from_slice(&chunk);
        } else if received > limit.saturating_mul(DRAIN_FACTOR) {
            break;
        }
    }
    if received > limit { Err(ApiError::BodyTooLarge { limit }) } else { Ok(bytes) }
}

/// What a request's query says.
pub fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, ApiError> {
    web::Query::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|error| ApiError::Invalid { message: format!("the query: {error}"), param: None })
}

/// The fields of `object` that `T` names; others are left alone.
pub fn fields<T: DeserializeOwned>(object: &Map<String, Value>) -> Result<T, ApiError> {
    let object = serde::de::value::MapDeserializer::new(
        object.iter().map(|(key, value)| (key.as_str(), Borrowed(value))),
    );
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = error.path().to_string();
        let reason = plain(&error.into_inner().to_string());
        let mut param = (path != ".").then_some(path);
        // Serde names the object that lacks a field; clients look for the field.
        if let Some(name) = reason.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            param = Some(param.map_or_else(|| name.to_owned(), |path| format!("{path}.{name}")));
        }
        let message = param.as_ref().map_or_else(|| reason.clone(), |path| format!("{path}: {reason}"));
        ApiError::Invalid { message, param }
    })
}

/// A value that deserializers may borrow.
struct Borrowed<'a>(&'a Value);

impl<'de> serde::de::IntoDeserializer<'de, serde_json::Error> for Borrowed<'de> {
    type Deserializer = &'de Value;

    fn into_deserializer(self) -> Self::Deserializer {
        self.0
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

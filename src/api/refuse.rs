//! Fields that would change the answer and that an endpoint does not act on: refused unless they ask for nothing.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Says whether a field's value asks for nothing.
pub type Neutral = fn(&Value) -> bool;

/// Refuses the first field of `table` that is there and asks for something.
pub fn refuse(object: &Map<String, Value>, table: &[(&'static str, Neutral)]) -> Result<(), ApiError> {
    for (param, neutral) in table {
        if let Some(value) = object.get(*param).filter(|value| !value.is_null() && !neutral(value)) {
            let shown: String = value.to_string().chars().take(60).collect();
            return Err(ApiError::Unsupported { param, what: format!("{param} = {shown}") });
        }
    }
    Ok(())
}

/// `false`.
pub fn off(value: &Value) -> bool {
    *value == false
}

/// `[]`, `{}` or `""`.
pub fn empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(Map::is_empty)
        || *value == ""
}

/// Nothing but null.
pub fn never(_: &Value) -> bool {
    false
}

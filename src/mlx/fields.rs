//! Typed access to a model's configuration: what is absent, what is there, and what should not be.

use serde_json::Value;

use super::error::LoadError;

/// Typed access to a JSON object; `null` counts as absent.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a Value);

impl<'a> Fields<'a> {
    fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        self,
        key: &str,
        kind: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| LoadError::Config(format!("{key} is {value}, expected {kind}")))
    }

    /// Text.
    pub fn text(self, key: &str) -> Result<Option<&'a str>, LoadError> {
        self.typed(key, "text", Value::as_str)
    }

    /// True or false.
    pub fn flag(self, key: &str) -> Result<Option<bool>, LoadError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A number.
    pub fn number(self, key: &str) -> Result<Option<f64>, LoadError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A whole number that MLX can count to.
    pub fn count(self, key: &str) -> Result<Option<usize>, LoadError> {
        // i32 is what MLX counts in.
        let read = |value: &Value| value.as_u64().and_then(|n| i32::try_from(n).ok()).map(|n| n as usize);
        self.typed(key, "a whole number below 2^31", read)
    }

    /// Whole numbers.
    pub fn counts(self, key: &str) -> Result<Option<Vec<usize>>, LoadError> {
        let one = |value: &Value| value.as_u64().and_then(|n| i32::try_from(n).ok()).map(|n| n as usize);
        self.typed(key, "a list of whole numbers", |value| value.as_array()?.iter().map(one).collect())
    }

    /// A whole number that must be there.
    pub fn need(self, key: &str) -> Result<usize, LoadError> {
        self.count(key)?.ok_or_else(|| LoadError::Config(format!("{key} is missing")))
    }

    /// Fails when the key is true.
    pub fn refuse_true(self, key: &'static str, expected: &'static str) -> Result<(), LoadError> {
        match self.flag(key)? {
            Some(true) => Err(LoadError::Unsupported { key, found: "true".into(), expected }),
            _ => Ok(()),
        }
    }

    /// Fails when the key is set to something else than `expected`.
    pub fn refuse_other(self, key: &'static str, expected: &'static str) -> Result<(), LoadError> {
        match self.text(key)? {
            Some(found) if found != expected => {
                Err(LoadError::Unsupported { key, found: found.to_owned(), expected })
            }
            _ => Ok(()),
        }
    }

    /// Fails when the key is set.
    pub fn refuse_set(self, key: &'static str) -> Result<(), LoadError> {
        match self.get(key) {
            Some(value) => Err(LoadError::Unsupported { key, found: value.to_string(), expected: "null" }),
            None => Ok(()),
        }
    }
}

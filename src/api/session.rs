//! Which conversation a request belongs to: the header `X-Session-ID`, `session_id` in the body, or `prompt_cache_key`.
//!
//! A session names an agent: `oai_` and its name on OpenAI's endpoints, `sess_` and its name on Anthropic's.

use actix_web::HttpRequest;

use super::error::ApiError;
use super::options::Options;

const HEADER: &str = "x-session-id";
/// A longer name is refused.
const LONGEST: usize = 256;

/// Puts the request's session into `session_id`, from wherever it is said.
pub fn settle(request: &HttpRequest, options: &mut Options) -> Result<(), ApiError> {
    if let Some(header) = request.headers().get(HEADER) {
        let name = std::str::from_utf8(header.as_bytes()).map(str::trim).map_err(|_| {
            ApiError::field("X-Session-ID", "the header X-Session-ID is not UTF-8; expected a name")
        })?;
        check("X-Session-ID", name)?;
        if let Some(other) = options.session_id.as_deref().filter(|other| *other != name) {
            let message =
                format!("session_id is {other:?} and the header X-Session-ID {name:?}; expected one name");
            return Err(ApiError::field("session_id", message));
        }
        options.session_id = Some(name.to_owned());
        return Ok(());
    }
    if let Some(name) = &options.session_id {
        return check("session_id", name);
    }
    // Clients send an empty one to say nothing.
    options.session_id = options.prompt_cache_key.take().filter(|key| !key.is_empty());
    options.session_id.as_ref().map_or(Ok(()), |key| check("prompt_cache_key", key))
}

/// Refuses what cannot be a name.
pub fn check(param: &'static str, name: &str) -> Result<(), ApiError> {
    let wrong = |found: String| {
        Err(ApiError::field(
            param,
            format!("{param} is {found}; expected 1 to {LONGEST} bytes without control characters"),
        ))
    };
    match name.len() {
        0 => wrong("empty".into()),
        len if len > LONGEST => wrong(format!("{len} bytes long")),
        _ if name.chars().any(char::is_control) => wrong(format!("{name:?}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn settled(
        header: Option<&str>,
        body: Option<&str>,
        key: Option<&str>,
    ) -> Result<Option<String>, String> {
        let mut request = TestRequest::default();
        if let Some(header) = header {
            request = request.insert_header((HEADER, header));
        }
        let text = |text: &str| text.to_owned();
        let mut options =
            Options { session_id: body.map(text), prompt_cache_key: key.map(text), ..Options::default() };
        settle(&request.to_http_request(), &mut options).map_err(|error| error.to_string())?;
        Ok(options.session_id)
    }

    #[test]
    fn the_header_the_body_and_the_cache_key_name_a_session_in_this_order() {
        assert_eq!(settled(Some("a"), None, Some("c")), Ok(Some("a".into())));
        assert_eq!(settled(Some("a"), Some("a"), None), Ok(Some("a".into())));
        assert_eq!(settled(None, Some("b"), Some("c")), Ok(Some("b".into())));
        assert_eq!(settled(None, None, Some("c")), Ok(Some("c".into())));
        assert_eq!(settled(None, None, Some("")), Ok(None));
        assert_eq!(settled(None, None, None), Ok(None));
    }

    #[test]
    fn names_that_contradict_or_cannot_be_are_refused() {
        let long = "x".repeat(LONGEST + 1);
        for (header, body, key) in [
            (Some("a"), Some("b"), None),
            (Some(""), None, None),
            (None, Some(""), None),
            (None, Some("a\nb"), None),
            (None, None, Some(long.as_str())),
        ] {
            let error = settled(header, body, key).unwrap_err();
            assert!(error.contains("expected"), "{error}");
        }
    }
}

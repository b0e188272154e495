//! What one key may ask, and what pages of other origins may.

use std::io::Read;
use std::time::Duration;

use prefixd::api::{ApiKeys, ApiSettings, KeyLimits};
use serde_json::json;

use super::client::{Response, chat_body, leave, receive, send};
use super::server::{Server, Setup};

fn settings() -> ApiSettings {
    ApiSettings { keepalive: None, workers: 1, shutdown: Duration::from_secs(1), ..ApiSettings::default() }
}

fn limited(limits: KeyLimits) -> Setup {
    let settings = ApiSettings { limits, keys: ApiKeys::new(["one", "two"]), ..settings() };
    Setup { settings, ..Setup::default() }
}

fn ask(server: &Server, key: &str, path: &str) -> Response {
    let body = chat_body("<script>ok<go>", json!({"max_tokens": 5})).to_string();
    receive(send(server.address, "POST", path, &[("x-api-key", key)], body.as_bytes()))
}

#[test]
fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let server = limited(KeyLimits { requests_per_minute: 2, concurrent: 0 }).echo();
    for _ in 0..2 {
        assert_eq!(ask(&server, "one", "/v1/chat/completions").status, 200);
    }
    let refused = ask(&server, "one", "/v1/chat/completions");
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_str()),
        (429, Some("rate_limit_exceeded"))
    );
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=31).contains(&seconds), "{seconds}");
    // In the words of the endpoint.
    let refused = ask(&server, "one", "/v1/messages");
    assert_eq!((refused.status, refused.json()["error"]["type"].as_str()), (429, Some("rate_limit_error")));
    assert_eq!(refused.json()["type"], "error");
    assert_eq!(ask(&server, "two", "/v1/chat/completions").status, 200);
    assert_eq!(ask(&server, "three", "/v1/chat/completions").status, 401);
    let models = receive(send(server.address, "GET", "/v1/models", &[("x-api-key", "one")], b""));
    assert_eq!(models.status, 200);
}

#[test]
fn an_answer_counts_until_it_is_sent_or_its_client_left() {
    let server = limited(KeyLimits { requests_per_minute: 0, concurrent: 1 }).sim();
    let body = chat_body("x", json!({"stream": true, "max_tokens": 90_000, "ignore_eos": true})).to_string();
    let mut running =
        send(server.address, "POST", "/v1/chat/completions", &[("x-api-key", "one")], body.as_bytes());
    running.read_exact(&mut [0; 2000]).unwrap();
    let refused = ask(&server, "one", "/v1/chat/completions");
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_str()),
        (429, Some("concurrency_limit_exceeded"))
    );
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(ask(&server, "two", "/v1/chat/completions").status, 200);
    leave(running);
    server.eventually("the cancel", || {}, |status| status.cancelled == 1 && status.decoding == 0);
    // What is sent to its end frees its place too, one after the other.
    let tries = (0..1000).map(|_| ask(&server, "one", "/v1/chat/completions").status);
    assert!(tries.take(1000).any(|status| status == 200), "the place was never freed");
    for _ in 0..3 {
        let again = (0..1000).map(|_| ask(&server, "one", "/v1/chat/completions").status);
        assert!(again.take(1000).any(|status| status == 200), "the place was never freed");
    }
}

#[test]
fn pages_of_other_origins_may_ask_only_where_they_are_named() {
    let origin = [("origin", "https://example.org")];
    let preflight = [
        origin[0],
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let allowed = |server: &Server, method: &str, headers: &[(&str, &str)]| {
        let path = if method == "GET" { "/v1/models" } else { "/v1/chat/completions" };
        let response = receive(send(server.address, method, path, headers, b""));
        (response.status, response.header("access-control-allow-origin").map(str::to_owned))
    };
    let closed = Setup { settings: settings(), ..Setup::default() }.echo();
    assert_eq!(allowed(&closed, "GET", &origin), (200, None));
    assert_eq!(allowed(&closed, "OPTIONS", &preflight), (405, None));
    let with = |origins: &[&str]| {
        let cors_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Setup { settings: ApiSettings { cors_origins, ..settings() }, ..Setup::default() }.echo()
    };
    let named = with(&["https://example.org", "http://localhost:3000"]);
    let yes = Some("https://example.org".to_owned());
    assert_eq!(allowed(&named, "GET", &origin), (200, yes.clone()));
    assert_eq!(allowed(&named, "OPTIONS", &preflight), (200, yes));
    assert_eq!(allowed(&named, "GET", &[("origin", "https://other.org")]).1, None);
    assert_eq!(allowed(&named, "GET", &[]), (200, None));
    let open = with(&["*"]);
    assert!(allowed(&open, "GET", &[("origin", "https://other.org")]).1.is_some());
}

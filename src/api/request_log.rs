//! What happens to every request: a name (`x-request-id`, the client's own or a new one), a line in the log, and what its version
//! of HTTP makes necessary.

use std::time::Instant;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, Version};
use actix_web::middleware::Next;
use rand::RngExt;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where Anthropic's clients look for it.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// A longer name from a client is replaced.
const LONGEST_ID: usize = 128;

/// The middleware. The time logged for a stream is the time until its head was sent.
pub async fn request_log<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let began = Instant::now();
    let given = request.headers().get(&REQUEST_ID).filter(|id| (1..=LONGEST_ID).contains(&id.len())).cloned();
    let id = given.or_else(|| HeaderValue::from_str(&random_id("req-")).ok());
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let mut response = next.call(request).await?;
    // To a tenth.
    let millis = (began.elapsed().as_secs_f64() * 1e4).round() / 10.0;
    let shown = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    tracing::info!(target: "prefixd::access", %method, path, status = response.status().as_u16(), millis, id = shown, "request");
    if let Some(id) = id {
        response.headers_mut().insert(ANTHROPIC_REQUEST_ID, id.clone());
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(response)
}

/// `HEAD` is `GET` without the body, which the connection leaves out.
pub async fn head_as_get<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    if request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    next.call(request).await
}

/// Clients of HTTP/1.0 know no chunks: a stream goes on until the connection ends.
pub async fn without_chunks<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let first = request.version() < Version::HTTP_11;
    let mut response = next.call(request).await?;
    if first && response.response().body().size() == BodySize::Stream {
        let head = response.response_mut().head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

/// `prefix` and 24 random hexadecimal digits.
pub fn random_id(prefix: &str) -> String {
    let mut rng = rand::rng();
    format!("{prefix}{:016x}{:08x}", rng.random::<u64>(), rng.random::<u32>())
}

//! How much one key may ask: requests a minute, and answers at a time.
//!
//! 1. Each key has its own counts. Without keys everyone shares one.
//! 2. An answer counts until its last byte is sent or its client has left.
//! 3. What is over a limit is refused at once, with the time after which it may come again.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data};
use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use prefixd_cache::Tenant;

use super::ApiState;
use super::anthropic::AnthropicError;
use super::error::ApiError;
use super::openapi::speaks_anthropic;

/// What one key may ask; 0 is any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests in a minute; so many may come at once.
    pub requests_per_minute: u32,
    /// Answers at a time.
    pub concurrent: u32,
}

/// The counts of every key.
pub struct Limits {
    rate: Option<DefaultKeyedRateLimiter<Tenant>>,
    concurrent: u32,
    running: Arc<Mutex<HashMap<Tenant, u32>>>,
}

/// A place among the answers of a key. Dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    tenant: Tenant,
    running: Arc<Mutex<HashMap<Tenant, u32>>>,
}

impl Limits {
    /// Holds keys to `limits`.
    pub fn new(limits: KeyLimits) -> Self {
        let rate = NonZeroU32::new(limits.requests_per_minute);
        let rate = rate.map(|rate| RateLimiter::keyed(Quota::per_minute(rate)));
        Self { rate, concurrent: limits.concurrent, running: Arc::default() }
    }

    /// Lets a request of `tenant` in.
    pub fn enter(&self, tenant: Tenant) -> Result<Permit, ApiError> {
        let mut running = self.running.lock();
        let count = running.get(&tenant).copied().unwrap_or(0);
        if self.concurrent > 0 && count >= self.concurrent {
            return Err(ApiError::TooManyAtOnce { limit: self.concurrent });
        }
        if let Some(rate) = &self.rate
            && let Err(later) = rate.check_key(&tenant)
        {
            let wait = later.wait_time_from(rate.clock().now());
            // Whole seconds, so that whoever waits them is let in.
            return Err(ApiError::TooManyAMinute { seconds: wait.as_secs() as u32 + 1 });
        }
        running.insert(tenant, count + 1);
        Ok(Permit { tenant, running: self.running.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(count) = running.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.tenant);
            }
        }
    }
}

/// The middleware. Requests that ask the model for something count; those without a known key are refused elsewhere.
pub async fn limits<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Held<B>>, actix_web::Error> {
    let asks = request.method() == Method::POST && request.path().starts_with("/v1/");
    let state = request.app_data::<Data<ApiState>>().filter(|_| asks).cloned();
    let tenant = state.as_ref().and_then(|state| state.settings.keys.tenant(request.request()).ok());
    let permit = match state.zip(tenant).map(|(state, tenant)| state.limits.enter(tenant)).transpose() {
        Ok(permit) => permit,
        Err(error) if speaks_anthropic(request.path()) => return Err(AnthropicError::from(error).into()),
        Err(error) => return Err(error.into()),
    };
    Ok(next.call(request).await?.map_body(|_, body| Held { body: Box::pin(body), _permit: permit }))
}

/// A body that holds a place until it is sent or dropped.
pub struct Held<B> {
    body: Pin<Box<B>>,
    _permit: Option<Permit>,
}

impl<B: MessageBody> MessageBody for Held<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, B::Error>>> {
        self.body.as_mut().poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_counts_and_places_are_freed() {
        let (one, two) = (Tenant::derive(b"one"), Tenant::derive(b"two"));
        let limits = Limits::new(KeyLimits { concurrent: 1, requests_per_minute: 0 });
        let permit = limits.enter(one).unwrap();
        assert!(matches!(limits.enter(one), Err(ApiError::TooManyAtOnce { limit: 1 })));
        assert!(limits.enter(two).is_ok());
        drop(permit);
        assert!(limits.enter(one).is_ok() && limits.running.lock().is_empty());
        let limits = Limits::new(KeyLimits { concurrent: 0, requests_per_minute: 3 });
        for _ in 0..3 {
            limits.enter(one).unwrap();
        }
        let Err(ApiError::TooManyAMinute { seconds }) = limits.enter(one) else {
            panic!("a fourth was let in")
        };
        assert!((1..=21).contains(&seconds), "{seconds}");
        assert!(limits.enter(two).is_ok());
    }

    #[test]
    fn without_limits_everything_is_let_in() {
        let limits = Limits::new(KeyLimits::default());
        let permits: Vec<Permit> = (0..1000).map(|_| limits.enter(Tenant::PUBLIC).unwrap()).collect();
        assert_eq!(permits.len(), 1000);
    }
}

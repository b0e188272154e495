//! Places for the work that a request costs before the scheduler has it: its JSON, its prompt, its tokens, its grammar.
//!
//! 1. A bounded number of requests is worked on at a time, of large ones one: memory and processors stay with the model.
//! 2. Large requests wait for large ones alone.
//! 3. A client waits for its own requests before it waits for a place, so that many requests of one do not come before the
//!    first of another. A client is an API key; without keys everybody is one.
//! 4. A place is taken until the work is done, also when whoever asked for it has left meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use actix_web::web;
use parking_lot::Mutex;
use prefixd_cache::Tenant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// A body of more bytes is large. Tokenizing takes up to 200 times as much memory as its text.
const LARGE_BYTES: usize = 256 << 10;
/// Large requests worked on at a time.
const LARGE_PLACES: usize = 1;
/// Small ones, where there are fewer processors: some of them wait for a word of the scheduler.
const LEAST_SMALL_PLACES: usize = 4;

/// The first half of a tenant names the key; salts are no other clients.
type Client = [u8; 16];

/// All places.
pub struct Work {
    small: Lane,
    large: Lane,
}

/// Work of one request. Its clones are the same place, which is free when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Place {
    _held: Arc<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    large: bool,
}

struct Lane {
    count: usize,
    places: Arc<Semaphore>,
    clients: Mutex<HashMap<Client, Weak<Semaphore>>>,
}

impl Default for Work {
    fn default() -> Self {
        let small = std::thread::available_parallelism().map_or(0, usize::from).max(LEAST_SMALL_PLACES);
        Self { small: Lane::new(small), large: Lane::new(LARGE_PLACES) }
    }
}

impl Work {
    /// Waits for a place for a request of that many bytes.
    pub async fn enter(&self, tenant: &Tenant, bytes: usize) -> Result<Place, ApiError> {
        let large = bytes > LARGE_BYTES;
        let lane = if large { &self.large } else { &self.small };
        let closed = |error: tokio::sync::AcquireError| ApiError::Internal(error.to_string());
        let own = lane.client(tenant).acquire_owned().await.map_err(closed)?;
        let place = lane.places.clone().acquire_owned().await.map_err(closed)?;
        Ok(Place { _held: Arc::new((own, place)), large })
    }
}

impl Lane {
    fn new(count: usize) -> Self {
        Self { count, places: Arc::new(Semaphore::new(count)), clients: Mutex::default() }
    }

    /// The client's own queue, which lives while somebody is in it.
    fn client(&self, tenant: &Tenant) -> Arc<Semaphore> {
        let mut client = Client::default();
        client.copy_from_slice(&tenant.as_bytes()[..16]);
        let mut clients = self.clients.lock();
        if let Some(own) = clients.get(&client).and_then(Weak::upgrade) {
            return own;
        }
        clients.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.count));
        clients.insert(client, Arc::downgrade(&own));
        own
    }
}

impl Place {
    /// Runs what takes long where it does not hold up other connections.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let held = self.clone();
        let work = move || {
            let done = work();
            drop(held);
            done
        };
        web::block(work).await.map_err(|error| ApiError::Internal(error.to_string()))?
    }

    /// The same for what takes long with large requests only.
    pub async fn run_if_large<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if self.large { self.run(work).await } else { work() }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LARGE: usize = LARGE_BYTES + 1;

    /// The place, if there is one at once.
    fn now(work: &Work, tenant: &Tenant, bytes: usize) -> Option<Place> {
        work.enter(tenant, bytes).now_or_never().map(Result::unwrap)
    }

    #[test]
    fn large_requests_wait_for_each_other_and_small_ones_for_none_of_them() {
        let (work, key) = (Work::default(), Tenant::derive(b"key"));
        let first = now(&work, &key, LARGE).unwrap();
        assert!(now(&work, &Tenant::derive(b"other"), LARGE).is_none() && now(&work, &key, 10).is_some());
        let clone = first.clone();
        drop(first);
        assert!(now(&work, &key, LARGE).is_none(), "its work still runs");
        drop(clone);
        assert!(now(&work, &key, LARGE).is_some());
    }

    #[test]
    fn many_requests_of_one_client_do_not_come_before_the_first_of_another() {
        let (work, busy, other) = (Work::default(), Tenant::derive(b"busy"), Tenant::derive(b"other"));
        let first = now(&work, &busy, LARGE).unwrap();
        // Salts are no other clients.
        let salted = busy.part(b"salt");
        let mut own: Vec<_> = (0..50).map(|_| Box::pin(work.enter(&busy, LARGE))).collect();
        own.push(Box::pin(work.enter(&salted, LARGE)));
        let mut other = Box::pin(work.enter(&other, LARGE));
        assert!(own.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        assert!((&mut other).now_or_never().is_none());
        drop(first);
        assert!(own.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        assert!((&mut other).now_or_never().is_some());
        assert!(work.large.clients.lock().len() <= 2);
    }
}

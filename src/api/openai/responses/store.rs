//! Responses that are kept so that they can be asked for and gone on from.
//!
//! 1. What is kept takes at most the budget; the tenant that takes most makes room, its oldest response first.
//! 2. Nothing is kept longer than its time. In memory: nothing outlives the server.
//! 3. A tenant finds its own responses alone.
//! 4. A deleted response can no longer be gone on from; conversations that went on from it still can.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use parking_lot::Mutex;
use prefixd_cache::Tenant;

use super::request::Item;

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bytes of all responses together; 0 keeps none.
    pub budget_bytes: usize,
    /// How long each is kept.
    pub ttl: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { budget_bytes: 64_000_000, ttl: Duration::from_hours(24) }
    }
}

/// Bytes in use; every turn gives its own back.
type InUse = Arc<AtomicUsize>;

/// What one response added to its conversation: what was said to the model and what it said. Turns of one conversation
/// are shared by all responses that go on from them.
#[derive(Debug)]
pub struct Turn {
    /// In order.
    pub items: Vec<Item>,
    bytes: usize,
    in_use: InUse,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.in_use.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A conversation up to and with a response.
pub type History = Vec<Arc<Turn>>;

#[derive(Debug)]
struct Stored {
    id: String,
    json: Bytes,
    history: History,
    since: Instant,
}

/// The stored responses of every tenant.
#[derive(Debug, Default)]
pub struct ResponseStore {
    limits: StoreLimits,
    in_use: InUse,
    /// Of each tenant, oldest first.
    shelves: Mutex<HashMap<Tenant, VecDeque<Stored>>>,
}

impl ResponseStore {
    /// An empty store.
    pub fn new(limits: StoreLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Keeps a response: its reply, and what it adds to `history`.
    pub fn put(&self, tenant: Tenant, id: &str, json: Bytes, mut history: History, items: Vec<Item>) {
        let bytes = items.iter().map(Item::bytes).sum::<usize>()
            + json.len()
            + id.len()
            + size_of::<Stored>()
            + (history.len() + 1) * size_of::<Arc<Turn>>();
        if bytes > self.limits.budget_bytes {
            return;
        }
        self.in_use.fetch_add(bytes, Ordering::Relaxed);
        history.push(Arc::new(Turn { items, bytes, in_use: self.in_use.clone() }));
        let stored = Stored { id: id.to_owned(), json, history, since: Instant::now() };
        let mut shelves = self.shelves.lock();
        shelves.entry(tenant).or_default().push_back(stored);
        self.forget_old(&mut shelves);
        while self.in_use.load(Ordering::Relaxed) > self.limits.budget_bytes {
            let largest = shelves.values_mut().max_by_key(|shelf| weight(shelf));
            if largest.is_none_or(|shelf| shelf.pop_front().is_none()) {
                break;
            }
        }
        shelves.retain(|_, shelf| !shelf.is_empty());
    }

    /// The reply, as it was.
    pub fn get(&self, tenant: Tenant, id: &str) -> Option<Bytes> {
        self.find(tenant, id, |stored| stored.json.clone())
    }

    /// The conversation up to and with a response, and the reply.
    pub fn asked(&self, tenant: Tenant, id: &str) -> Option<(History, Bytes)> {
        self.find(tenant, id, |stored| (stored.history.clone(), stored.json.clone()))
    }

    /// The conversation up to and with a response.
    pub fn history(&self, tenant: Tenant, id: &str) -> Option<History> {
        self.find(tenant, id, |stored| stored.history.clone())
    }

    /// An item that a stored response added.
    pub fn item(&self, tenant: Tenant, id: &str) -> Option<Item> {
        let mut shelves = self.shelves.lock();
        self.forget_old(&mut shelves);
        let turns = shelves.get(&tenant)?.iter().rev().filter_map(|stored| stored.history.last());
        turns.flat_map(|turn| &turn.items).find(|item| item.id.as_deref() == Some(id)).cloned()
    }

    /// Forgets a response; false: there is none.
    pub fn delete(&self, tenant: Tenant, id: &str) -> bool {
        let mut shelves = self.shelves.lock();
        self.forget_old(&mut shelves);
        let Some(shelf) = shelves.get_mut(&tenant) else { return false };
        let before = shelf.len();
        shelf.retain(|stored| stored.id != id);
        shelf.len() < before
    }

    fn find<T>(&self, tenant: Tenant, id: &str, take: impl Fn(&Stored) -> T) -> Option<T> {
        let mut shelves = self.shelves.lock();
        self.forget_old(&mut shelves);
        shelves.get(&tenant)?.iter().rev().find(|stored| stored.id == id).map(take)
    }

    fn forget_old(&self, shelves: &mut HashMap<Tenant, VecDeque<Stored>>) {
        for shelf in shelves.values_mut() {
            while shelf.front().is_some_and(|stored| stored.since.elapsed() >= self.limits.ttl) {
                shelf.pop_front();
            }
        }
        shelves.retain(|_, shelf| !shelf.is_empty());
    }
}

/// Bytes of what a tenant's responses added themselves.
fn weight(shelf: &VecDeque<Stored>) -> usize {
    shelf.iter().filter_map(|stored| stored.history.last()).map(|turn| turn.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::{Content, Role};

    fn said(bytes: usize) -> Vec<Item> {
        vec![Item {
            role: Some(Role::User),
            content: Some(Content::Text("x".repeat(bytes))),
            ..Item::default()
        }]
    }

    fn store(budget_bytes: usize, ttl: Duration) -> ResponseStore {
        ResponseStore::new(StoreLimits { budget_bytes, ttl })
    }

    const LONG: Duration = Duration::from_hours(1);

    #[test]
    fn a_response_is_found_by_its_own_tenant_alone() {
        let store = store(1 << 20, LONG);
        let (one, two) = (Tenant::derive(b"one"), Tenant::derive(b"two"));
        store.put(one, "r", Bytes::from_static(b"{}"), Vec::new(), said(1));
        assert_eq!((store.get(one, "r"), store.get(two, "r")), (Some(Bytes::from_static(b"{}")), None));
        assert!(store.history(two, "r").is_none() && !store.delete(two, "r"));
        assert!(store.delete(one, "r") && !store.delete(one, "r") && store.get(one, "r").is_none());
        assert_eq!(store.in_use.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_tenant_that_takes_most_makes_room_oldest_first() {
        let store = store(100_000, LONG);
        let (small, large) = (Tenant::derive(b"small"), Tenant::derive(b"large"));
        store.put(small, "s", Bytes::new(), Vec::new(), said(1_000));
        for at in 0..50 {
            store.put(large, &format!("l{at}"), Bytes::new(), Vec::new(), said(10_000));
            assert!(store.in_use.load(Ordering::Relaxed) <= 100_000);
        }
        assert!(store.get(small, "s").is_some());
        assert!(store.get(large, "l0").is_none() && store.get(large, "l49").is_some());
        store.put(small, "whale", Bytes::new(), Vec::new(), said(200_000));
        assert!(store.get(small, "whale").is_none() && store.get(small, "s").is_some());
    }

    #[test]
    fn turns_are_counted_until_the_last_conversation_lets_them_go() {
        let store = store(100_000, LONG);
        let tenant = Tenant::PUBLIC;
        store.put(tenant, "a", Bytes::new(), Vec::new(), said(10_000));
        let history = store.history(tenant, "a").unwrap();
        store.put(tenant, "b", Bytes::new(), history, said(10));
        assert!(store.delete(tenant, "a"));
        assert_eq!(store.history(tenant, "b").unwrap().len(), 2);
        assert!(store.in_use.load(Ordering::Relaxed) > 10_000);
        assert!(store.delete(tenant, "b"));
        assert_eq!(store.in_use.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nothing_is_kept_longer_than_its_time() {
        let store = store(100_000, Duration::ZERO);
        store.put(Tenant::PUBLIC, "a", Bytes::new(), Vec::new(), said(1));
        assert!(store.get(Tenant::PUBLIC, "a").is_none());
        assert_eq!(store.in_use.load(Ordering::Relaxed), 0);
    }
}

//! Who asks: API keys and the tenant whose prefixes a request may use.
//!
//! 1. Keys are kept as digests and compared in constant time.
//! 2. Every key is a tenant of its own, and a `cache_salt` splits it further. No salt leads to another key's tenant, nor to
//!    more room for pins than the key has without one.
//! 3. Once there are keys, what sums over tenants takes the admin key: no tenant learns what others do.

use std::ops::BitOr;

use actix_web::HttpRequest;
use actix_web::http::header;
use prefixd_cache::Tenant;

use super::error::ApiError;

/// The keys that open the server. None: it is open to everyone.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    digests: Vec<blake3::Hash>,
    tenants: Vec<Tenant>,
}

impl ApiKeys {
    /// Accepts these keys.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let of = |key: &str| (blake3::hash(key.as_bytes()), Tenant::derive(key.as_bytes()));
        let (digests, tenants) = keys.into_iter().map(of).unzip();
        Self { digests, tenants }
    }

    /// Nobody needs a key?
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Everybody who may ask.
    pub fn tenants(&self) -> Vec<Tenant> {
        if self.is_empty() { vec![Tenant::PUBLIC] } else { self.tenants.clone() }
    }

    /// The tenant of a request that may come in.
    pub fn tenant(&self, request: &HttpRequest) -> Result<Tenant, ApiError> {
        if self.is_empty() {
            return Ok(Tenant::PUBLIC);
        }
        let key = sent_key(request).ok_or(ApiError::Unauthorized)?;
        let digest = blake3::hash(key);
        // Equality of `blake3::Hash` takes the same time wherever they differ; every key is compared.
        let known = self.digests.iter().map(|other| *other == digest).fold(false, BitOr::bitor);
        if known { Ok(Tenant::derive(key)) } else { Err(ApiError::Unauthorized) }
    }
}

fn sent_key(request: &HttpRequest) -> Option<&[u8]> {
    let headers = request.headers();
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        return scheme.eq_ignore_ascii_case(b"bearer ").then_some(key.trim_ascii());
    }
    headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii())
}

/// The key for what concerns every tenant. None: nobody may.
#[derive(Clone, Debug, Default)]
pub struct AdminKey(Option<blake3::Hash>);

impl AdminKey {
    /// Admits this key.
    pub fn new(key: &str) -> Self {
        Self(Some(blake3::hash(key.as_bytes())))
    }

    /// Refuses a request without it.
    pub fn admit(&self, request: &HttpRequest) -> Result<(), ApiError> {
        let digest = self.0.ok_or(ApiError::AdminUnset)?;
        let header = request.headers().get("x-admin-key").map(|value| value.as_bytes().trim_ascii());
        let sent = header.or_else(|| sent_key(request)).ok_or(ApiError::AdminRefused)?;
        // Takes the same time wherever the digests differ.
        if digest == blake3::hash(sent) { Ok(()) } else { Err(ApiError::AdminRefused) }
    }
}

/// The part of a tenant that a `cache_salt` names.
pub fn salted(tenant: Tenant, salt: Option<&str>) -> Tenant {
    match salt {
        None | Some("") => tenant,
        Some(salt) => tenant.part(salt.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn each_key_is_a_tenant_and_nothing_else_opens() {
        let keys = ApiKeys::new(["one", "two"]);
        let asked = |name: &'static str, value: &'static str| {
            keys.tenant(&TestRequest::default().insert_header((name, value)).to_http_request())
        };
        let one = asked("authorization", "Bearer one").unwrap();
        assert_eq!(asked("x-api-key", "one").unwrap(), one);
        assert_eq!(asked("authorization", "bearer  one ").unwrap(), one);
        assert_ne!(asked("x-api-key", "two").unwrap(), one);
        for (name, value) in [
            ("authorization", "Bearer three"),
            ("authorization", "one"),
            ("authorization", "Basic one"),
            ("x-api-key", ""),
            ("x-other", "one"),
        ] {
            assert!(matches!(asked(name, value), Err(ApiError::Unauthorized)), "{name}: {value}");
        }
        assert!(!format!("{keys:?}").contains("one"));
    }

    #[test]
    fn only_the_admin_key_admits_and_without_one_nothing_does() {
        let asked = |name: &'static str, value: &'static str| {
            TestRequest::default().insert_header((name, value)).to_http_request()
        };
        let admin = AdminKey::new("root");
        assert!(admin.admit(&asked("x-admin-key", "root")).is_ok());
        assert!(admin.admit(&asked("authorization", "Bearer root")).is_ok());
        assert!(matches!(admin.admit(&asked("x-admin-key", "toor")), Err(ApiError::AdminRefused)));
        assert!(matches!(admin.admit(&asked("x-other", "root")), Err(ApiError::AdminRefused)));
        let nobody = AdminKey::default();
        assert!(matches!(nobody.admit(&asked("x-admin-key", "")), Err(ApiError::AdminUnset)));
    }

    #[test]
    fn without_keys_everyone_is_public_and_a_salt_splits_a_tenant() {
        let public = ApiKeys::default().tenant(&TestRequest::default().to_http_request()).unwrap();
        assert_eq!(public, Tenant::PUBLIC);
        assert_eq!(salted(public, None), public);
        let (a, b) = (salted(public, Some("a")), salted(public, Some("b")));
        assert!(a != b && a != public && salted(Tenant::derive(b"one"), Some("a")) != a);
    }
}

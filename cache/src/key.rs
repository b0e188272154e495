//! Who a block is: the fingerprint of what computed it, the tenant it belongs to, and the chain of tokens it ends.
//!
//! 1. A key names the fingerprint, the tenant, every token of the prefix up to the end of the block, and nothing
//!    else: `key = blake3(fingerprint | tenant | parent key | token ids)`, where the first block's parent is all zeros.
//! 2. A key never depends on a run: not on time, counters, addresses or settings that do not change the bytes.

use std::fmt;

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes 32 bytes as they are.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads 64 hexadecimal digits; anything else is `None`.
            pub fn from_hex(text: &str) -> Option<Self> {
                blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), &blake3::Hash::from_bytes(self.0).to_hex()[..12])
            }
        }
    };
}

digest_newtype! {
    /// Everything that decides the bytes of a block besides its tokens: weights, config, tokenizer, template, KV format.
    Fingerprint
}
digest_newtype! {
    /// Whose prefix it is. Two tenants share no key, so neither can hit, see or time the other's prefix.
    Tenant
}
digest_newtype! {
    /// The name of one block: its tokens, all tokens before it, the tenant and the fingerprint. Snapshots have names of the
    /// same kind ([`BlockKey::snapshot`]).
    BlockKey
}

/// What a tenant and all its parts have in common: what tenants share, such as room for pins, is shared out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Account([u8; 16]);

impl Tenant {
    /// The tenant of requests that carry no key of their own.
    pub const PUBLIC: Self = Self([0; 32]);

    /// Derives a tenant from a secret, such as an API key. The secret cannot be read back.
    pub fn derive(secret: &[u8]) -> Self {
        Self(blake3::derive_key("prefixd tenant v1", secret))
    }

    /// A part of this tenant, named by a salt: a tenant of its own that shares no key with the whole or with other parts.
    /// Its first 16 bytes are the whole's, the other 16 a digest of the whole and the salt.
    #[must_use]
    pub fn part(&self, salt: &[u8]) -> Self {
        let mut part = blake3::derive_key("prefixd tenant part v1", &[&self.0[..], salt].concat());
        part[..16].copy_from_slice(&self.0[..16]);
        Self(part)
    }

    pub(crate) fn account(&self) -> Account {
        let mut account = [0; 16];
        account.copy_from_slice(&self.0[..16]);
        Account(account)
    }
}

impl BlockKey {
    /// The key of the block that holds `tokens` and follows `parent` (`None` for the first block of a prompt).
    pub fn derive(fingerprint: &Fingerprint, tenant: &Tenant, parent: Option<&Self>, tokens: &[u32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(fingerprint.as_bytes());
        hasher.update(tenant.as_bytes());
        hasher.update(parent.map_or(&[0; 32], Self::as_bytes).as_slice());
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// What stands for the chain of blocks where there is none yet: a key that no block has, since blocks have tokens.
    pub(crate) fn root(fingerprint: &Fingerprint, tenant: &Tenant) -> Self {
        Self::derive(fingerprint, tenant, None, &[])
    }

    /// The key of the snapshot after `tokens`, which follow the whole block `parent` (`None` before the first one is whole),
    /// at position `start`. No block has it: the hash is of another kind.
    pub fn snapshot(
        fingerprint: &Fingerprint,
        tenant: &Tenant,
        parent: Option<&Self>,
        start: usize,
        tokens: &[u32],
    ) -> Self {
        let chain = parent.copied().unwrap_or_else(|| Self::root(fingerprint, tenant));
        let mut rest = blake3::Hasher::new();
        for token in tokens {
            rest.update(&token.to_le_bytes());
        }
        let mut hasher = blake3::Hasher::new_derive_key("prefixd snapshot v1");
        hasher.update(fingerprint.as_bytes());
        hasher.update(tenant.as_bytes());
        hasher.update(chain.as_bytes());
        hasher.update(rest.finalize().as_bytes());
        hasher.update(&((start + tokens.len()) as u64).to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_key_changes_it() {
        let (fp, tenant) = (Fingerprint::from_bytes([1; 32]), Tenant::derive(b"a"));
        let root = BlockKey::derive(&fp, &tenant, None, &[1, 2, 3]);
        let others = [
            BlockKey::derive(&Fingerprint::from_bytes([2; 32]), &tenant, None, &[1, 2, 3]),
            BlockKey::derive(&fp, &Tenant::derive(b"b"), None, &[1, 2, 3]),
            BlockKey::derive(&fp, &Tenant::PUBLIC, None, &[1, 2, 3]),
            BlockKey::derive(&fp, &tenant, Some(&root), &[1, 2, 3]),
            BlockKey::derive(&fp, &tenant, None, &[1, 2]),
            BlockKey::derive(&fp, &tenant, None, &[1, 2, 4]),
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(*other, root, "variant {i}");
            assert!(!others[..i].contains(other), "variant {i} repeats an earlier one");
        }
    }

    #[test]
    fn a_snapshot_s_key_says_what_came_before_it_to_the_token_and_is_no_block_s() {
        let (fp, tenant) = (Fingerprint::from_bytes([1; 32]), Tenant::derive(b"a"));
        let block = BlockKey::derive(&fp, &tenant, None, &[1, 2]);
        let of =
            |fp, tenant, parent, start, tokens: &[u32]| BlockKey::snapshot(fp, tenant, parent, start, tokens);
        let keys = [
            of(&fp, &tenant, Some(&block), 2, &[]),
            of(&fp, &tenant, Some(&block), 2, &[3]),
            of(&fp, &tenant, Some(&block), 2, &[4]),
            of(&fp, &tenant, Some(&block), 2, &[3, 4]),
            of(&fp, &tenant, None, 0, &[1]),
            of(&fp, &tenant, None, 0, &[1, 2]),
            of(&fp, &Tenant::PUBLIC, None, 0, &[1]),
            of(&Fingerprint::from_bytes([2; 32]), &tenant, None, 0, &[1]),
            of(&fp, &Tenant::PUBLIC, Some(&block), 2, &[3]),
            block,
            BlockKey::derive(&fp, &tenant, None, &[1]),
            BlockKey::root(&fp, &tenant),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
    }

    #[test]
    fn parts_of_a_tenant_are_tenants_and_one_account() {
        let (one, two) = (Tenant::derive(b"one"), Tenant::derive(b"two"));
        let tenants = [one, one.part(b"a"), one.part(b"b"), one.part(b"a").part(b"b"), two, two.part(b"a")];
        for (at, tenant) in tenants.iter().enumerate() {
            assert!(!tenants[..at].contains(tenant), "{at}");
            assert_eq!(tenant.account() == one.account(), at < 4, "{at}");
        }
        assert_eq!(one.part(b"a"), one.part(b"a"));
        assert_eq!(Tenant::PUBLIC.part(b"a").account(), Tenant::PUBLIC.account());
    }

    #[test]
    fn hexadecimal_text_round_trips_and_anything_else_is_refused() {
        let key = BlockKey::derive(&Fingerprint::from_bytes([1; 32]), &Tenant::PUBLIC, None, &[7]);
        assert_eq!(BlockKey::from_hex(&key.to_string()), Some(key));
        assert_eq!(BlockKey::from_hex("zz"), None);
        assert_eq!(BlockKey::from_hex(""), None);
    }
}

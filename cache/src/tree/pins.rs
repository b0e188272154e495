//! The pins of retentions: when each ends, and how much of them is whose.
//!
//! 1. Pins for ever are the operator's. All others belong to the account of their block's tenant.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use crate::key::{Account, BlockKey};

/// See the module's documentation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    ends: BTreeSet<(u64, BlockKey)>,
    /// Bytes of all pinned blocks.
    bytes: u64,
    /// Of these, bytes of pins for ever.
    forever_bytes: u64,
    accounts: HashMap<Account, AccountPins>,
}

/// What one account has pinned.
#[derive(Debug, Default, PartialEq, Eq)]
struct AccountPins {
    bytes: u64,
    /// The first to end first, and of those that end together the deepest, so that chains shrink from their end.
    ends: BTreeSet<(u64, Reverse<usize>, BlockKey)>,
}

/// What [`Pins::room`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    There,
    /// When this pin has ended, and maybe others.
    After(BlockKey),
    None,
}

/// One pinned block, or snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pinned {
    pub key: BlockKey,
    pub account: Account,
    /// Position of its first token.
    pub start: usize,
    pub bytes: u64,
    /// Microseconds since 1970; the highest number: for ever.
    pub until_us: u64,
}

impl Pins {
    pub fn insert(&mut self, pin: &Pinned) {
        self.ends.insert((pin.until_us, pin.key));
        self.bytes += pin.bytes;
        if pin.until_us == u64::MAX {
            self.forever_bytes += pin.bytes;
        } else {
            let account = self.accounts.entry(pin.account).or_default();
            account.bytes += pin.bytes;
            account.ends.insert((pin.until_us, Reverse(pin.start), pin.key));
        }
    }

    /// Takes out what was put in.
    pub fn remove(&mut self, pin: &Pinned) {
        self.ends.remove(&(pin.until_us, pin.key));
        self.bytes -= pin.bytes;
        if pin.until_us == u64::MAX {
            self.forever_bytes -= pin.bytes;
        } else if let Some(account) = self.accounts.get_mut(&pin.account) {
            account.bytes -= pin.bytes;
            account.ends.remove(&(pin.until_us, Reverse(pin.start), pin.key));
            if account.ends.is_empty() {
                self.accounts.remove(&pin.account);
            }
        }
    }

    /// The next pin to end, and when.
    pub fn first(&self) -> Option<(u64, BlockKey)> {
        self.ends.first().copied()
    }

    /// Pinned blocks.
    pub fn blocks(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that an account has pinned.
    fn bytes_of(&self, account: &Account) -> u64 {
        self.accounts.get(account).map_or(0, |account| account.bytes)
    }

    /// Whether there is room for `more_bytes` of an account within `limit_bytes`, and which pin has to end before: one of
    /// whoever has most and more than a fair part, for an account that stays within its own.
    pub fn room(&self, account: &Account, more_bytes: u64, limit_bytes: u64) -> Room {
        if self.bytes + more_bytes <= limit_bytes {
            return Room::There;
        }
        let fair_bytes = self.fair_bytes(account, limit_bytes);
        if self.bytes_of(account) + more_bytes > fair_bytes {
            return Room::None;
        }
        // Together all have more than their fair parts, and this account has not: somebody else has.
        self.first_beyond(fair_bytes).map_or(Room::None, Room::After)
    }

    /// The fair part of `limit_bytes`: what the operator's pins leave of it, divided by the accounts that have pins, with
    /// `account` among them.
    fn fair_bytes(&self, account: &Account, limit_bytes: u64) -> u64 {
        let accounts = self.accounts.len() + usize::from(!self.accounts.contains_key(account));
        limit_bytes.saturating_sub(self.forever_bytes) / accounts as u64
    }

    /// The pin that gives way: of the account that has most, if that is more than `fair_bytes`, the first to end.
    fn first_beyond(&self, fair_bytes: u64) -> Option<BlockKey> {
        let most = self.accounts.iter().max_by_key(|(account, pins)| (pins.bytes, **account))?.1;
        let (_, _, key) = most.ends.first().filter(|_| most.bytes > fair_bytes)?;
        Some(*key)
    }
}

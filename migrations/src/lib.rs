//! Numbered, frozen, idempotent steps of the sled index.
#![forbid(unsafe_code)]

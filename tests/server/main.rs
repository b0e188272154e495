//! The real server, a process of its own, on the embedded model, over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bench;
mod cache_cli;
mod clients;
mod concurrency;
mod contexts;
mod drain;
#[path = "../forensics/mod.rs"]
mod forensics;
mod format;
mod hub;
mod large;
mod limits;
mod pages;
mod recurrent;
mod restart;
mod service;
mod support;
mod terminal;
mod traps;

//! The batch scheduler.

mod handle;
mod message;

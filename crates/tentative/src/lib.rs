//! Transactions for running code: begin, look, then commit or roll back.
//!
//! This crate is policy without `unsafe`: the seven layers, the pathway table, the monitor, the store and the
//! transaction itself. The raw kernel mechanisms it stands on are in `tentative-sys`. It never knows Python.

#![forbid(unsafe_code)]

pub mod change;
pub mod containment;
pub mod effect;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod journal;
mod kin;
pub mod layer;
pub mod live;
pub mod monitor;
pub mod pathways;
pub mod policy;
pub mod process;
pub mod program;
pub mod record;
pub mod sandbox;
pub mod store;
pub mod transaction;
pub mod verdict;
pub mod world;

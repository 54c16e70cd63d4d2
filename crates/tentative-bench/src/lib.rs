//! Benchmarks of whole commands, in interleaved pairs: ours against another tool or against doing it plainly.
//!
//! Never part of the product, and never judges: it prints the raw pairs as JSON lines, from which `tools/bench.py`
//! makes the tables. Each pair is measured back to back, so that what else the machine does falls on both.

#![forbid(unsafe_code)]

pub mod fixture;
pub mod pairs;
pub mod rows;
pub mod worker;

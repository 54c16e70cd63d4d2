//! What the tests of this workspace stand on: a hermetic environment, what the kernel can do, crashes at every step,
//! a search for leaks, inputs for properties, and skips that nobody can overlook.
//!
//! Never part of the product. Nothing here imitates the kernel: a feature is found by using it.

#![forbid(unsafe_code)]

pub mod cases;
pub mod crash;
pub mod environment;
pub mod feature;
pub mod input;
pub mod leaks;
pub mod opened;
mod places;
pub mod schema;
pub mod skip;
pub mod terminal;
pub mod tool;
pub mod transcript;

pub use environment::Environment;
pub use feature::Feature;
pub use opened::Opened;
pub use tool::Tool;

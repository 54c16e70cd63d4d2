//! Raw kernel mechanisms, without policy: the only crate of the workspace with `unsafe` code.

mod arch;
pub mod crash;
pub mod ending;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod kin;
pub mod memory;
pub mod probe;
pub mod process;
mod raw;
pub mod threads;
pub mod transplant;
pub mod world;

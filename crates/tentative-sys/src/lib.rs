//! Raw kernel mechanisms, without policy: the only crate of the workspace with `unsafe` code.

pub mod crash;
pub mod ending;
pub mod files;
pub mod kin;
pub mod probe;
pub mod world;

mod trap;

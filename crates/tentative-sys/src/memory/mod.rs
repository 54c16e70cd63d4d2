//! Layer 1: private pages and mappings.
//!
//! `maps` reads what is mapped, `pages` which pages differ, `marks` write-protects pages so that an ordinary user
//! can find the written ones. Nothing here allocates, and nothing here changes another process.

pub mod maps;
pub(crate) mod marks;
pub(crate) mod pages;
pub(crate) mod query;

/// Bytes of a page; every supported kernel configuration uses 4 KiB.
pub const PAGE: usize = 4096;

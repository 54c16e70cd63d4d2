//! The Python extension module `tentative._tentative`: thin, without decisions of its own.
//!
//! It has unsafe code for two reasons only: PyO3's macros, and calls that PyO3 has no safe form for (`names`, `versions`,
//! `interpreter`, `guard`).

mod begin;
mod branch;
mod committed;
mod ended;
mod errors;
mod frozen;
mod guard;
mod interpreter;
mod names;
mod report;
mod room;
mod versions;

use pyo3::prelude::*;

/// A heap of the library's own. In the host's, what a transaction allocates lies scattered over the free places of the
/// whole heap, and each page that is written to after the clone is copied: 73 of 460 copies of an empty transaction.
/// The interpreter's lock is held wherever this is used, so no fork of the host's finds its lock taken.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

#[pymodule]
mod _tentative {
    #[pymodule_export]
    use crate::{
        begin::begin, branch::Branch, committed::Committed, ended::Ended, frozen::Frozen, guard::Guard,
        names::Names, report::Report,
    };

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name is Python's")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    const MEMORY_LIMIT_BY: &str = tentative::process::MEMORY_LIMIT_BY;
}

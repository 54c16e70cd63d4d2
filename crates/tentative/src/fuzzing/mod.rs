//! Properties of what this crate reads from others or reads back from itself, each for any bytes.
//!
//! Compiled into tests and fuzzers only. The targets in `fuzz/` give each property the bytes that a fuzzer finds; a unit
//! test gives each the seeds in `fuzz/seeds` and some made-up bytes, so that it cannot rot. Invariant: a property
//! panics exactly when it does not hold, touches nothing outside memory, and says the same of the same bytes every time.

mod addresses;
mod filter;
mod journal;
mod mountinfo;
mod names;
mod proc;
mod rules;

pub use addresses::addresses;
pub use filter::filter;
pub use journal::journal;
pub use mountinfo::mountinfo;
pub use names::names;
pub use proc::proc;
pub use rules::rules;

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use tentative_testkit::input::Input;

/// An absolute path of any bytes that a name can have.
fn path(input: &mut Input<'_>, longest: usize) -> PathBuf {
    let mut bytes = vec![b'/'];
    bytes.extend(input.bytes(longest).iter().map(|byte| if *byte == 0 { b'/' } else { *byte }));
    PathBuf::from(OsString::from_vec(bytes))
}

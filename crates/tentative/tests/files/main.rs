//! The file layer on real overlays: what code does inside is seen, committed and taken back.
//!
//! Every case runs `sh` inside a plan's mounts, in a mount namespace that `unshare(1)` makes: as root directly, as an
//! ordinary user inside a user namespace. Nothing of the kernel is replaced.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod inside;

mod tree;

mod commit;
mod conflict;
#[cfg(feature = "crash-points")]
mod crash;
mod model;
mod mounting;
mod mounts;

//! Layer 5, the file system: overlays over every mounted file system, what they collected, and putting it in place.
//!
//! It never writes outside the store before the commit point of the journal, and it never implements copy-on-write of
//! its own: the kernel's overlays do.

mod ancestors;
pub mod apply;
pub mod attributes;
pub(crate) mod basis;
pub mod changes;
mod compare;
pub mod conflict;
mod draft;
mod entry;
mod ground;
mod identity;
pub(crate) mod links;
pub mod moment;
pub mod mount;
pub mod mountinfo;
mod moved;
pub mod name;
pub mod places;
pub mod plan;
pub(crate) mod removal;
mod scaffold;
mod scan;
pub(crate) mod seal;
pub mod stage;
mod take;
mod theirs;
pub(crate) mod tree;
pub mod ways;

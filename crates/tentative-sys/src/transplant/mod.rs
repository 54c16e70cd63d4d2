//! The transaction of one live process: a copy-on-write clone that runs, and the transplant that commits it.
//!
//! `begin` saves the caller's context and clones; the clone (the branch) continues as if `begin` had returned, while
//! the origin waits on a private stack and touches none of its own memory. A commit is one transplant from the
//! branch into the origin: `stage` prepares everything and changes nothing, then comes the commit point, then
//! `apply` cannot fail. A rollback ends the branch and lets `begin` return in the origin.
//!
//! Who runs what: `begin`, `wait`, `stage` and `apply` are the origin's, on the private stack in the control area,
//! with raw system calls only; `branch` is the clone's.

mod apply;
mod begin;
mod branch;
mod control;
mod copies;
mod descriptors;
mod fetch;
mod locks;
mod maps_of;
mod place;
pub(crate) mod stage;
mod standing;
pub mod talk;
mod wait;

use core::ptr;
use std::{os::fd::RawFd, time::Duration};

pub(crate) use begin::count_threads;
use control::{Area, arrival};
pub use control::{Counts, Ending, Refusal, Step};
pub use place::{Elsewhere, Place};
use rustix::io::Errno;
pub use standing::Identity;

use crate::{
    arch::{self, Context},
    process::{copies::PrivateCopy, descriptors::Inherited},
    world::Instruction,
};

/// The signal by which a branch ends itself when it rolls back with nothing to hand over: the last real-time one,
/// which nothing else raises. A program that ends that way all the same is rolled back just so.
const ROLLBACK_SIGNAL: i32 = 64;

/// Where and how a branch enters a sandbox.
#[derive(Debug)]
pub struct Entry {
    /// Pidfd of the sandbox's init.
    pub init: RawFd,
    /// `CLONE_NEW*` flags of the namespaces that the helper enters before it makes the branch …
    pub namespaces: u32,
    /// … and of those that the branch enters itself: root may choose its process id only before it has left its own
    /// user namespace.
    pub namespaces_of_branch: u32,
    /// Whether the branch gets the origin's process id inside.
    pub same_pid: bool,
    /// The compiled filter; empty for none.
    pub filter: Vec<Instruction>,
    /// Socket by which the branch joins the monitor around this transaction, whose filter it has already; -1 when
    /// there is none and the branch installs the filter itself.
    pub outer: RawFd,
    /// Socket to the monitor.
    pub monitor: RawFd,
    /// Every descriptor that is the transaction's and not the program's: the branch loses them, the origin keeps them.
    pub own: Vec<RawFd>,
    /// NUL-terminated path of the journal that tells whether a monitor that died had committed.
    pub journal: Vec<u8>,
    /// Capabilities that the branch keeps, as a bit set.
    pub capabilities: u64,
    /// NUL-terminated working directory inside.
    pub directory: Vec<u8>,
    /// What becomes of the inherited descriptors.
    pub inherited: *const Inherited,
    /// How many there are.
    pub inherited_len: usize,
    /// Private copies among them.
    pub copies: *const PrivateCopy,
    /// How many there are.
    pub copies_len: usize,
}

/// What a transaction wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes<'a> {
    /// Ends the branch after this time.
    pub timeout: Option<Duration>,
    /// Bytes of address space that the branch may add.
    pub memory_limit: Option<u64>,
    /// Returns [`Begun::Frozen`] in the origin when the branch asks for its commit.
    pub decide: bool,
    /// The sandbox to run in.
    pub entry: Option<&'a Entry>,
    /// What the branch has as its standard output and standard error instead of the origin's.
    pub output: Option<[RawFd; 2]>,
}

/// Which step of begin failed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BeginStep {
    /// Mapping the control area.
    #[default]
    Control,
    /// Another thread runs.
    Threads,
    /// The caller is not the main thread.
    MainThread,
    /// The caller may not look at its own clone: its ids are not one user's.
    Ids,
    /// A writable shared mapping exists; the subject is its address.
    SharedMapping,
    /// A shared mapping that can be made writable exists; the subject is its address.
    SharedMappingToBe,
    /// Entering the sandbox's namespaces.
    Namespaces,
    /// The clone itself.
    Clone,
    /// Descriptors for waiting.
    Wait,
    /// Setting up the branch; the subject is an index into the inherited descriptors, or their number for the
    /// working directory.
    Branch,
}

/// Why a transaction could not begin; the origin is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeginError {
    /// The step.
    pub step: BeginStep,
    /// What the kernel said.
    pub errno: Errno,
    /// Address or index that it is about.
    pub subject: usize,
}

/// Where `begin` returned.
#[derive(Debug)]
pub enum Begun {
    /// In the branch.
    Inside(Branch),
    /// In the origin, with the branch stopped and asking for its commit.
    Frozen(Frozen),
    /// In the origin, rolled back.
    Ended(Ended),
}

/// The branch's handle on its transaction.
#[derive(Debug)]
pub struct Branch {
    area: Area,
    place: Place,
}

/// The origin's handle on a branch that asks for its commit.
#[derive(Debug)]
pub struct Frozen {
    area: Area,
}

/// How a transaction ended without a commit.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// How the branch ended.
    pub ending: Ending,
    /// What it wanted to hand over; none if it asked for nothing, or if that could not be fetched.
    pub payload: Option<Vec<u8>>,
}

/// What a commit did, seen in the origin after it.
#[derive(Debug)]
pub struct Committed {
    /// What was transplanted.
    pub counts: Counts,
    /// The process that was the branch, which is ending.
    pub departed: Departed,
}

/// The process that was the branch and has been killed: the kernel takes its memory down while the origin goes on.
/// Dropping this waits for its end and reaps it.
#[derive(Debug)]
pub struct Departed(i32);

impl Drop for Departed {
    fn drop(&mut self) {
        if self.0 > 0 {
            wait::reap(self.0);
        }
    }
}

/// A refused commit: the reason and the monitor's words, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The step and its subject.
    pub refusal: Refusal,
    /// What the monitor said, one reason a line.
    pub words: String,
}

/// Begins a transaction; returns in the branch and, when it has ended, in the origin.
///
/// Like fork, it returns in two processes. The caller must be the only thread.
///
/// # Errors
/// The first step that failed; nothing has happened then.
pub fn begin(wishes: &Wishes<'_>) -> Result<Begun, BeginError> {
    let control_error = |errno| BeginError { step: BeginStep::Control, errno, subject: 0 };
    begin::check_host()?;
    let area = Area::map().map_err(control_error)?;
    let control = area.pointer();
    begin::prepare(control, wishes);
    // SAFETY: the area is mapped, a place in it may be taken.
    let context = unsafe { &raw mut (*control).begin };
    let stack = private_stack(&area);
    // SAFETY: each process resumes this context at most once: the branch when it is set up, the origin when the
    // branch has ended or failed to start or is frozen, after which it resumes other contexts only.
    let value = unsafe { arch::call_on_stack(context, stack, begin::origin_main, control.cast()) };
    match value {
        arrival::INSIDE => Ok(Begun::Inside(Branch { area, place: Place::enter() })),
        arrival::FROZEN => Ok(Begun::Frozen(Frozen { area })),
        arrival::ENDED => Ok(Begun::Ended(begin::ended(&area))),
        _ => Err(begin::failure(&area)),
    }
}

/// Top of the private stack.
fn private_stack(area: &Area) -> *mut u8 {
    // SAFETY: the area is mapped, a place in it may be taken.
    let stack = unsafe { &raw mut (*area.pointer()).private_stack };
    // One past the end of the array is in the same mapping.
    stack.wrapping_add(1).cast()
}

/// Reaps a helper task that no other wait sees.
pub(crate) fn reap_helper(pid: i32) {
    wait::reap(pid);
}

impl Branch {
    /// Commits: on `Ok` the caller is the origin process, and its memory is the branch's.
    ///
    /// # Errors
    /// The refusal; the caller is still the branch and goes on.
    ///
    /// # Panics
    /// If the caller is not the branch, like every method here that asks the origin for something.
    pub fn commit(&mut self) -> Result<Committed, Refused> {
        self.place.require();
        let control = self.area.pointer();
        // SAFETY: the area is mapped, a place in it may be taken.
        let context = unsafe { &raw mut (*control).commit };
        // The branch uses its private stack for this call alone.
        let stack = private_stack(&self.area);
        // SAFETY: resumed once: in the origin after the transplant, or in the branch after a refusal.
        let value = unsafe { arch::call_on_stack(context, stack, branch::freeze_for_commit, control.cast()) };
        if value == arrival::COMMITTED {
            Place::leave();
            // SAFETY: in the origin its own area holds the outcome, and nothing else refers to it.
            let origin = unsafe { &mut (*control).origin };
            let departed = Departed(core::mem::take(&mut origin.branch));
            return Ok(Committed { counts: origin.reply.counts, departed });
        }
        // SAFETY: as above, the branch's copy, written by the origin before it let the branch go on.
        let reply = unsafe { (*control).reply };
        Err(Refused { refusal: reply.refusal, words: talk::words(&reply) })
    }

    /// Counts what the branch has changed in memory so far.
    pub fn measure(&mut self) -> Counts {
        self.place.require();
        let control = self.area.pointer();
        // SAFETY: the area is mapped, and this is the branch's own copy.
        branch::measure(unsafe { &mut *control })
    }

    /// Fetches what the monitor has found so far, a JSON document; empty without a monitor.
    pub fn look(&mut self) -> Vec<u8> {
        self.place.require();
        let control = self.area.pointer();
        let mut room = vec![0; 64 << 10];
        loop {
            // SAFETY: the area is mapped, and this is the branch's own copy.
            let found = branch::look(unsafe { &mut *control }, &mut room);
            if found <= room.len() {
                room.truncate(found);
                return room;
            }
            room = vec![0; found];
        }
    }

    /// Ends the branch; the origin gets the payload.
    pub fn rollback(&mut self, payload: &[u8]) -> ! {
        self.place.require();
        let control = self.area.pointer();
        // SAFETY: the area is mapped, and this is the branch's own copy.
        branch::roll_back(unsafe { &mut *control }, payload)
    }

    /// Where the branch's code runs: there alone may it be asked to do something.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The descriptor that holds the write-protection marks, where there is one; it is not the program's.
    #[must_use]
    pub fn marks(&self) -> Option<RawFd> {
        let control = self.area.pointer();
        // SAFETY: the area is mapped, and this is the branch's own copy.
        let marks = unsafe { (*control).request.marks };
        (marks >= 0).then_some(marks)
    }
}

impl Frozen {
    /// Commits the frozen branch: does not return when it succeeds, since the origin continues in the branch's
    /// `commit`.
    ///
    /// # Errors
    /// The refusal; the branch has been told and goes on, and this handle waits for it again.
    pub fn commit(self) -> Begun {
        self.go_on(begin::commit_frozen)
    }

    /// Rolls the frozen branch back.
    #[must_use]
    pub fn rollback(self) -> Ended {
        match self.go_on(begin::drop_frozen) {
            Begun::Ended(ended) => ended,
            Begun::Inside(_) | Begun::Frozen(_) => Ended { ending: Ending::Asked, payload: None },
        }
    }

    fn go_on(self, function: unsafe extern "C" fn(*mut u8) -> !) -> Begun {
        let control = self.area.pointer();
        // SAFETY: the area is mapped, a place in it may be taken.
        let resumption = unsafe { &raw mut (*control).origin.resumption };
        // Nobody uses the private stack while frozen.
        let stack = private_stack(&self.area);
        // SAFETY: resumed once, in the origin.
        let value = unsafe { arch::call_on_stack(resumption, stack, function, control.cast()) };
        if value == arrival::FROZEN {
            return Begun::Frozen(self);
        }
        Begun::Ended(begin::ended(&self.area))
    }
}

/// Where the origin continues when a branch has ended: `begin`, or the last call on a frozen one.
fn resumption(control: &control::Control) -> *const Context {
    if control.origin.ran { &raw const control.origin.resumption } else { ptr::from_ref(&control.begin) }
}

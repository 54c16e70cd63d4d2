//! The control area: the memory that a transaction works in, excluded from everything it does.
//!
//! It is a private mapping made before the clone, so origin and branch have one each at the same address. The
//! origin reads the branch's request out of the branch's copy and writes its reply into it; the branch can reach
//! nothing of the origin's, so what the origin keeps here needs no distrust.

use core::ptr::NonNull;

use rustix::io::Errno;

use crate::{
    arch::Context,
    memory::{PAGE, maps::Vma},
    process::descriptors::{FdOp, MAX_FDS},
    process::state::{Powers, ProcessState, Root},
    raw,
    threads::state::{Action, IntervalTimer, ThreadState},
    transplant::{
        copies::WriteBack,
        fetch::Job,
        locks::{Done, MAX_LOCKS},
        stage::{Edit, Run},
    },
};

/// As many mappings as the kernel's default limit (vm.max_map_count) allows.
pub(crate) const MAX_VMAS: usize = 65_536;
const TEXT: usize = 64 << 10;
/// Pages of one read of a page map.
pub(crate) const ENTRIES: usize = 4096;
const MAX_RUNS: usize = 1 << 20;
const MAX_EDITS: usize = 2 * MAX_VMAS;
/// Most bytes of the monitor's words in a message or reply.
pub const WORDS: usize = 3000;
const STACK: usize = 256 << 10;

/// Values that `call_on_stack` returns where a transaction began or asked for its commit.
pub(crate) mod arrival {
    pub(crate) const FAILED: u64 = 1;
    pub(crate) const INSIDE: u64 = 2;
    pub(crate) const ENDED: u64 = 3;
    pub(crate) const FROZEN: u64 = 4;
    pub(crate) const COMMITTED: u64 = 5;
    pub(crate) const REFUSED: u64 = 6;
    pub(crate) const ANSWERED: u64 = 7;
}

/// What the branch asks for, read by the origin while the branch is stopped.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Request {
    /// One of [`ask`]; 0 while the branch runs.
    pub(crate) kind: u32,
    pub(crate) errno: i32,
    /// Which descriptor of the plan, for `SETUP_FAILED`.
    pub(crate) index: u32,
    pub(crate) context: Context,
    pub(crate) payload: usize,
    pub(crate) payload_len: usize,
    pub(crate) program_break: usize,
    /// Number of the write-protection descriptor, -1 without one.
    pub(crate) marks: i32,
    pub(crate) threads: ThreadState,
    pub(crate) process: ProcessState,
    /// What it might do when its code began.
    pub(crate) began: Powers,
    /// The root directory that it had then.
    pub(crate) began_at: Root,
}

/// Kinds of requests.
pub(crate) mod ask {
    pub(crate) const NOTHING: u32 = 0;
    pub(crate) const COMMIT: u32 = 1;
    pub(crate) const ROLLBACK: u32 = 2;
    pub(crate) const SETUP_FAILED: u32 = 3;
    /// Count what changed in memory and go on.
    pub(crate) const MEASURE: u32 = 4;
    /// Fetch the monitor's findings into the payload's memory and go on.
    pub(crate) const LOOK: u32 = 5;
}

/// The origin's reply in the branch's copy.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Reply {
    /// An [`arrival`] value; 0 while the branch has to wait.
    pub(crate) arrival: u64,
    pub(crate) refusal: Refusal,
    pub(crate) counts: Counts,
    /// Bytes of the findings that `LOOK` asked for; more than the payload has room for if it was too small.
    pub(crate) found: usize,
    pub(crate) words_len: u32,
    pub(crate) words: [u8; WORDS],
}

/// Why staging refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Which step.
    pub step: Step,
    /// The kernel's error number, 0 if none.
    pub errno: i32,
    /// Address or number that it is about.
    pub subject: usize,
}

/// Steps of staging that can refuse.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// No refusal.
    #[default]
    None,
    /// Reading mappings or page maps.
    ReadMaps,
    /// The limit of mappings or of the tables would be passed.
    Budget,
    /// Making a new mapping.
    Map,
    /// Copying pages.
    Copy,
    /// A shared mapping that is not on a file that can be opened.
    SharedMapping,
    /// Fetching a descriptor.
    Descriptor,
    /// Taking a lock on a file; the subject is its descriptor.
    Lock,
    /// Making ready to write a deleted file; the subject is its descriptor.
    DeletedFile,
    /// Moving the program break.
    Break,
    /// Other threads of the branch.
    Threads,
    /// Children of the branch.
    Children,
    /// Who the branch is differs from who the origin is; the subject says in what.
    Identity,
    /// The branch has left its process group or session.
    Group,
    /// A signal waits until the branch lets it through; the subject is its number.
    PendingSignal,
    /// The working directory cannot be reached.
    Directory,
    /// The monitor refused or is gone.
    Monitor,
}

/// What a comparison of both memories found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pages whose content differs in mappings that both have.
    pub pages_changed: u64,
    /// Pages with content in mappings that only the branch has.
    pub pages_new: u64,
    /// Pages that the branch dropped.
    pub pages_dropped: u64,
    /// Mappings that only the branch has.
    pub mappings_new: u64,
    /// Mappings that only the origin has.
    pub mappings_gone: u64,
    /// Changed pages of the program break's heap.
    pub heap: u64,
    /// Changed pages of the main stack.
    pub stack: u64,
    /// Changed pages of private file mappings (library data).
    pub file: u64,
    /// Changed pages of anonymous mappings.
    pub anonymous: u64,
}

/// How the branch ended without asking for a commit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It asked for the rollback.
    #[default]
    Asked,
    /// It called `_exit` or `exit_group`.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// It ran longer than allowed.
    TimedOut,
    /// The monitor died.
    MonitorLost,
}

/// What begin wants, written before the clone and read by both.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) timeout_ms: u64,
    pub(crate) memory_limit: u64,
    /// The address space limit that the branch had before its own was set.
    pub(crate) address_limit: [u64; 2],
    pub(crate) decide: bool,
    pub(crate) use_marks: bool,
    /// Entry into a sandbox; null without one.
    pub(crate) entry: *const crate::transplant::Entry,
    /// Standard output and error of the branch; -1 for the origin's.
    pub(crate) output: [i32; 2],
    pub(crate) rseq: usize,
    pub(crate) rseq_len: u32,
    pub(crate) robust_list: usize,
    pub(crate) robust_len: usize,
    pub(crate) tid_address: usize,
    pub(crate) saved_mask: u64,
    pub(crate) dumpable: usize,
    pub(crate) subreaper: i32,
    pub(crate) pid: i32,
    /// What the origin does with SIGCHLD, and its interval timers.
    pub(crate) child_action: Action,
    pub(crate) timers: [IntervalTimer; 3],
}

/// How far the monitor is with the files of a commit.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Filing {
    /// There is no monitor, or it was not asked yet.
    #[default]
    Idle,
    /// It was asked to stage; its answer has not been read.
    Asked,
    /// Staged, and its commit record is the commit point.
    Staged,
    /// No file was touched: nothing is to be published.
    Untouched,
    /// It refused, or is gone.
    Refused,
}

/// What the origin alone uses.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) errno: i32,
    pub(crate) failed_at: crate::transplant::BeginStep,
    pub(crate) branch: i32,
    pub(crate) pidfd: i32,
    pub(crate) signalfd: i32,
    pub(crate) own_pagemap: i32,
    pub(crate) branch_pagemap: i32,
    pub(crate) terminal: i32,
    pub(crate) terminal_group: i32,
    pub(crate) started_ms: u64,
    /// Origin code ran between freeze and commit: marks prove nothing any more.
    pub(crate) ran: bool,
    pub(crate) filing: Filing,
    pub(crate) filing_refusal: Refusal,
    pub(crate) request: Request,
    pub(crate) reply: Reply,
    pub(crate) ending: Ending,
    pub(crate) payload: usize,
    pub(crate) payload_len: usize,
    /// Whether there was one that could not be fetched.
    pub(crate) payload_lost: bool,
    /// Signals that the program blocks and that came for it meanwhile.
    pub(crate) blocked_signals: u64,
    pub(crate) resumption: Context,
    /// Addresses between which the tables of entries hold both page maps.
    pub(crate) window: [usize; 2],
    pub(crate) own_count: usize,
    pub(crate) branch_count: usize,
    pub(crate) run_count: usize,
    pub(crate) job_count: usize,
    pub(crate) edit_count: usize,
    pub(crate) fd_count: usize,
    /// Above every number of the program's.
    pub(crate) fd_base: usize,
    pub(crate) copy_count: usize,
    pub(crate) locked_count: usize,
    pub(crate) lock_count: usize,
    pub(crate) directory: i32,
    /// Signals that came for the branch while it was stopped.
    pub(crate) missed_signals: u64,
    pub(crate) scratch_from: usize,
    pub(crate) scratch_to: usize,
    pub(crate) old_break: usize,
    pub(crate) own_break: usize,
}

/// Room for a stack, aligned as a stack has to be.
#[repr(C, align(4096))]
pub(crate) struct Stack([u8; STACK]);

/// The control area. Every field is valid as zero bytes.
#[repr(C, align(4096))]
pub(crate) struct Control {
    pub(crate) begin: Context,
    pub(crate) commit: Context,
    pub(crate) plan: Plan,
    pub(crate) request: Request,
    pub(crate) reply: Reply,
    pub(crate) origin: Origin,
    pub(crate) helper_stack: Stack,
    pub(crate) private_stack: Stack,
    pub(crate) entries_own: [u64; ENTRIES],
    pub(crate) entries_branch: [u64; ENTRIES],
    pub(crate) text: [u8; TEXT],
    pub(crate) own_vmas: [Vma; MAX_VMAS],
    pub(crate) branch_vmas: [Vma; MAX_VMAS],
    pub(crate) edits: [Edit; MAX_EDITS],
    pub(crate) runs: [Run; MAX_RUNS],
    pub(crate) jobs: [Job; MAX_RUNS],
    pub(crate) fds: [FdOp; MAX_FDS],
    pub(crate) write_backs: [WriteBack; MAX_FDS],
    /// Which of the descriptors have locks, and what was done about them.
    pub(crate) locked: [u32; MAX_LOCKS],
    pub(crate) locks: [Done; MAX_LOCKS],
    /// In the branch's copy: what it installed at the inherited numbers, by inode.
    pub(crate) installed: [u64; MAX_FDS],
}

/// Bytes of the control area.
pub(crate) const SIZE: usize = size_of::<Control>();

/// Owner of a control area's mapping.
#[derive(Debug)]
pub(crate) struct Area(NonNull<Control>);

// SAFETY: the mapping belongs to the process and not to a thread. What leads into it is used by the thread that began
// alone, on whose stacks the contexts in it were saved: a branch's handle checks that first (`Place`), and a frozen one's
// methods take it by value in the origin, which has one thread. Unmapping it is any thread's right.
unsafe impl Send for Area {}
// SAFETY: as above: by a shared reference only the write-protection descriptor's number is read, which is written before
// the branch's code runs.
unsafe impl Sync for Area {}

impl Area {
    /// Maps a control area with an inaccessible page on either side, so that it merges with no neighbour.
    pub(crate) fn map() -> Result<Area, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { raw::mmap(0, SIZE + 2 * PAGE, libc::PROT_NONE, flags, -1, 0) }?;
        // SAFETY: the middle of the mapping just made.
        unsafe { raw::mprotect(base + PAGE, SIZE, libc::PROT_READ | libc::PROT_WRITE) }?;
        let pointer = core::ptr::with_exposed_provenance_mut::<Control>(base + PAGE);
        NonNull::new(pointer).map(Area).ok_or(Errno::NOMEM)
    }

    /// The control area as a pointer; it stays valid until the area is dropped.
    pub(crate) const fn pointer(&self) -> *mut Control {
        self.0.as_ptr()
    }

    /// First address of the usable part.
    pub(crate) fn start(control: *const Control) -> usize {
        control.expose_provenance()
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        let start = Self::start(self.0.as_ptr());
        // SAFETY: the area is this value's own, and nothing refers to it any more.
        let _cannot_fail = unsafe { raw::munmap(start - PAGE, SIZE + 2 * PAGE) };
    }
}

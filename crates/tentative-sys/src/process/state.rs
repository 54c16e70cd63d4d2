//! The attributes of a process that live in the kernel: captured in the branch, applied in the origin.

use crate::raw;

const LIMITS: usize = 16;
const NAME: usize = 16;
/// As many processors as the kernel can be built for.
const CPU_WORDS: usize = 8192 / 64;
/// IOPRIO_WHO_PROCESS.
const IO_PRIORITY_OF_PROCESS: usize = 1;
/// What personality(2) is given to be asked.
const ASK: usize = 0xffff_ffff;

/// Attributes that a commit carries over, and those that it must find unchanged.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessState {
    pub(crate) umask: u32,
    pub(crate) limits: [[u64; 2]; LIMITS],
    pub(crate) name: [u8; NAME],
    pub(crate) standing: Standing,
    /// Whether others of the same user may look at its memory.
    pub(crate) dumpable: usize,
    pub(crate) powers: Powers,
    pub(crate) root: Root,
}

/// Which directory a process has as its root, told by its file and by the mount that it is in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Root {
    device: [u32; 2],
    inode: u64,
    mount: u64,
}

/// How a process stands among others; each of them is its own to change.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// As getpriority(2) has it: 20 less the nice value.
    priority: usize,
    /// Policy and its priority.
    scheduler: [i32; 2],
    io_priority: usize,
    timer_slack: usize,
    personality: usize,
    pub(crate) subreaper: i32,
    /// Bytes of the mask that the kernel has.
    affinity_len: usize,
    affinity: [u64; CPU_WORDS],
}

/// What a process may do, as far as a clone can be told by it from the one that it was.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Powers {
    /// Effective, permitted and inheritable capabilities, the low words first.
    capabilities: [u32; 6],
    securebits: usize,
    /// Whether no program that it executes gives it more; it is not part of the comparison.
    pub(crate) no_new_privileges: usize,
}

fn limit(which: usize, new: Option<&[u64; 2]>) -> [u64; 2] {
    let mut old = [0; 2];
    let new = new.map_or(0, |pair| core::ptr::from_ref(pair) as usize);
    let pointer = (&raw mut old) as usize;
    // SAFETY: the kernel reads and writes one pair each.
    let _unknown_limits_stay_zero =
        unsafe { raw::syscall(libc::SYS_prlimit64, [0, which, new, pointer, 0, 0]) };
    old
}

/// A soft limit of the calling process.
pub(crate) fn soft_limit(which: usize) -> u64 {
    limit(which, None)[0]
}

/// Lowers or raises a soft limit of the calling process; returns the old pair.
pub(crate) fn set_soft_limit(which: usize, soft: u64) -> [u64; 2] {
    let old = limit(which, None);
    limit(which, Some(&[soft.min(old[1]), old[1]]));
    old
}

/// Sets a limit of the calling process.
pub(crate) fn set_limit(which: usize, pair: &[u64; 2]) {
    limit(which, Some(pair));
}

/// As many numbers of descriptors as the hard limit allows, until it is dropped. Raw system calls only, so whoever may
/// not allocate or fail may hold it; whoever never drops it has to set a limit of its own.
#[must_use]
pub(crate) struct AllNumbers {
    before: [u64; 2],
}

impl AllNumbers {
    /// Raises the calling process's limit: the program may have lowered it below numbers that it has.
    pub(crate) fn allow() -> AllNumbers {
        AllNumbers { before: set_soft_limit(libc::RLIMIT_NOFILE as usize, u64::MAX) }
    }
}

impl Drop for AllNumbers {
    fn drop(&mut self) {
        set_limit(libc::RLIMIT_NOFILE as usize, &self.before);
    }
}

/// The file mode mask of the calling process, read by setting it for an instant; none while other threads run, which
/// could make a file meanwhile.
#[must_use]
pub fn umask() -> Option<u32> {
    if crate::transplant::count_threads() != Ok(1) {
        return None;
    }
    let signals = crate::threads::state::set_mask(u64::MAX);
    let mask = raw::umask(0o777).unwrap_or(0);
    let _cannot_fail = raw::umask(mask);
    crate::threads::state::set_mask(signals);
    Some(mask as u32)
}

impl ProcessState {
    /// Captures the calling process.
    pub(crate) fn capture_into(&mut self) {
        self.umask = raw::umask(0).unwrap_or(0) as u32;
        let _cannot_fail = raw::umask(self.umask as usize);
        for (which, slot) in self.limits.iter_mut().enumerate() {
            *slot = limit(which, None);
        }
        let name = self.name.as_mut_ptr() as usize;
        // SAFETY: the kernel writes 16 bytes.
        let _cannot_fail =
            unsafe { raw::syscall(libc::SYS_prctl, [libc::PR_GET_NAME as usize, name, 0, 0, 0, 0]) };
        self.standing.capture_into();
        self.dumpable = dumpable();
        self.powers = Powers::of_caller();
        self.root = Root::of_caller();
    }

    /// Makes the calling process's attributes these, where they differ.
    pub(crate) fn apply(&self) {
        let _cannot_fail = raw::umask(self.umask as usize);
        for (which, wanted) in self.limits.iter().enumerate() {
            if limit(which, None) != *wanted {
                limit(which, Some(wanted));
            }
        }
        let name = self.name.as_ptr() as usize;
        // SAFETY: the kernel reads a NUL-terminated name of at most 16 bytes.
        let _cannot_fail =
            unsafe { raw::syscall(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name, 0, 0, 0, 0]) };
        self.standing.apply();
        if dumpable() != self.dumpable {
            set_dumpable(self.dumpable);
        }
    }
}

fn prctl(option: i32, argument: usize) -> raw::Answer {
    // SAFETY: the options used here take a number, or a word that the caller makes and the kernel writes.
    unsafe { raw::syscall(libc::SYS_prctl, [option as usize, argument, 0, 0, 0, 0]) }
}

/// A call about the calling process that takes numbers only.
fn about_self(call: i64, arguments: [usize; 3]) -> raw::Answer {
    let [a, b, c] = arguments;
    // SAFETY: none of the calls used here takes an address.
    unsafe { raw::syscall(call, [a, b, c, 0, 0, 0]) }
}

/// Whether the calling process may look at the memory of its own clone: the kernel asks that its effective ids are all the
/// ids that the clone has (ptrace(2)), or for the power to look at any.
pub(crate) fn may_look_at_clone() -> bool {
    const SYS_PTRACE: u32 = 1 << 19;
    let one = |call: i64| {
        let mut ids = [0u32; 3];
        let [real, effective, saved] = &mut ids;
        let pointers = [real, effective, saved].map(|id| core::ptr::from_mut(id) as usize);
        // SAFETY: the kernel writes a word each.
        let _cannot_fail = unsafe { raw::syscall(call, [pointers[0], pointers[1], pointers[2], 0, 0, 0]) };
        ids[0] == ids[1] && ids[1] == ids[2]
    };
    one(libc::SYS_getresuid) && one(libc::SYS_getresgid)
        || Powers::of_caller().capabilities[0] & SYS_PTRACE != 0
}

/// Whether others of the same user may look at the calling process's memory.
pub(crate) fn dumpable() -> usize {
    prctl(libc::PR_GET_DUMPABLE, 0).unwrap_or(1)
}

/// Sets that.
pub(crate) fn set_dumpable(value: usize) {
    let _not_what_only_the_kernel_sets = prctl(libc::PR_SET_DUMPABLE, value);
}

/// Whether orphans among the calling process's descendants become its children.
pub(crate) fn subreaper() -> i32 {
    let mut flag = 0i32;
    let _cannot_fail = prctl(libc::PR_GET_CHILD_SUBREAPER, (&raw mut flag) as usize);
    flag
}

/// Sets that, which a clone does not inherit.
pub(crate) fn set_subreaper(flag: i32) {
    let _cannot_fail = prctl(libc::PR_SET_CHILD_SUBREAPER, flag as usize);
}

impl Standing {
    fn capture_into(&mut self) {
        self.priority = about_self(libc::SYS_getpriority, [0; 3]).unwrap_or(0);
        let policy = about_self(libc::SYS_sched_getscheduler, [0; 3]).unwrap_or(0) as i32;
        let mut priority = 0i32;
        // SAFETY: the kernel writes one `struct sched_param`, which is a word.
        let _cannot_fail =
            unsafe { raw::syscall(libc::SYS_sched_getparam, [0, (&raw mut priority) as usize, 0, 0, 0, 0]) };
        self.scheduler = [policy, priority];
        self.io_priority = about_self(libc::SYS_ioprio_get, [IO_PRIORITY_OF_PROCESS, 0, 0]).unwrap_or(0);
        self.timer_slack = prctl(libc::PR_GET_TIMERSLACK, 0).unwrap_or(0);
        self.personality = about_self(libc::SYS_personality, [ASK, 0, 0]).unwrap_or(0);
        self.subreaper = subreaper();
        let arguments = [0, size_of_val(&self.affinity), self.affinity.as_mut_ptr() as usize, 0, 0, 0];
        // SAFETY: the kernel writes at most the mask's length.
        self.affinity_len = unsafe { raw::syscall(libc::SYS_sched_getaffinity, arguments) }.unwrap_or(0);
    }

    /// Makes the calling process stand like this. What a process may ask for itself its clone could; so it may, too.
    fn apply(&self) {
        let mut now = *self;
        now.capture_into();
        if now.affinity != self.affinity {
            let arguments = [0, self.affinity_len, self.affinity.as_ptr() as usize, 0, 0, 0];
            // SAFETY: the kernel reads that many bytes, which it wrote before.
            let _allowed = unsafe { raw::syscall(libc::SYS_sched_setaffinity, arguments) };
        }
        if now.scheduler != self.scheduler {
            let [policy, priority] = self.scheduler;
            let arguments = [0, policy as usize, (&raw const priority) as usize, 0, 0, 0];
            // SAFETY: the kernel reads one `struct sched_param`, which is a word.
            let _allowed = unsafe { raw::syscall(libc::SYS_sched_setscheduler, arguments) };
        }
        if now.priority != self.priority {
            let nice = 20usize.wrapping_sub(self.priority);
            let _allowed = about_self(libc::SYS_setpriority, [0, 0, nice]);
        }
        if now.io_priority != self.io_priority {
            let arguments = [IO_PRIORITY_OF_PROCESS, 0, self.io_priority];
            let _allowed = about_self(libc::SYS_ioprio_set, arguments);
        }
        if now.timer_slack != self.timer_slack {
            let _cannot_fail = prctl(libc::PR_SET_TIMERSLACK, self.timer_slack);
        }
        if now.personality != self.personality {
            let _cannot_fail = about_self(libc::SYS_personality, [self.personality, 0, 0]);
        }
        if now.subreaper != self.subreaper {
            set_subreaper(self.subreaper);
        }
    }
}

/// Renounces for ever what executed programs could give.
pub(crate) fn renounce_new_privileges() {
    let _cannot_fail = prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
}

impl Root {
    /// The calling process's; all zero where the kernel does not tell.
    pub(crate) fn of_caller() -> Root {
        // SAFETY: zero bytes are valid for all of it.
        let mut found: libc::statx = unsafe { core::mem::zeroed() };
        let (path, mask) = (c"/".as_ptr() as usize, (libc::STATX_INO | libc::STATX_MNT_ID) as usize);
        let arguments = [0, path, 0, mask, (&raw mut found) as usize, 0];
        // SAFETY: the kernel reads a NUL-terminated path and writes one structure.
        let _all_zero_then = unsafe { raw::syscall(libc::SYS_statx, arguments) };
        Root {
            device: [found.stx_dev_major, found.stx_dev_minor],
            inode: found.stx_ino,
            mount: found.stx_mnt_id,
        }
    }
}

impl Powers {
    /// The calling process's.
    pub(crate) fn of_caller() -> Powers {
        const VERSION_3: u32 = 0x2008_0522;
        let header = [VERSION_3, 0];
        let mut capabilities = [0u32; 6];
        let arguments = [(&raw const header) as usize, (&raw mut capabilities) as usize, 0, 0, 0, 0];
        // SAFETY: the kernel reads a header of two words and writes, for this version, two data of three words each.
        let _cannot_fail = unsafe { raw::syscall(libc::SYS_capget, arguments) };
        Powers {
            capabilities,
            securebits: prctl(libc::PR_GET_SECUREBITS, 0).unwrap_or(0),
            no_new_privileges: prctl(libc::PR_GET_NO_NEW_PRIVS, 0).unwrap_or(0),
        }
    }

    /// Whether the calling process could do now what it could do then, itself.
    pub(crate) fn are_those_of(&self, then: &Powers) -> bool {
        (self.capabilities, self.securebits) == (then.capabilities, then.securebits)
    }
}

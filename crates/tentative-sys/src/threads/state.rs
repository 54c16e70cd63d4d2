//! The signal state and the interval timers of a process with one thread: captured in the branch, applied in the
//! origin.

use rustix::io::Errno;

use crate::raw;

/// `struct sigaction` as the kernel has it (64-bit architectures).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) handler: usize,
    pub(crate) flags: u64,
    pub(crate) restorer: usize,
    pub(crate) mask: u64,
}

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AlternateStack {
    pointer: usize,
    flags: i32,
    padding: i32,
    size: usize,
}

/// `struct itimerval`: interval and value, seconds and microseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IntervalTimer(pub(crate) [i64; 4]);

const _: () = assert!(size_of::<Action>() == 32 && size_of::<AlternateStack>() == 24);

/// Signals 1 to 64.
pub(crate) const SIGNALS: usize = 64;
const SIGNAL_SET: usize = 8;

/// Everything of layer 2 that is not in memory or in the saved context.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadState {
    pub(crate) mask: u64,
    pub(crate) actions: [Action; SIGNALS],
    pub(crate) alternate_stack: AlternateStack,
    pub(crate) timers: [IntervalTimer; 3],
}

/// Sets the signal mask and returns the old one.
pub(crate) fn set_mask(mask: u64) -> u64 {
    change_mask(libc::SIG_SETMASK as usize, mask)
}

/// Blocks more signals and returns the old mask.
pub(crate) fn block(signals: u64) -> u64 {
    change_mask(libc::SIG_BLOCK as usize, signals)
}

fn change_mask(how: usize, signals: u64) -> u64 {
    let mut old = 0u64;
    let (new, previous) = ((&raw const signals) as usize, (&raw mut old) as usize);
    // SAFETY: both words are valid for the call; the mask belongs to the calling thread.
    let _cannot_fail =
        unsafe { raw::syscall(libc::SYS_rt_sigprocmask, [how, new, previous, SIGNAL_SET, 0, 0]) };
    old
}

/// Reads the action of a signal.
pub(crate) fn action(signal: usize) -> Action {
    let mut old = Action::default();
    let pointer = (&raw mut old) as usize;
    // SAFETY: the kernel fills in one structure of the asserted size.
    let _kill_and_stop =
        unsafe { raw::syscall(libc::SYS_rt_sigaction, [signal, 0, pointer, SIGNAL_SET, 0, 0]) };
    old
}

/// Sets the action of a signal.
pub(crate) fn set_action(signal: usize, action: &Action) {
    let pointer = core::ptr::from_ref(action) as usize;
    // SAFETY: the action was this program's own (captured before or in its branch), so its handler is its code; or it
    // has none.
    let _kill_and_stop =
        unsafe { raw::syscall(libc::SYS_rt_sigaction, [signal, pointer, 0, SIGNAL_SET, 0, 0]) };
}

/// Reads interval timer `which` (0 real, 1 virtual, 2 profiling).
pub(crate) fn timer(which: usize) -> IntervalTimer {
    let mut value = IntervalTimer::default();
    let pointer = (&raw mut value) as usize;
    // SAFETY: the kernel fills in one structure.
    let _cannot_fail = unsafe { raw::syscall(libc::SYS_getitimer, [which, pointer, 0, 0, 0, 0]) };
    value
}

/// Sets interval timer `which`.
pub(crate) fn set_timer(which: usize, value: &IntervalTimer) {
    let pointer = core::ptr::from_ref(value) as usize;
    // SAFETY: the kernel reads one structure.
    let _cannot_fail = unsafe { raw::syscall(libc::SYS_setitimer, [which, pointer, 0, 0, 0, 0]) };
}

/// Stops interval timer `which` and returns what was left: it has either gone off by then or never will.
fn stop_timer(which: usize) -> IntervalTimer {
    let (none, mut value) = (IntervalTimer::default(), IntervalTimer::default());
    let (new, old) = ((&raw const none) as usize, (&raw mut value) as usize);
    // SAFETY: the kernel reads one structure and fills in the other.
    let _cannot_fail = unsafe { raw::syscall(libc::SYS_setitimer, [which, new, old, 0, 0, 0]) };
    value
}

fn sigaltstack(new: Option<&AlternateStack>) -> Result<AlternateStack, Errno> {
    let mut old = AlternateStack::default();
    let new = new.map_or(0, |stack| core::ptr::from_ref(stack) as usize);
    let pointer = (&raw mut old) as usize;
    // SAFETY: both structures are valid; the stack itself was set by the program.
    unsafe { raw::syscall(libc::SYS_sigaltstack, [new, pointer, 0, 0, 0, 0]) }?;
    Ok(old)
}

impl ThreadState {
    /// Captures the calling process; the mask is passed in, since it is blocked while capturing. Its timers stand still from
    /// then on: one that went off meanwhile would be captured and arrive as a pending signal as well.
    pub(crate) fn capture_into(&mut self, mask: u64) {
        self.mask = mask;
        for (index, slot) in self.actions.iter_mut().enumerate() {
            *slot = action(index + 1);
        }
        self.alternate_stack = sigaltstack(None).unwrap_or_default();
        for (which, slot) in self.timers.iter_mut().enumerate() {
            *slot = stop_timer(which);
        }
    }

    /// Makes the calling process's state this one, the mask excepted.
    pub(crate) fn apply(&self) {
        for (index, wanted) in self.actions.iter().enumerate() {
            if action(index + 1) != *wanted {
                set_action(index + 1, wanted);
            }
        }
        if sigaltstack(None).ok() != Some(self.alternate_stack) {
            let _stays_as_it_was = sigaltstack(Some(&self.alternate_stack));
        }
        for (which, wanted) in self.timers.iter().enumerate() {
            if timer(which) != *wanted {
                set_timer(which, wanted);
            }
        }
    }
}

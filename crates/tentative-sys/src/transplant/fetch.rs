//! Fetching the branch's memory: what to copy is collected first, and then copied in pieces that stay in the caches
//! between being made and being filled, by two tasks when it is much.
//!
//! This is the origin on its private stack, and a helper task that shares its memory: control area and raw system
//! calls only. Nothing is written but memory that staging made.

use core::ops::Range;

use rustix::io::Errno;

use super::{
    control::{Control, Step},
    stage::{Failure, failed},
    wait,
};
use crate::{arch, crash, memory::PAGE, process::descriptors::proc_path, raw};

/// A stretch of the branch's memory and where its copy goes.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Job {
    local: usize,
    remote: usize,
    length: usize,
}

/// Longest piece: what is populated at once is in the second-level cache still when it is filled.
const PIECE: usize = 128 * PAGE;
/// Stretches of this length are populated at once: one walk is cheaper than a fault for every page.
const POPULATE_FROM: usize = 16 * PAGE;
/// From this many bytes on a second task is worth its start.
const SHARE_FROM: usize = 8 << 20;
const MADV_POPULATE_WRITE: i32 = 23;

/// Adds a stretch to what is to be copied.
pub(super) fn push(control: &mut Control, local: usize, remote: usize, length: usize) -> Result<(), Errno> {
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(PIECE);
        let slot = control.origin.job_count;
        *control.jobs.get_mut(slot).ok_or(Errno::NOMEM)? =
            Job { local: local + done, remote: remote + done, length: piece };
        control.origin.job_count = slot + 1;
        done += piece;
    }
    Ok(())
}

/// Copies what was collected.
pub(super) fn all(control: &mut Control) -> Result<(), Failure> {
    let count = control.origin.job_count;
    control.origin.job_count = 0;
    let Some(first) = control.jobs[..count].first() else { return Ok(()) };
    let refuse = failed(Step::Copy, first.remote);
    let pid = control.origin.branch;
    let total: usize = control.jobs[..count].iter().map(|job| job.length).sum();
    if total < SHARE_FROM {
        return copy(pid, &control.jobs[..count]).map_err(refuse);
    }
    let mut middle = 0;
    let mut bytes = 0;
    while bytes < total / 2 {
        bytes += control.jobs[middle].length;
        middle += 1;
    }
    let mut half = Half { pid, jobs: &control.jobs[middle..count], outcome: HALF_UNDONE };
    // One past the end of the array is inside the area.
    let top = (&raw mut control.helper_stack).wrapping_add(1).cast::<u8>();
    let flags = (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES) as usize;
    // SAFETY: the task has a stack of its own that nothing else uses while staging, and touches its half alone, which
    // lives until the task is reaped below.
    let helper = unsafe { arch::clone_on_stack(flags, top, copy_half, (&raw mut half).cast()) };
    let mine = copy(pid, &control.jobs[..middle]);
    let theirs = if helper < 0 {
        copy(pid, &control.jobs[middle..count])
    } else {
        wait::reap(helper as i32);
        // SAFETY: the task wrote it through shared memory before it ended.
        match unsafe { core::ptr::read_volatile(&raw const half.outcome) } {
            0 => Ok(()),
            // It was killed before it was done.
            HALF_UNDONE => copy(pid, &control.jobs[middle..count]),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    };
    mine.and(theirs).map_err(refuse)
}

/// What the second task copies, and what came of it: an error number, or 0.
struct Half<'a> {
    pid: i32,
    jobs: &'a [Job],
    outcome: i32,
}

const HALF_UNDONE: i32 = -1;

/// The second task: it shares memory and descriptors with the origin, which waits for it.
unsafe extern "C" fn copy_half(argument: *mut u8) -> ! {
    // SAFETY: the origin passes its own value, which it does not touch until this task has ended.
    let half = unsafe { &mut *argument.cast::<Half<'_>>() };
    crash::point("stage.second-task");
    let outcome = copy(half.pid, half.jobs).err().map_or(0, Errno::raw_os_error);
    // SAFETY: the origin reads it when this task has ended.
    unsafe { core::ptr::write_volatile(&raw mut half.outcome, outcome) };
    raw::exit_group(0)
}

fn copy(pid: i32, jobs: &[Job]) -> Result<(), Errno> {
    let mut fetch = Fetch::new(pid);
    let mut populated = 0..0;
    for (index, job) in jobs.iter().enumerate() {
        if !populated.contains(&job.local) {
            populated = populate(&jobs[index..]);
        }
        fetch.add(job.local, job.remote, job.length)?;
        if fetch.bytes >= PIECE {
            fetch.flush()?;
        }
    }
    fetch.flush()
}

/// Populates what lies side by side from the first job on, up to the length of a piece or so; returns what that is.
fn populate(jobs: &[Job]) -> Range<usize> {
    let start = jobs[0].local;
    let mut end = start;
    for job in jobs {
        if job.local != end || end - start >= PIECE {
            break;
        }
        end += job.length;
    }
    if end - start >= POPULATE_FROM {
        // SAFETY: memory that staging made and nobody uses yet; its content stays.
        let _faults_do_it_before_linux_5_14 =
            unsafe { raw::madvise(start, end - start, MADV_POPULATE_WRITE) };
    }
    start..end
}

/// `process_vm_readv` of one range; returns how many bytes came.
pub(crate) fn read_memory(pid: i32, local: usize, remote: usize, length: usize) -> raw::Answer {
    transfer(libc::SYS_process_vm_readv, pid, &[[local, length]], &[[remote, length]])
}

/// `process_vm_writev` of one range; returns how many bytes went.
pub(crate) fn write_memory(pid: i32, local: usize, remote: usize, length: usize) -> raw::Answer {
    transfer(libc::SYS_process_vm_writev, pid, &[[local, length]], &[[remote, length]])
}

fn transfer(call: i64, pid: i32, local: &[[usize; 2]], remote: &[[usize; 2]]) -> raw::Answer {
    let arguments =
        [pid as usize, local.as_ptr() as usize, local.len(), remote.as_ptr() as usize, remote.len(), 0];
    // SAFETY: the local ranges are memory of the control area or mappings that staging made, of these lengths.
    unsafe { raw::syscall(call, arguments) }
}

/// Copies of the branch's memory, many ranges a call.
struct Fetch {
    pid: i32,
    local: [[usize; 2]; 256],
    remote: [[usize; 2]; 256],
    count: usize,
    bytes: usize,
}

impl Fetch {
    fn new(pid: i32) -> Fetch {
        Fetch { pid, local: [[0; 2]; 256], remote: [[0; 2]; 256], count: 0, bytes: 0 }
    }

    fn add(&mut self, local: usize, remote: usize, length: usize) -> Result<(), Errno> {
        if self.count == self.local.len() {
            self.flush()?;
        }
        self.local[self.count] = [local, length];
        self.remote[self.count] = [remote, length];
        self.count += 1;
        self.bytes += length;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        let (count, bytes) = (self.count, self.bytes);
        (self.count, self.bytes) = (0, 0);
        if count == 0 {
            return Ok(());
        }
        let call = libc::SYS_process_vm_readv;
        if transfer(call, self.pid, &self.local[..count], &self.remote[..count]) == Ok(bytes) {
            return Ok(());
        }
        // Something in there is not readable that way (no permission to read, guard regions): one at a time.
        for index in 0..count {
            let ([local, length], [remote, _]) = (self.local[index], self.remote[index]);
            if read_memory(self.pid, local, remote, length) != Ok(length) {
                read_through_file(self.pid, local, remote, length)?;
            }
        }
        Ok(())
    }
}

/// Reads memory that its protection hides, through `/proc/PID/mem`.
fn read_through_file(pid: i32, local: usize, remote: usize, length: usize) -> Result<(), Errno> {
    let mut path = [0; 64];
    let fd = raw::open(proc_path(&mut path, b"/proc/", pid, b"/mem"), libc::O_RDONLY | libc::O_CLOEXEC)?;
    let mut done = 0;
    while done < length {
        let arguments = [fd, local + done, length - done, remote + done, 0, 0];
        // SAFETY: the local range was made by staging, of this length.
        match unsafe { raw::syscall(libc::SYS_pread64, arguments) } {
            Ok(got) if got > 0 => done += got,
            answer => {
                let _own = raw::close(fd);
                return Err(answer.err().unwrap_or(Errno::IO));
            }
        }
    }
    raw::close(fd).map(drop)
}

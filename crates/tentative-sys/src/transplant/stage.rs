//! Staging: everything that a commit needs is fetched and prepared, and nothing that exists is changed.
//!
//! This is the origin on its private stack: control area and raw system calls only. New mappings are made at their
//! addresses, which are free; changed pages are copied to scratch memory at an address free in both processes.
//! `abandon` takes all of it back.

use rustix::io::Errno;

use super::{
    begin::entry_of,
    control::{Area, Control, Counts, ENTRIES, MAX_VMAS, Refusal, Step},
    fetch::{self, read_memory},
};
use crate::{
    crash,
    memory::{
        PAGE,
        maps::{self, Kind, Table, Vma},
        pages::{Act, Entry, Means, compare},
    },
    process::descriptors::proc_path,
    raw,
};

/// A stretch of changed pages: where it belongs, and where its content waits.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) address: usize,
    pub(crate) length: usize,
    pub(crate) scratch: usize,
    pub(crate) protection: i32,
}

/// One change of the list of mappings.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Edit {
    pub(crate) kind: EditKind,
    pub(crate) start: usize,
    pub(crate) length: usize,
    pub(crate) scratch: usize,
    pub(crate) protection: i32,
}

/// What an edit does.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EditKind {
    /// Nothing (a mapping that only looked gone).
    Nothing,
    /// Made while staging, at its place.
    Made,
    /// Made while staging at `scratch`, to be moved onto `start`.
    Move,
    Unmap,
    Protect,
    Drop,
    Guard,
    Unguard,
}

/// A range of addresses over which neither process's mapping changes.
#[derive(Clone, Copy)]
struct Segment {
    start: usize,
    end: usize,
    own: Option<Vma>,
    branch: Option<Vma>,
}

/// Walks two sorted lists of mappings segment by segment.
struct Walk {
    own: usize,
    branch: usize,
    at: usize,
}

impl Walk {
    fn next(&mut self, own: &[Vma], branch: &[Vma]) -> Option<Segment> {
        while own.get(self.own).is_some_and(|vma| vma.end <= self.at) {
            self.own += 1;
        }
        while branch.get(self.branch).is_some_and(|vma| vma.end <= self.at) {
            self.branch += 1;
        }
        let (own, branch) = (own.get(self.own), branch.get(self.branch));
        let nearest = own.iter().chain(branch.iter()).map(|vma| vma.start.max(self.at)).min()?;
        let covering = |vma: Option<&Vma>| vma.copied().filter(|vma| vma.start <= nearest);
        let edge = |vma: &&Vma| if vma.start <= nearest { vma.end } else { vma.start };
        let end = own.iter().chain(branch.iter()).map(edge).min()?;
        self.at = end;
        Some(Segment { start: nearest, end, own: covering(own), branch: covering(branch) })
    }
}

/// A step of staging that failed.
pub(super) type Failure = Refusal;

pub(super) fn failed(step: Step, subject: usize) -> impl Fn(Errno) -> Failure {
    move |errno| Refusal { step, errno: errno.raw_os_error(), subject }
}

/// Reads both lists of mappings and opens both page maps.
fn look(control: &mut Control) -> Result<(), Failure> {
    let refuse = failed(Step::ReadMaps, 0);
    control.origin.window = [0; 2];
    let mut path = [0; 64];
    let mut table = Table { vmas: &mut control.own_vmas, text: &mut control.text };
    control.origin.own_count = maps::read(b"/proc/self/maps\0", &mut table).map_err(&refuse)?;
    let mut table = Table { vmas: &mut control.branch_vmas, text: &mut control.text };
    let branch_maps = proc_path(&mut path, b"/proc/", control.origin.branch, b"/maps");
    control.origin.branch_count = maps::read(branch_maps, &mut table).map_err(&refuse)?;
    let start = Area::start(control);
    for (vmas, count) in [
        (&mut control.own_vmas, &mut control.origin.own_count),
        (&mut control.branch_vmas, &mut control.origin.branch_count),
    ] {
        if let Some(at) = vmas[..*count].iter().position(|vma| vma.start == start) {
            vmas.copy_within(at + 1..*count, at);
            *count -= 1;
        }
    }
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    if control.origin.own_pagemap < 0 {
        control.origin.own_pagemap = raw::open(b"/proc/self/pagemap\0", flags).map_err(&refuse)? as i32;
        let pagemap = proc_path(&mut path, b"/proc/", control.origin.branch, b"/pagemap");
        control.origin.branch_pagemap = raw::open(pagemap, flags).map_err(&refuse)? as i32;
    }
    Ok(())
}

fn means(control: &Control) -> Means {
    if !control.plan.use_marks {
        Means::Frames
    } else if control.origin.ran {
        Means::Nothing
    } else {
        Means::Marks
    }
}

/// Mappings that lie no farther apart than this are read together.
const NEAR: usize = 64 * PAGE;

/// Sees to it that the entries of both processes are there for the pages at an address. Returns where in the tables
/// they begin and how many of the wanted pages they hold, at least one.
///
/// One read takes in the mappings behind it as well: most are small, and each read has its price.
fn read_entries(control: &mut Control, start: usize, end: usize) -> Result<(usize, usize), Failure> {
    let window = control.origin.window;
    if start < window[0] || start >= window[1] {
        let to = window_end(control, start, end);
        control.origin.window = [0; 2];
        let refuse = failed(Step::ReadMaps, start);
        let (own, branch) = (control.origin.own_pagemap as usize, control.origin.branch_pagemap as usize);
        let pages = (to - start) / PAGE;
        for (fd, entries) in [(own, &mut control.entries_own), (branch, &mut control.entries_branch)] {
            let got = raw::pread_words(fd, &mut entries[..pages], start / PAGE * 8).map_err(&refuse)?;
            if got != pages * 8 {
                return Err(refuse(Errno::IO));
            }
        }
        control.origin.window = [start, to];
    }
    let window = control.origin.window;
    Ok(((start - window[0]) / PAGE, (end.min(window[1]) - start) / PAGE))
}

/// Where a read of entries that begins at an address ends: behind the mappings that are near.
fn window_end(control: &Control, start: usize, end: usize) -> usize {
    let limit = start + ENTRIES * PAGE;
    let vmas = &control.branch_vmas[..control.origin.branch_count];
    let first = vmas.partition_point(|vma| vma.end <= start);
    let mut to = end.min(limit);
    for vma in vmas[first..].iter().filter(|vma| !vma.shared && vma.kind != Kind::Kernel) {
        if to >= limit || vma.start > to + NEAR {
            break;
        }
        to = to.max(vma.end.min(limit));
    }
    to
}

/// Calls `each` with every stretch of equal acts in a range that both processes map alike.
fn each_act(
    control: &mut Control,
    (start, end): (usize, usize),
    mut each: impl FnMut(&mut Control, Act, usize, usize) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let means = means(control);
    let mut at = start;
    while at < end {
        let (offset, pages) = read_entries(control, at, end)?;
        let act_of = |control: &Control, page: usize| {
            let (own, branch) = (control.entries_own[offset + page], control.entries_branch[offset + page]);
            compare(Entry(own), Entry(branch), means)
        };
        let mut page = 0;
        while page < pages {
            let act = act_of(control, page);
            let first = page;
            page += 1;
            while page < pages && act_of(control, page) == act {
                page += 1;
            }
            if act != Act::Keep {
                each(control, act, at + first * PAGE, (page - first) * PAGE)?;
            }
        }
        at += pages * PAGE;
    }
    Ok(())
}

/// Calls `each` with every stretch of the branch's private pages in a range that only the branch maps so.
fn each_new(
    control: &mut Control,
    (start, end): (usize, usize),
    mut each: impl FnMut(&mut Control, usize, usize) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut at = start;
    while at < end {
        let (offset, pages) = read_entries(control, at, end)?;
        let wanted = |control: &Control, page: usize| Entry(control.entries_branch[offset + page]).private();
        let mut page = 0;
        while page < pages {
            let first = page;
            page += 1;
            if !wanted(control, first) {
                continue;
            }
            while page < pages && wanted(control, page) {
                page += 1;
            }
            each(control, at + first * PAGE, (page - first) * PAGE)?;
        }
        at += pages * PAGE;
    }
    Ok(())
}

/// Compares both memories and leaves the counts in the reply; changes nothing.
pub(super) fn measure(control: &mut Control) {
    control.origin.reply.counts = Counts::default();
    control.origin.reply.refusal = Refusal::default();
    if let Err(refusal) = try_measure(control) {
        control.origin.reply.refusal = refusal;
    }
}

fn try_measure(control: &mut Control) -> Result<(), Failure> {
    look(control)?;
    let mut walk = Walk { own: 0, branch: 0, at: 0 };
    while let Some(segment) = next_segment(control, &mut walk) {
        let range = (segment.start, segment.end);
        match (segment.own, segment.branch) {
            (Some(own), Some(branch))
                if own.same_backing(&branch) && (own.shared || own.kind == Kind::Kernel) => {}
            (Some(own), Some(branch)) if own.same_backing(&branch) => {
                each_act(control, range, |control, act, _, length| {
                    count_act(&mut control.origin.reply.counts, &branch, act, length);
                    Ok(())
                })?;
            }
            (_, Some(branch)) if branch.kind != Kind::Kernel => {
                control.origin.reply.counts.mappings_new += 1;
                each_new(control, range, |control, _, length| {
                    control.origin.reply.counts.pages_new += (length / PAGE) as u64;
                    Ok(())
                })?;
            }
            (Some(_), None) => control.origin.reply.counts.mappings_gone += 1,
            _ => {}
        }
    }
    Ok(())
}

fn count_act(counts: &mut Counts, vma: &Vma, act: Act, length: usize) {
    let pages = (length / PAGE) as u64;
    match act {
        Act::Copy | Act::Unguard => counts.pages_changed += pages,
        Act::Drop | Act::Guard => counts.pages_dropped += pages,
        Act::Keep => return,
    }
    *match vma.kind {
        Kind::Heap => &mut counts.heap,
        Kind::Stack => &mut counts.stack,
        Kind::File => &mut counts.file,
        Kind::Anonymous | Kind::Kernel => &mut counts.anonymous,
    } += pages;
}

fn next_segment(control: &Control, walk: &mut Walk) -> Option<Segment> {
    let (own, branch) = (control.origin.own_count, control.origin.branch_count);
    walk.next(&control.own_vmas[..own], &control.branch_vmas[..branch])
}

/// Stages the memory.
pub(super) fn memory(control: &mut Control) -> Result<(), Failure> {
    control.origin.reply.counts = Counts::default();
    (control.origin.run_count, control.origin.edit_count, control.origin.job_count) = (0, 0, 0);
    (control.origin.scratch_from, control.origin.scratch_to) = (0, 0);
    look(control)?;
    crash::point("stage.looked");
    grow_break(control)?;
    let mut walk = Walk { own: 0, branch: 0, at: 0 };
    while let Some(segment) = next_segment(control, &mut walk) {
        stage_segment(control, &segment)?;
    }
    keep_unforked(control)?;
    check_budget(control)?;
    crash::point("stage.mapped");
    place_runs(control)?;
    fetch::all(control)?;
    crash::point("stage.fetched");
    Ok(())
}

fn stage_segment(control: &mut Control, segment: &Segment) -> Result<(), Failure> {
    match (segment.own, segment.branch) {
        (Some(own), _) if own.kind == Kind::Kernel => Ok(()),
        (_, Some(branch)) if branch.kind == Kind::Kernel => Ok(()),
        (Some(own), Some(branch)) if own.same_backing(&branch) => stage_same(control, segment, &own, &branch),
        (own, Some(branch)) => stage_new(control, segment, &branch, own.is_some()),
        (Some(own), None) => stage_gone(control, segment, &own),
        (None, None) => Ok(()),
    }
}

fn stage_same(control: &mut Control, segment: &Segment, own: &Vma, branch: &Vma) -> Result<(), Failure> {
    let range = (segment.start, segment.end);
    if !own.shared {
        each_act(control, range, |control, act, start, length| {
            count_act(&mut control.origin.reply.counts, branch, act, length);
            match act {
                Act::Copy => push_run(control, start, length, own.protection),
                Act::Drop => push_edit(control, EditKind::Drop, start, length, 0, 0),
                Act::Guard => push_edit(control, EditKind::Guard, start, length, 0, 0),
                Act::Unguard => {
                    push_edit(control, EditKind::Unguard, start, length, 0, 0)?;
                    push_run(control, start, length, own.protection)
                }
                Act::Keep => Ok(()),
            }
        })?;
    }
    if own.protection != branch.protection {
        push_edit(control, EditKind::Protect, range.0, range.1 - range.0, 0, branch.protection)?;
    }
    Ok(())
}

fn stage_gone(control: &mut Control, segment: &Segment, own: &Vma) -> Result<(), Failure> {
    control.origin.reply.counts.mappings_gone += 1;
    if own.kind == Kind::Heap && segment.start >= control.origin.request.program_break {
        // The program break takes it away.
        return Ok(());
    }
    if own.kind == Kind::Stack {
        // The branch's stack is not as deep; the deeper part stays mapped, as a stack's does.
        return Ok(());
    }
    push_edit(control, EditKind::Unmap, segment.start, segment.end - segment.start, 0, 0)
}

/// Makes a mapping that only the branch has, and fills it.
fn stage_new(control: &mut Control, segment: &Segment, branch: &Vma, occupied: bool) -> Result<(), Failure> {
    control.origin.reply.counts.mappings_new += 1;
    let length = segment.end - segment.start;
    let place = if occupied { find_gap(control, length)? } else { segment.start };
    let whole = match branch.kind {
        Kind::Heap if !occupied && segment.start >= control.origin.own_break => false,
        Kind::Stack if !occupied => {
            touch_stack(segment.start);
            false
        }
        _ => {
            let whole = make_mapping(control, segment, branch, place)?;
            let kind = if occupied { EditKind::Move } else { EditKind::Made };
            push_edit(control, kind, segment.start, length, place, branch.protection)?;
            whole
        }
    };
    fill(control, segment, branch, place, whole)?;
    if branch.protection != libc::PROT_READ | libc::PROT_WRITE && branch.kind != Kind::Stack {
        fetch::all(control)?;
        // SAFETY: the mapping was just made and nobody uses it yet.
        unsafe { raw::mprotect(place, length, branch.protection) }
            .map_err(failed(Step::Map, segment.start))?;
    }
    Ok(())
}

/// Grows the main stack down to an address, as a deep call would.
fn touch_stack(address: usize) {
    let pointer = core::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the address lies in the branch's stack, of which the origin's is a copy with the same limit; the
    // kernel grows it on the first touch.
    let _zero = unsafe { core::ptr::read_volatile(pointer) };
}

/// Fetches the content of a new mapping: its private pages, or everything.
fn fill(
    control: &mut Control,
    segment: &Segment,
    branch: &Vma,
    place: usize,
    whole: bool,
) -> Result<(), Failure> {
    let moved = place.wrapping_sub(segment.start);
    if whole {
        let pid = control.origin.branch;
        let mut at = segment.start;
        while at < segment.end {
            // Page by page: what lies behind the end of a file cannot be read and stays zero.
            let _beyond_the_file = read_memory(pid, at.wrapping_add(moved), at, PAGE);
            at += PAGE;
        }
        return Ok(());
    }
    if branch.shared {
        return Ok(());
    }
    each_new(control, (segment.start, segment.end), |control, start, length| {
        control.origin.reply.counts.pages_new += (length / PAGE) as u64;
        fetch::push(control, start.wrapping_add(moved), start, length).map_err(failed(Step::Budget, start))
    })
}

/// Maps memory for a segment at `place`, readable and writable; says whether its whole content must be copied.
fn make_mapping(
    control: &mut Control,
    segment: &Segment,
    branch: &Vma,
    place: usize,
) -> Result<bool, Failure> {
    let refuse = failed(Step::Map, segment.start);
    let length = segment.end - segment.start;
    let both = libc::PROT_READ | libc::PROT_WRITE;
    if branch.kind == Kind::File {
        let offset = branch.offset as usize + (segment.start - branch.start);
        if let Ok(fd) = open_file(control, branch) {
            let sharing = if branch.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
            let protection = if branch.shared { branch.protection } else { both };
            let flags = sharing | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: the place is free, MAP_FIXED_NOREPLACE insists on it.
            let mapped = unsafe { raw::mmap(place, length, protection, flags, fd as i32, offset) };
            let _own = raw::close(fd);
            return mapped.map(|_| false).map_err(refuse);
        }
        let mut path = [0u8; 4096];
        let anonymous = path_of(control, branch, &mut path).is_ok_and(|path| path.starts_with(b"/dev/zero"));
        if branch.shared && !anonymous {
            return Err(Refusal { step: Step::SharedMapping, errno: 0, subject: segment.start });
        }
    }
    let sharing = if branch.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let flags = sharing | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: as above.
    unsafe { raw::mmap(place, length, both, flags, -1, 0) }.map_err(refuse)?;
    Ok(branch.kind == Kind::File)
}

fn path_of<'a>(control: &Control, branch: &Vma, text: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let mut path = [0; 64];
    let maps = proc_path(&mut path, b"/proc/", control.origin.branch, b"/maps");
    let length = maps::read_path(maps, branch.start, text)?;
    text.get(..length).ok_or(Errno::NAMETOOLONG)
}

/// Opens the file of a mapping by its path, if that still names the same file.
fn open_file(control: &mut Control, branch: &Vma) -> Result<usize, Errno> {
    let mut terminated = [0u8; 4097];
    let length = path_of(control, branch, &mut terminated[..4096])?.len();
    terminated[length] = 0;
    let wanted = if branch.shared && branch.protection & libc::PROT_WRITE != 0 {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    if let Some(entry) = entry_of(control) {
        return super::apply::open_committed(control, entry, &terminated[..length], wanted | libc::O_CLOEXEC);
    }
    let fd = raw::open(&terminated[..=length], wanted | libc::O_CLOEXEC | libc::O_NOCTTY)?;
    let (_, inode, _) = crate::process::descriptors::identity(fd)?;
    if inode == branch.inode {
        return Ok(fd);
    }
    raw::close(fd)?;
    Err(Errno::STALE)
}

/// An address range that is free in both processes and not yet used by staging.
fn find_gap(control: &mut Control, length: usize) -> Result<usize, Failure> {
    const FLOOR: usize = 0x1000_0000_0000;
    let mut at = if control.origin.scratch_to == 0 { FLOOR } else { control.origin.scratch_to };
    for _ in 0..2 {
        for (vmas, count) in [
            (&control.own_vmas, control.origin.own_count),
            (&control.branch_vmas, control.origin.branch_count),
        ] {
            for vma in &vmas[..count] {
                if vma.start < at + length + PAGE && vma.end > at {
                    at = vma.end + PAGE;
                }
            }
        }
    }
    control.origin.scratch_to = at + length + PAGE;
    Ok(at)
}

fn push_edit(
    control: &mut Control,
    kind: EditKind,
    start: usize,
    length: usize,
    scratch: usize,
    protection: i32,
) -> Result<(), Failure> {
    let slot = control.edits.get_mut(control.origin.edit_count);
    *slot.ok_or_else(|| failed(Step::Budget, start)(Errno::NOMEM))? =
        Edit { kind, start, length, scratch, protection };
    control.origin.edit_count += 1;
    Ok(())
}

fn push_run(control: &mut Control, address: usize, length: usize, protection: i32) -> Result<(), Failure> {
    let slot = control.runs.get_mut(control.origin.run_count);
    *slot.ok_or_else(|| failed(Step::Budget, address)(Errno::NOMEM))? =
        Run { address, length, scratch: 0, protection };
    control.origin.run_count += 1;
    Ok(())
}

/// Moves the program break up to the branch's; the pages there are nobody's yet.
fn grow_break(control: &mut Control) -> Result<(), Failure> {
    let wanted = control.origin.request.program_break;
    let own = raw::brk(0).unwrap_or(0);
    control.origin.old_break = own;
    control.origin.own_break = own.next_multiple_of(PAGE);
    if wanted > own && raw::brk(wanted) != Ok(wanted) {
        return Err(failed(Step::Break, wanted)(Errno::NOMEM));
    }
    Ok(())
}

/// Makes one scratch mapping for the changed pages.
fn place_runs(control: &mut Control) -> Result<(), Failure> {
    let count = control.origin.run_count;
    let total: usize = control.runs[..count].iter().map(|run| run.length).sum();
    if total == 0 {
        return Ok(());
    }
    let scratch = find_gap(control, total)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the place is free in both processes, MAP_FIXED_NOREPLACE insists on it.
    unsafe { raw::mmap(scratch, total, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) }
        .map_err(failed(Step::Map, scratch))?;
    push_edit(control, EditKind::Nothing, scratch, total, scratch, 0)?;
    control.origin.scratch_from = scratch;
    let mut at = scratch;
    for index in 0..count {
        let run = &mut control.runs[index];
        run.scratch = at;
        let (address, length) = (run.address, run.length);
        fetch::push(control, at, address, length).map_err(failed(Step::Budget, address))?;
        at += length;
    }
    Ok(())
}

/// Refuses when the kernel's limit of mappings could be met while applying, when it would be too late.
fn check_budget(control: &Control) -> Result<(), Failure> {
    let read_only = |run: &Run| run.protection & libc::PROT_WRITE == 0;
    let splits = control.runs[..control.origin.run_count].iter().filter(|run| read_only(run)).count();
    let wanted = control.origin.own_count + 2 * (control.origin.edit_count + splits) + 64;
    let limit = max_map_count().unwrap_or(MAX_VMAS - 6);
    if wanted > limit { Err(failed(Step::Budget, wanted)(Errno::NOMEM)) } else { Ok(()) }
}

fn max_map_count() -> Result<usize, Errno> {
    let fd = raw::open(b"/proc/sys/vm/max_map_count\0", libc::O_RDONLY | libc::O_CLOEXEC)?;
    let mut text = [0u8; 32];
    let got = raw::read(fd, &mut text);
    raw::close(fd)?;
    let digits = text[..got?].iter().take_while(|byte| byte.is_ascii_digit());
    Ok(digits.fold(0usize, |sum, byte| sum * 10 + usize::from(byte - b'0')))
}

/// Memory that the origin keeps out of its clones (MADV_DONTFORK) is absent in the branch and stays here.
fn keep_unforked(control: &mut Control) -> Result<(), Failure> {
    let count = control.origin.edit_count;
    if !control.edits[..count].iter().any(|edit| edit.kind == EditKind::Unmap) {
        return Ok(());
    }
    let refuse = failed(Step::ReadMaps, 0);
    let fd = raw::open(b"/proc/self/smaps\0", libc::O_RDONLY | libc::O_CLOEXEC).map_err(&refuse)?;
    let (mut held, mut current) = (0, (0, 0));
    loop {
        let got = raw::read(fd, &mut control.text[held..]).map_err(&refuse)?;
        if got == 0 {
            break;
        }
        held += got;
        let mut done = 0;
        while let Some(length) = control.text[done..held].iter().position(|byte| *byte == b'\n') {
            let line = &control.text[done..done + length];
            if let Some(range) = range_of(line) {
                current = range;
            } else if line.starts_with(b"VmFlags:") && line.windows(4).any(|window| window == b" dc ") {
                for edit in &mut control.edits[..count] {
                    if edit.kind == EditKind::Unmap && edit.start >= current.0 && edit.start < current.1 {
                        edit.kind = EditKind::Nothing;
                        edit.length = 0;
                    }
                }
            }
            done += length + 1;
        }
        control.text.copy_within(done..held, 0);
        held -= done;
    }
    raw::close(fd).map(drop).map_err(&refuse)
}

/// The addresses at the head of a mapping's paragraph in `smaps`.
fn range_of(line: &[u8]) -> Option<(usize, usize)> {
    let dash = line.iter().position(|byte| *byte == b'-').filter(|at| *at >= 8)?;
    let space = line.iter().position(|byte| *byte == b' ')?;
    let hex = |digits: &[u8]| {
        digits.iter().try_fold(0usize, |sum, byte| Some(sum * 16 + (*byte as char).to_digit(16)? as usize))
    };
    Some((hex(&line[..dash])?, hex(line.get(dash + 1..space)?)?))
}

/// Takes staging back: nothing is left of it.
pub(super) fn abandon(control: &mut Control) {
    for edit in &control.edits[..control.origin.edit_count] {
        let at = match edit.kind {
            EditKind::Made => edit.start,
            EditKind::Move => edit.scratch,
            EditKind::Nothing if edit.scratch != 0 => edit.scratch,
            _ => continue,
        };
        // SAFETY: staging made this mapping, and nobody has seen it.
        let _own = unsafe { raw::munmap(at, edit.length) };
    }
    if raw::brk(0) != Ok(control.origin.old_break) && control.origin.old_break != 0 {
        let _shrinks = raw::brk(control.origin.old_break);
    }
    (control.origin.run_count, control.origin.edit_count) = (0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vma(start: usize, end: usize) -> Vma {
        Vma { start, end, ..Vma::default() }
    }

    #[test]
    fn segments_cover_both_lists_once() {
        let own = [vma(0x1000, 0x3000), vma(0x5000, 0x6000)];
        let branch = [vma(0x2000, 0x4000), vma(0x5000, 0x6000), vma(0x8000, 0x9000)];
        let mut walk = Walk { own: 0, branch: 0, at: 0 };
        let mut seen = Vec::new();
        while let Some(segment) = walk.next(&own, &branch) {
            seen.push((segment.start, segment.end, segment.own.is_some(), segment.branch.is_some()));
        }
        assert_eq!(
            seen,
            [
                (0x1000, 0x2000, true, false),
                (0x2000, 0x3000, true, true),
                (0x3000, 0x4000, false, true),
                (0x5000, 0x6000, true, true),
                (0x8000, 0x9000, false, true),
            ]
        );
    }

    #[test]
    fn smaps_heads_are_told_from_fields() {
        assert_eq!(
            range_of(b"7f0000001000-7f0000002000 rw-p 00000000 00:00 0"),
            Some((0x7f00_0000_1000, 0x7f00_0000_2000))
        );
        assert_eq!(range_of(b"VmFlags: rd wr mr mw me dc ac"), None);
        assert_eq!(range_of(b"Private_Hugetlb:       0 kB"), None);
    }
}

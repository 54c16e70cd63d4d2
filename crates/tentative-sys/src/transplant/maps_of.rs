//! What the caller's own memory looks like before anything begins.

use rustix::io::Errno;

use crate::{
    memory::{PAGE, pages::Entry, query},
    raw,
};

/// A mapping that a clone does not keep apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) address: usize,
    /// Whether it is writable already, and not only by another mprotect(2).
    pub(super) writable: bool,
}

/// The first mapping that is shared and writable, or can be made so: a pathway that a clone does not close.
///
/// # Errors
/// What reading the mappings said.
pub(super) fn first_open() -> Result<Option<Open>, Errno> {
    let fd = raw::open(b"/proc/self/maps\0", libc::O_RDONLY | libc::O_CLOEXEC)?;
    let answer = first_asked_for(fd);
    let _nothing_to_do = raw::close(fd);
    match answer {
        // Before 6.11: read the list.
        Err(Errno::NOTTY) => first_in_list(),
        answer => answer,
    }
}

fn first_asked_for(maps: usize) -> Result<Option<Open>, Errno> {
    let mut address = 0;
    loop {
        let wanted = query::SHARED | query::COVERING_OR_NEXT;
        let mapping = match query::mapping(maps, address, wanted, &mut []) {
            Ok((mapping, _)) => mapping,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let (start, end) = (mapping.start as usize, mapping.end as usize);
        let bits = [
            (query::READABLE, libc::PROT_READ),
            (query::WRITABLE, libc::PROT_WRITE),
            (query::EXECUTABLE, libc::PROT_EXEC),
        ];
        let protection = bits.iter().filter(|(flag, _)| mapping.vma_flags & flag != 0);
        let protection = protection.fold(0, |sum, (_, bit)| sum | bit);
        if let Some(open) = judge(start, end, protection)? {
            return Ok(Some(open));
        }
        address = end;
    }
}

fn first_in_list() -> Result<Option<Open>, Errno> {
    let text = std::fs::read("/proc/self/maps")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    for line in text.split(|byte| *byte == b'\n') {
        let Some((start, end, protection)) = shared_in_line(line) else { continue };
        if let Some(open) = judge(start, end, protection)? {
            return Ok(Some(open));
        }
    }
    Ok(None)
}

/// Range and protection, if the line is about a shared mapping.
fn shared_in_line(line: &[u8]) -> Option<(usize, usize, i32)> {
    let line = str::from_utf8(line.get(..80.min(line.len()))?).ok()?;
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let flags = rest.as_bytes().get(..4)?;
    if flags[3] != b's' {
        return None;
    }
    let bits = [(b'r', libc::PROT_READ), (b'w', libc::PROT_WRITE), (b'x', libc::PROT_EXEC)];
    let protection = bits.iter().zip(flags).fold(
        0,
        |sum, ((letter, bit), flag)| {
            if letter == flag { sum | bit } else { sum }
        },
    );
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?, protection))
}

/// Whether a shared mapping is a pathway.
fn judge(start: usize, end: usize, protection: i32) -> Result<Option<Open>, Errno> {
    let writable = protection & libc::PROT_WRITE != 0;
    let open = writable || can_be_written(start, end, protection)?;
    Ok(open.then_some(Open { address: start, writable }))
}

/// Whether the kernel would let a mapping be made writable, found out by doing it for a moment: what may become of a
/// mapping is in no list that is cheap. The caller is the only thread, so nothing can use the moment.
fn can_be_written(start: usize, end: usize, protection: i32) -> Result<bool, Errno> {
    match protect(start, end, protection | libc::PROT_WRITE) {
        Ok(_) => {
            // What the kernel may have joined with a neighbour it parts again: no mapping is new, so no limit is passed.
            protect(start, end, protection)?;
            Ok(true)
        }
        // Where nothing may be writable and executable at once, it might be made writable alone.
        Err(Errno::ACCESS) if protection & libc::PROT_EXEC != 0 => Ok(denies_writable_code()),
        // For ever: the file is open for reading only, or the mapping is sealed.
        Err(Errno::ACCESS | Errno::PERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn protect(start: usize, end: usize, protection: i32) -> raw::Answer {
    // SAFETY: a whole mapping of the caller's, which nobody else uses meanwhile, and no right of it goes away but the one
    // that was just added.
    unsafe { raw::mprotect(start, end - start, protection) }
}

/// PR_SET_MDWE (6.3).
fn denies_writable_code() -> bool {
    let get_mdwe = 66; // PR_GET_MDWE
    // SAFETY: takes numbers only.
    unsafe { raw::syscall(libc::SYS_prctl, [get_mdwe, 0, 0, 0, 0, 0]) }.is_ok_and(|flags| flags != 0)
}

/// Whether this process sees frame numbers in page maps (CAP_SYS_ADMIN, since 4.2).
pub(super) fn frames_visible() -> bool {
    let here = 0u64;
    let page = (&raw const here) as usize / PAGE;
    let Ok(fd) = raw::open(b"/proc/self/pagemap\0", libc::O_RDONLY | libc::O_CLOEXEC) else { return false };
    let mut entry = [0u64];
    let got = raw::pread_words(fd, &mut entry, page * 8);
    let _nothing_to_do = raw::close(fd);
    got == Ok(8) && Entry(entry[0]).present() && Entry(entry[0]).frame() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_range_protection_and_sharing() {
        let line = b"7f00a000-7f00c000 r-xs 00000000 fe:00 12  /usr/lib/gconv-modules.cache";
        let both = libc::PROT_READ | libc::PROT_EXEC;
        assert_eq!(shared_in_line(line), Some((0x7f00_a000, 0x7f00_c000, both)));
        assert_eq!(shared_in_line(b"7f00a000-7f00c000 rw-p 00000000 00:00 0 "), None);
        assert_eq!(shared_in_line(b""), None);
    }

    #[test]
    fn what_may_become_writable_is_told_and_left_as_it_was() {
        let length = 2 * PAGE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe { raw::mmap(0, length, libc::PROT_NONE, flags, -1, 0) }.expect("map");
        assert_eq!(can_be_written(start, start + length, libc::PROT_NONE), Ok(true));
        let zeroes = raw::open(b"/dev/zero\0", libc::O_RDONLY | libc::O_CLOEXEC).expect("open");
        // SAFETY: the kernel writes into memory that nothing uses, or says that it may not.
        let read = unsafe { raw::syscall(libc::SYS_read, [zeroes, start, 8, 0, 0, 0]) };
        assert_eq!(read, Err(Errno::FAULT));
        // SAFETY: as above, a new mapping.
        let fixed = unsafe { raw::mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, zeroes as i32, 0) };
        let fixed = fixed.expect("map");
        let _own = raw::close(zeroes);
        assert_eq!(can_be_written(fixed, fixed + PAGE, libc::PROT_READ), Ok(false));
        for (start, length) in [(start, length), (fixed, PAGE)] {
            // SAFETY: the mappings made above, which nothing uses.
            unsafe { raw::munmap(start, length) }.expect("unmap");
        }
    }
}

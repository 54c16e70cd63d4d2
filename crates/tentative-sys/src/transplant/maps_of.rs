//! What the caller's own memory looks like before anything begins.

use rustix::io::Errno;

use crate::{
    memory::{PAGE, pages::Entry, query},
    raw,
};

/// The first mapping that is shared and writable: a pathway that a clone does not close.
///
/// # Errors
/// What reading the mappings said.
pub(super) fn first_writable_shared() -> Result<Option<usize>, Errno> {
    let fd = raw::open(b"/proc/self/maps\0", libc::O_RDONLY | libc::O_CLOEXEC)?;
    let flags = query::WRITABLE | query::SHARED | query::COVERING_OR_NEXT;
    let answer = query::mapping(fd, 0, flags, &mut []);
    let _nothing_to_do = raw::close(fd);
    match answer {
        Ok((mapping, _)) => Ok(Some(mapping.start as usize)),
        Err(Errno::NOENT) => Ok(None),
        // Before 6.11: read the list.
        Err(Errno::NOTTY) => first_in_list(),
        Err(errno) => Err(errno),
    }
}

fn first_in_list() -> Result<Option<usize>, Errno> {
    let text = std::fs::read("/proc/self/maps")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let address = text.split(|byte| *byte == b'\n').find_map(|line| {
        let line = str::from_utf8(line.get(..80.min(line.len()))?).ok()?;
        let (range, rest) = line.split_once(' ')?;
        let shared = rest.as_bytes().get(1) == Some(&b'w') && rest.as_bytes().get(3) == Some(&b's');
        shared.then(|| usize::from_str_radix(range.split('-').next()?, 16).ok()).flatten()
    });
    Ok(address)
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

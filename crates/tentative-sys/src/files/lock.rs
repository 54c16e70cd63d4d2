//! Record locks of others (`F_OFD_GETLK`). Never takes one.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Who holds a lock that would stop a write to the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process, by its id.
    Process(i32),
    /// An open file description, which belongs to no process (`l_pid` of -1), or a process that is not visible here.
    Unknown,
}

/// Asks for any record lock on the file, of processes or of open file descriptions; none if there is none.
///
/// # Errors
/// `EBADF` for a descriptor that cannot be locked, `EINVAL` where the file system has no locks.
pub fn holder<Fd: AsFd>(file: Fd) -> Result<Option<Holder>, Errno> {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: F_OFD_GETLK takes a pointer to a `flock` that it may write, with `l_pid` 0: `lock` is one and lives on.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if result != 0 {
        return Err(crate::files::last_errno());
    }
    if lock.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(None);
    }
    Ok(Some(if lock.l_pid > 0 { Holder::Process(lock.l_pid) } else { Holder::Unknown }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_another_description_is_seen() {
        let path = std::env::temp_dir().join(format!("tentative-lock-{}", std::process::id()));
        let file =
            std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        let other = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(holder(&other), Ok(None));
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(holder(&other), Ok(Some(Holder::Process(std::process::id().cast_signed()))));
    }
}

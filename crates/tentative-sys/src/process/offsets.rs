//! Offsets and status flags of descriptors that origin and branch share: kept at begin, put back by a rollback.
//!
//! Without the files layer both processes have the same open files, so a read in the branch moves the origin's
//! offset as well. With it the standard streams are the same, and one that does not block would not for anybody. The
//! output streams are the exception: what was written there is shown and stays, so the next output comes after it.

use crate::{process::descriptors::same_open_file, raw};

/// Offsets, where there are any, and status flags of descriptors of this process.
#[derive(Debug, Default)]
pub struct Offsets(Vec<(i32, Option<usize>, usize)>);

impl Offsets {
    /// Reads those of some descriptors.
    #[must_use]
    pub fn capture(numbers: impl Iterator<Item = i32>) -> Offsets {
        let offset_of = |number: i32| raw::lseek(number as usize, 0, libc::SEEK_CUR as usize).ok();
        let shown: Vec<i32> = [1, 2].into_iter().filter(|stream| offset_of(*stream).is_some()).collect();
        let of = |number: i32| {
            let flags = raw::fcntl(number as usize, libc::F_GETFL as usize, 0).ok()?;
            let is_shown = || shown.iter().any(|stream| same_open_file(*stream, number));
            Some((number, offset_of(number).filter(|_| !is_shown()), flags))
        };
        Offsets(numbers.filter_map(of).collect())
    }

    /// Puts them back.
    pub fn restore(&self) {
        for (number, offset, flags) in &self.0 {
            let fd = *number as usize;
            if let Some(offset) = offset
                && raw::lseek(fd, 0, libc::SEEK_CUR as usize) != Ok(*offset)
            {
                let _seekable_before = raw::lseek(fd, *offset, libc::SEEK_SET as usize);
            }
            if raw::fcntl(fd, libc::F_GETFL as usize, 0) != Ok(*flags) {
                let _settable_before = raw::fcntl(fd, libc::F_SETFL as usize, *flags);
            }
        }
    }
}

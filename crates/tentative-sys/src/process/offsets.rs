//! Offsets of descriptors that origin and branch share: kept at begin, put back by a rollback.
//!
//! Without the files layer both processes have the same open files, so a read in the branch moves the origin's
//! offset as well.

use crate::{process::descriptors::each_descriptor, raw};

/// Offsets and status flags of the seekable descriptors of this process.
#[derive(Debug, Default)]
pub struct Offsets(Vec<(i32, usize, usize)>);

impl Offsets {
    /// Reads them; what cannot be read has no offset.
    #[must_use]
    pub fn capture() -> Offsets {
        let mut kept = Vec::new();
        let _a_partial_list_is_of_use = each_descriptor(|number| {
            let fd = number as usize;
            if let (Ok(offset), Ok(flags)) =
                (raw::lseek(fd, 0, libc::SEEK_CUR as usize), raw::fcntl(fd, libc::F_GETFL as usize, 0))
            {
                kept.push((number, offset, flags));
            }
            Ok(())
        });
        Offsets(kept)
    }

    /// Puts them back.
    pub fn restore(&self) {
        for (number, offset, flags) in &self.0 {
            let fd = *number as usize;
            if raw::lseek(fd, 0, libc::SEEK_CUR as usize) != Ok(*offset) {
                let _seekable_before = raw::lseek(fd, *offset, libc::SEEK_SET as usize);
            }
            if raw::fcntl(fd, libc::F_GETFL as usize, 0) != Ok(*flags) {
                let _settable_before = raw::fcntl(fd, libc::F_SETFL as usize, *flags);
            }
        }
    }
}

//! Offsets of descriptors that origin and branch share: kept at begin, put back by a rollback.
//!
//! Without the files layer both processes have the same open files, so a read in the branch moves the origin's
//! offset as well. The output streams are the exception: what was written there is shown and stays, so the next output
//! comes after it.

use crate::{
    process::descriptors::{each_descriptor, same_open_file},
    raw,
};

/// Offsets and status flags of the seekable descriptors of this process.
#[derive(Debug, Default)]
pub struct Offsets(Vec<(i32, Option<usize>, usize)>);

impl Offsets {
    /// Reads them; what cannot be read has no offset.
    #[must_use]
    pub fn capture() -> Offsets {
        let mut kept = Vec::new();
        let seekable = |number: i32| raw::lseek(number as usize, 0, libc::SEEK_CUR as usize).is_ok();
        let shown: Vec<i32> = [1, 2].into_iter().filter(|stream| seekable(*stream)).collect();
        let _a_partial_list_is_of_use = each_descriptor(|number| {
            let fd = number as usize;
            if let (Ok(offset), Ok(flags)) =
                (raw::lseek(fd, 0, libc::SEEK_CUR as usize), raw::fcntl(fd, libc::F_GETFL as usize, 0))
            {
                let is_shown = shown.iter().any(|stream| same_open_file(*stream, number));
                kept.push((number, (!is_shown).then_some(offset), flags));
            }
            Ok(())
        });
        Offsets(kept)
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

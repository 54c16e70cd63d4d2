//! Private copies: what a branch has instead of the origin's deleted files.
//!
//! The origin makes them before the clone. They have no name anywhere, so nothing outside can be reached through one.

/// A deleted file of the origin's and the copy that the branch has of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PrivateCopy {
    /// The first of the origin's numbers for its open file.
    pub number: i32,
    /// The transaction's own descriptor on the open file that the branch has at that number.
    pub copy: i32,
    /// The transaction's own descriptor through which the copy can be read; may be the same.
    pub reader: i32,
    /// Offset of the origin's open file at begin.
    pub offset: i64,
    /// The origin's file at begin.
    pub original: Stamp,
    /// The copy at begin.
    pub fresh: Stamp,
}

/// What tells whether a file is as it was, and which file it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Device.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: i64,
    /// Kind and permissions.
    pub mode: u32,
    /// Last access, seconds and nanoseconds.
    pub accessed: [i64; 2],
    /// Last change of the content.
    pub modified: [i64; 2],
    /// Last change of anything.
    pub changed: [i64; 2],
}

impl Stamp {
    /// Which file it is: device and inode number.
    #[must_use]
    pub const fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

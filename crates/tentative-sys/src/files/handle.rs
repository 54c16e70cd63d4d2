//! File handles: a name for an inode that survives renames (`name_to_handle_at(2)`). Never opens one.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd},
};

use rustix::io::Errno;

/// The longest handle of any file system (`MAX_HANDLE_SZ`).
const LONGEST: usize = 128;

/// What the kernel wants: size and type before the bytes.
#[repr(C)]
struct Buffer {
    size: u32,
    kind: i32,
    bytes: [u8; LONGEST],
}

const _: () = assert!(size_of::<Buffer>() == 8 + LONGEST);

/// The handle of an inode, comparable between two moments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileHandle {
    /// The file system's own kind of handle.
    pub kind: i32,
    /// Its opaque bytes.
    pub bytes: Vec<u8>,
}

/// The handle of the object at `path` below `directory`; symbolic links are not followed.
///
/// # Errors
/// `EOPNOTSUPP` where the file system has no handles, otherwise what a lookup of the path can fail with.
pub fn name_to_handle_at<Fd: AsFd>(directory: Fd, path: &CStr) -> Result<FileHandle, Errno> {
    let mut buffer = Buffer { size: LONGEST as u32, kind: 0, bytes: [0; LONGEST] };
    let mut mount_id: i32 = 0;
    // SAFETY: name_to_handle_at wants a terminated path and a `file_handle` whose `size` says how many bytes follow
    // it: `Buffer` has the same layout and LONGEST bytes; `mount_id` is an int that it may write.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            directory.as_fd().as_raw_fd(),
            path.as_ptr(),
            &raw mut buffer,
            &raw mut mount_id,
            0,
        )
    };
    if result != 0 {
        return Err(crate::files::last_errno());
    }
    Ok(FileHandle { kind: buffer.kind, bytes: buffer.bytes[..(buffer.size as usize).min(LONGEST)].to_vec() })
}

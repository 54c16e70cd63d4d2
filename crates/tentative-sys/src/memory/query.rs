//! PROCMAP_QUERY (linux/fs.h, Linux 6.11): one mapping of an open `/proc/PID/maps` by address.
//!
//! It costs a fraction of the text, which the kernel makes with every path in full. Before 6.11 the kernel says
//! `ENOTTY`, and callers read the text.

use rustix::io::Errno;

use crate::raw;

const PROCMAP_QUERY: usize = 0xc068_6611;
/// Flags of a mapping, and of a query that wants only mappings that have them.
pub(crate) const READABLE: u64 = 0x01;
pub(crate) const WRITABLE: u64 = 0x02;
pub(crate) const EXECUTABLE: u64 = 0x04;
pub(crate) const SHARED: u64 = 0x08;
/// The mapping at the address, or else the next one.
pub(crate) const COVERING_OR_NEXT: u64 = 0x10;

/// `struct procmap_query`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mapping {
    size: u64,
    flags: u64,
    address: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) vma_flags: u64,
    page_size: u64,
    pub(crate) offset: u64,
    pub(crate) inode: u64,
    pub(crate) device: [u32; 2],
    name_sizes: [u32; 2],
    name_address: u64,
    build_id_address: u64,
}

const _: () = assert!(size_of::<Mapping>() == 104);

/// Asks for the mapping at an address; its name, the path of a file in full, comes into `name`, which may be empty.
/// Returns it and the length of the name.
pub(crate) fn mapping(
    maps: usize,
    address: usize,
    flags: u64,
    name: &mut [u8],
) -> Result<(Mapping, usize), Errno> {
    let mut query = Mapping {
        size: size_of::<Mapping>() as u64,
        flags,
        address: address as u64,
        name_sizes: [name.len() as u32, 0],
        name_address: if name.is_empty() { 0 } else { name.as_mut_ptr().expose_provenance() as u64 },
        ..Mapping::default()
    };
    let pointer = (&raw mut query) as usize;
    // SAFETY: the request reads and writes one structure of the asserted size, and writes at most the given length of
    // the name.
    unsafe { raw::syscall(libc::SYS_ioctl, [maps, PROCMAP_QUERY, pointer, 0, 0, 0]) }?;
    // The kernel counts the NUL byte at the end.
    Ok((query, (query.name_sizes[0] as usize).saturating_sub(1)))
}

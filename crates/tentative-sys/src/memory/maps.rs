//! The list of mappings in `/proc/PID/maps` (proc_pid_maps(5)), asked for one by one or parsed, without allocation.
//!
//! Invariant: a list is complete or an error; it is never cut short.

use rustix::io::Errno;

use crate::{memory::query, raw};

/// What a mapping is, as far as a transplant has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Anonymous memory.
    #[default]
    Anonymous,
    /// The program break's heap.
    Heap,
    /// The main thread's stack.
    Stack,
    /// A file.
    File,
    /// The kernel's own pages (vdso, vvar, vsyscall), the same in every process of this boot.
    Kernel,
}

/// One mapping.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vma {
    /// First address.
    pub start: usize,
    /// Address behind the last.
    pub end: usize,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Device number of the file as `maps` prints it, major in the upper half.
    pub device: u64,
    /// Inode number of the file, 0 without one.
    pub inode: u64,
    /// `PROT_*` bits.
    pub protection: i32,
    /// Whether it is shared.
    pub shared: bool,
    /// What it is.
    pub kind: Kind,
}

impl Vma {
    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether it has no bytes; the kernel never lists such a one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether `other` maps the same bytes of the same thing at the addresses that both cover.
    #[must_use]
    pub fn same_backing(&self, other: &Vma) -> bool {
        if self.shared != other.shared || (self.kind == Kind::File) != (other.kind == Kind::File) {
            return false;
        }
        if self.kind != Kind::File {
            // Heap, stack and anonymous memory are all private zero-filled memory.
            return (self.kind == Kind::Kernel) == (other.kind == Kind::Kernel);
        }
        self.device == other.device
            && self.inode == other.inode
            && self.offset.wrapping_sub(self.start as u64) == other.offset.wrapping_sub(other.start as u64)
    }
}

/// Room for a list of mappings.
#[derive(Debug)]
pub struct Table<'a> {
    /// Room for the mappings.
    pub vmas: &'a mut [Vma],
    /// Room for the text where it has to be read.
    pub text: &'a mut [u8],
}

/// Reads the mappings of a process into a table; returns how many there are.
///
/// # Errors
/// `ENOMEM` when the table is too small, else what open(2), ioctl(2) or read(2) said.
pub fn read(path_with_nul: &[u8], table: &mut Table<'_>) -> Result<usize, Errno> {
    let fd = raw::open(path_with_nul, libc::O_RDONLY | libc::O_CLOEXEC)?;
    let result = match query_all(fd, table.vmas) {
        // Before 6.11.
        Err(Errno::NOTTY) => read_text(fd, table),
        other => other,
    };
    let _nothing_to_do = raw::close(fd);
    result
}

/// Reads the path of the file that is mapped at an address into `text`; returns its length.
///
/// # Errors
/// `ENOENT` when nothing is mapped there, else what open(2), ioctl(2) or read(2) said.
pub fn read_path(path_with_nul: &[u8], address: usize, text: &mut [u8]) -> Result<usize, Errno> {
    let fd = raw::open(path_with_nul, libc::O_RDONLY | libc::O_CLOEXEC)?;
    let result = match query::mapping(fd, address, 0, text) {
        Err(Errno::NOTTY) => path_in_text(fd, address, text),
        other => other.map(|(_, length)| length),
    };
    let _nothing_to_do = raw::close(fd);
    result
}

fn query_all(fd: usize, vmas: &mut [Vma]) -> Result<usize, Errno> {
    let (mut count, mut address) = (0, 0);
    loop {
        let mapping = match query::mapping(fd, address, query::COVERING_OR_NEXT, &mut []) {
            Ok((mapping, _)) => mapping,
            Err(Errno::NOENT) => return Ok(count),
            Err(errno) => return Err(errno),
        };
        let has = |flag: u64, bit: i32| i32::from(mapping.vma_flags & flag != 0) * bit;
        let start = mapping.start as usize;
        let mut name = [0; 64];
        // Only what has no file has a name that says what it is, and a short one.
        let length = if mapping.inode == 0 {
            query::mapping(fd, start, 0, &mut name).map_or(0, |(_, length)| length)
        } else {
            0
        };
        *vmas.get_mut(count).ok_or(Errno::NOMEM)? = Vma {
            start,
            end: mapping.end as usize,
            offset: mapping.offset,
            device: u64::from(mapping.device[0]) << 32 | u64::from(mapping.device[1]),
            inode: mapping.inode,
            protection: has(query::READABLE, libc::PROT_READ)
                | has(query::WRITABLE, libc::PROT_WRITE)
                | has(query::EXECUTABLE, libc::PROT_EXEC),
            shared: mapping.vma_flags & query::SHARED != 0,
            kind: kind_of(&name[..length.min(name.len())], mapping.inode),
        };
        count += 1;
        address = mapping.end as usize;
    }
}

fn read_text(fd: usize, table: &mut Table<'_>) -> Result<usize, Errno> {
    let mut count = 0;
    each_line(fd, table.text, |vma, _| {
        *table.vmas.get_mut(count).ok_or(Errno::NOMEM)? = vma;
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

fn path_in_text(fd: usize, address: usize, text: &mut [u8]) -> Result<usize, Errno> {
    let mut lines = [0; 8192];
    let mut found = Err(Errno::NOENT);
    each_line(fd, &mut lines, |vma, path| {
        if vma.start <= address && address < vma.end {
            text.get_mut(..path.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(path);
            found = Ok(path.len());
        }
        Ok(())
    })?;
    found
}

fn each_line(
    fd: usize,
    text: &mut [u8],
    mut each: impl FnMut(Vma, &[u8]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut held = 0;
    loop {
        let got = raw::read(fd, &mut text[held..])?;
        if got == 0 {
            return if held == 0 { Ok(()) } else { Err(Errno::NOMEM) };
        }
        held += got;
        let mut done = 0;
        while let Some(length) = text[done..held].iter().position(|byte| *byte == b'\n') {
            let (vma, path) = parse_line(&text[done..done + length]).ok_or(Errno::PROTO)?;
            each(vma, path)?;
            done += length + 1;
        }
        text.copy_within(done..held, 0);
        held -= done;
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn number(&mut self, radix: u64) -> Option<u64> {
        let mut value: u64 = 0;
        let mut digits = 0;
        while let Some(byte) = self.0.first() {
            let digit = match byte {
                b'0'..=b'9' => u64::from(byte - b'0'),
                b'a'..=b'f' if radix == 16 => u64::from(byte - b'a' + 10),
                _ => break,
            };
            value = value.wrapping_mul(radix).wrapping_add(digit);
            digits += 1;
            self.0 = &self.0[1..];
        }
        (digits > 0).then_some(value)
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        (self.0.first() == Some(&byte)).then(|| self.0 = &self.0[1..])
    }
}

/// Parses one line; the path is what stands behind the padding.
pub(crate) fn parse_line(line: &[u8]) -> Option<(Vma, &[u8])> {
    let mut rest = Cursor(line);
    let mut vma = Vma { start: rest.number(16)? as usize, ..Vma::default() };
    rest.skip(b'-')?;
    vma.end = rest.number(16)? as usize;
    rest.skip(b' ')?;
    let flags = rest.0.get(..4)?;
    vma.protection = (i32::from(flags[0] == b'r') * libc::PROT_READ)
        | (i32::from(flags[1] == b'w') * libc::PROT_WRITE)
        | (i32::from(flags[2] == b'x') * libc::PROT_EXEC);
    vma.shared = flags[3] == b's';
    rest.0 = &rest.0[4..];
    rest.skip(b' ')?;
    vma.offset = rest.number(16)?;
    rest.skip(b' ')?;
    let major = rest.number(16)?;
    rest.skip(b':')?;
    vma.device = (major << 32) | rest.number(16)?;
    rest.skip(b' ')?;
    vma.inode = rest.number(10)?;
    let path_at = line.len() - rest.0.iter().skip_while(|byte| **byte == b' ').count();
    let path = &line[path_at..];
    vma.kind = kind_of(path, vma.inode);
    Some((vma, path))
}

fn kind_of(path: &[u8], inode: u64) -> Kind {
    match path {
        b"[heap]" => Kind::Heap,
        b"[stack]" => Kind::Stack,
        _ if path.starts_with(b"[v") || path == b"[uprobes]" || path == b"[sigpage]" => Kind::Kernel,
        // Shared anonymous memory is a deleted file of tmpfs's.
        _ if inode != 0 => Kind::File,
        _ => Kind::Anonymous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_procfs() {
        let (mut vmas, mut text) = (vec![Vma::default(); 5000], vec![0; 1 << 16]);
        let mut table = Table { vmas: &mut vmas, text: &mut text };
        let count = read(b"/proc/self/maps\0", &mut table).unwrap();
        let oracle = procfs::process::Process::myself().unwrap().maps().unwrap();
        // The heap may have grown between the two reads, file mappings have not.
        let files = |vma: &&Vma| vma.kind == Kind::File;
        let ours: Vec<_> =
            vmas[..count].iter().filter(files).map(|v| (v.start, v.end, v.inode, v.offset)).collect();
        let theirs: Vec<_> = oracle
            .iter()
            .filter(|map| map.inode != 0)
            .map(|map| (map.address.0 as usize, map.address.1 as usize, map.inode, map.offset))
            .collect();
        assert_eq!(ours, theirs);
        assert!(vmas[..count].iter().any(|vma| vma.kind == Kind::Stack));
    }

    #[test]
    fn the_text_says_what_the_kernel_answers() {
        let fd = raw::open(b"/proc/self/maps\0", libc::O_RDONLY).unwrap();
        let mut asked = vec![Vma::default(); 5000];
        let Ok(asked_count) = query_all(fd, &mut asked) else { return };
        let (mut vmas, mut text) = (vec![Vma::default(); 5000], vec![0; 1 << 16]);
        let count = read_text(fd, &mut Table { vmas: &mut vmas, text: &mut text }).unwrap();
        raw::close(fd).unwrap();
        let of_files = |vmas: &[Vma]| -> Vec<String> {
            vmas.iter()
                .filter(|vma| vma.kind != Kind::Anonymous && vma.start >> 63 == 0)
                .map(|vma| format!("{vma:?}"))
                .collect()
        };
        // Other tests' threads map memory and grow the heap meanwhile; a file's mapping stays.
        let without_heap = |list: Vec<String>| -> Vec<String> {
            list.into_iter().filter(|vma| !vma.contains("Heap") && !vma.contains("Stack")).collect()
        };
        assert_eq!(without_heap(of_files(&asked[..asked_count])), without_heap(of_files(&vmas[..count])),);
    }

    #[test]
    fn paths_are_found_by_address() {
        let address = paths_are_found_by_address as *const () as usize;
        let (mut one, mut other) = ([0; 4096], [0; 4096]);
        let length = read_path(b"/proc/self/maps\0", address, &mut one).unwrap();
        let fd = raw::open(b"/proc/self/maps\0", libc::O_RDONLY).unwrap();
        let again = path_in_text(fd, address, &mut other).unwrap();
        raw::close(fd).unwrap();
        assert_eq!(one[..length], other[..again]);
        let me = std::env::current_exe().unwrap();
        assert_eq!(&one[..length], std::os::unix::ffi::OsStrExt::as_bytes(me.as_os_str()));
    }

    #[test]
    fn parses_odd_paths() {
        let line = b"7f00-7f01 rw-s 00001000 08:01 77                         /a b (deleted)";
        let (vma, path) = parse_line(line).unwrap();
        assert!(vma.shared && vma.inode == 77 && vma.offset == 0x1000);
        assert_eq!(path, b"/a b (deleted)");
    }

    #[test]
    fn a_table_that_is_too_small_is_an_error() {
        let (mut vmas, mut text) = ([Vma::default(); 2], [0; 4096]);
        let mut table = Table { vmas: &mut vmas, text: &mut text };
        assert_eq!(read(b"/proc/self/maps\0", &mut table), Err(Errno::NOMEM));
    }
}

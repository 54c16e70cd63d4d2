//! Attributes of files: mode, owner, times, extended attributes; and copies that keep them.
//!
//! The overlay's own attributes (`user.overlay.*`) are never copied and never compared.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt as _,
            fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags,
        chmodat, chownat, copy_file_range, ftruncate, ioctl_ficlone, lgetxattr, llistxattr, lremovexattr,
        lsetxattr, mknodat, openat, seek, utimensat,
    },
    io::Errno,
};

/// What the overlay keeps its own notes under.
const OVERLAY: &[u8] = b"user.overlay.";
/// What is written at once where content is compared: a page, bytes.
const PAGE: usize = 4096;
/// The longest value of an extended attribute, and of their list.
const LONGEST: usize = 65_536;

/// The extended attributes of an object, symbolic links not followed, without the overlay's own; sorted by name. What the
/// caller may list but not read has an empty value.
///
/// # Errors
/// What listing or reading them fails with; a file system without any has none.
pub fn extended(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    list(path, |name| match value(path, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Some(Vec::new())),
        result => result,
    })
}

/// The same of an object in the store, which its owner may have closed to himself.
///
/// # Errors
/// As [`extended`].
pub(crate) fn extended_in_store(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    opened(path, |path| list(path, |name| value(path, name)))
}

fn list(
    path: &Path,
    value: impl Fn(&[u8]) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in names(path)?.into_iter().filter(|name| !name.starts_with(OVERLAY)) {
        if let Some(value) = value(&name)? {
            found.push((name, value));
        }
    }
    found.sort();
    Ok(found)
}

/// The names of the overlay's own attributes of an object, without what they have in common; sorted.
///
/// # Errors
/// What listing them fails with.
pub(crate) fn overlay_notes(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let names = names(path)?.into_iter();
    let mut notes: Vec<_> = names.filter_map(|name| name.strip_prefix(OVERLAY).map(<[u8]>::to_vec)).collect();
    notes.sort();
    Ok(notes)
}

/// The overlay's own attribute `user.overlay.NAME` of an object in the store.
///
/// # Errors
/// What reading it fails with.
pub fn overlay_note(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let name = [OVERLAY, name.as_bytes()].concat();
    opened(path, |path| value(path, &name))
}

/// Removes the overlay's own attributes from one object.
///
/// # Errors
/// What removing them fails with.
pub fn strip(path: &Path) -> io::Result<()> {
    for name in names(path)?.iter().filter(|name| name.starts_with(OVERLAY)) {
        match lremovexattr(path, OsStr::from_bytes(name)) {
            Err(error) if error != Errno::NODATA => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn names(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = [0_u8; 1024];
    let bytes = match llistxattr(path, &mut buffer[..]) {
        Ok(length) => buffer[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0_u8; LONGEST];
            let length = llistxattr(path, &mut large[..])?;
            large.truncate(length);
            large
        }
        Err(Errno::NOTSUP) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

fn value(path: &Path, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0_u8; 512];
    match lgetxattr(path, OsStr::from_bytes(name), &mut buffer[..]) {
        Ok(length) => Ok(Some(buffer[..length].to_vec())),
        Err(Errno::RANGE) => {
            let mut large = vec![0_u8; LONGEST];
            let length = lgetxattr(path, OsStr::from_bytes(name), &mut large[..])?;
            large.truncate(length);
            Ok(Some(large))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives `to` the owner, mode, extended attributes and times of `from`, whatever kind of object they are.
///
/// # Errors
/// What setting one of them fails with. Extended attributes that the target's file system or the caller's privilege
/// does not allow are errors too, except security labels, which the kernel chooses.
pub fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let now = fs::symlink_metadata(to)?;
    if (now.uid(), now.gid()) != (metadata.uid(), metadata.gid()) {
        let (owner, group) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
        chownat(CWD, to, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // After the owner: a change of owner takes capabilities and the set-id bits away. Before the mode: it may close the file.
    copy_extended(from, to)?;
    if !metadata.is_symlink() {
        chmodat(CWD, to, Mode::from_raw_mode(metadata.mode() & 0o7777), AtFlags::empty())?;
    }
    set_times(&metadata, to)
}

fn set_times(metadata: &fs::Metadata, to: &Path) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() },
        last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() },
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Makes the extended attributes of `to` those of `from`, which is in the store.
///
/// # Errors
/// What setting or removing one fails with.
pub fn copy_extended(from: &Path, to: &Path) -> io::Result<()> {
    let (wanted, present) = (extended_in_store(from)?, extended(to)?);
    for (name, value) in wanted.iter().filter(|pair| !present.contains(pair)) {
        match lsetxattr(to, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            Err(error) if !name.starts_with(b"security.selinux") => return Err(error.into()),
            _ => {}
        }
    }
    for (name, _) in present.iter().filter(|(name, _)| !wanted.iter().any(|(other, _)| other == name)) {
        match lremovexattr(to, OsStr::from_bytes(name)) {
            Err(error) if !name.starts_with(b"security.") => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Gives `to` the attributes of `from` with another mode; owner and extended attributes only as far as the caller may set
/// them, since this is for directories, FIFOs and sockets of the store.
///
/// # Errors
/// What setting mode or times fails with.
pub(super) fn copy_attributes(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    let metadata = fs::metadata(from)?;
    let (owner, group) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    match chownat(CWD, to, Some(owner), Some(group), AtFlags::empty()) {
        // EINVAL: an owner without a number in this user namespace, in a transaction inside a transaction.
        Err(error) if error != Errno::PERM && error != Errno::INVAL => return Err(error.into()),
        _ => {}
    }
    for (name, value) in extended(from).unwrap_or_default() {
        // Access control lists and labels that only root may set: see above.
        let _ = lsetxattr(to, OsStr::from_bytes(&name), &value, XattrFlags::empty());
    }
    chmodat(CWD, to, Mode::from_raw_mode(mode), AtFlags::empty())?;
    set_times(&metadata, to)
}

/// Copies a regular file of the outside into the store, with its mode and times, and its owner where that is allowed.
///
/// # Errors
/// What reading or writing fails with.
pub(super) fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let source = open_unnoticed(from)?;
    let metadata = source.metadata()?;
    let target = File::create(to)?;
    copy_content(&source, &target)?;
    let (owner, group) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    match chownat(CWD, to, Some(owner), Some(group), AtFlags::empty()) {
        // EINVAL: an owner without a number in this user namespace, in a transaction inside a transaction.
        Err(error) if error != Errno::PERM && error != Errno::INVAL => return Err(error.into()),
        _ => {}
    }
    chmodat(CWD, to, Mode::from_raw_mode(metadata.mode() & 0o7777), AtFlags::empty())?;
    set_times(&metadata, to)
}

/// Makes the content of `target` that of `source`, and touches nothing of it that is the same: others may have it mapped, who
/// would lose what they wrote to pages of their own, or be killed, if it were cut and written anew.
///
/// # Errors
/// What reading or writing fails with.
pub fn change_content(source: &File, target: &File) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let (length, old) = (source.metadata()?.len(), target.metadata()?.len());
    let (mut new, mut there) = (vec![0_u8; 1 << 17], vec![0_u8; 1 << 17]);
    let mut at = 0;
    while at < length.min(old) {
        let wanted = new.len().min(usize::try_from(length.min(old) - at).unwrap_or(usize::MAX));
        source.read_exact_at(&mut new[..wanted], at)?;
        target.read_exact_at(&mut there[..wanted], at)?;
        for (number, (new, _)) in new[..wanted]
            .chunks(PAGE)
            .zip(there[..wanted].chunks(PAGE))
            .enumerate()
            .filter(|(_, (a, b))| a != b)
        {
            target.write_all_at(new, at + (number * PAGE) as u64)?;
        }
        at += wanted as u64;
    }
    // What follows the old end has no content yet, and nobody has it mapped.
    ftruncate(target, length)?;
    copy_data(source, target, old.min(length), length)
}

/// Makes the content of `target`, which only its maker knows, that of `source`: shared blocks where the file system can, holes
/// kept.
///
/// # Errors
/// What reading or writing fails with.
pub fn copy_content(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    if ioctl_ficlone(target, source).is_ok() {
        return Ok(ftruncate(target, length)?);
    }
    ftruncate(target, 0)?;
    ftruncate(target, length)?;
    copy_data(source, target, 0, length)
}

/// Copies what is no hole between two places.
fn copy_data(source: &File, target: &File, mut at: u64, length: u64) -> io::Result<()> {
    while at < length {
        let start = match seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = seek(source, SeekFrom::Hole(start)).unwrap_or(length);
        copy_range(source, target, start, end)?;
        at = end.max(start + 1);
    }
    Ok(())
}

fn copy_range(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let wanted = usize::try_from(end - from).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), wanted) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::IO) => {
                return copy_by_hand(source, target, from, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(source: &File, target: &File, mut at: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0_u8; 1 << 16];
    while at < end {
        let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let read = source.read_at(&mut buffer[..wanted], at)?;
        if read == 0 {
            return Ok(());
        }
        target.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

/// Copies one object that is not a directory to a path where nothing is, with everything it has.
///
/// # Errors
/// What making it or setting its attributes fails with.
pub fn copy_object(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let kind = FileType::from_raw_mode(metadata.mode());
    match kind {
        FileType::RegularFile => {
            let source = opened(from, open_unnoticed)?;
            let target = File::options().write(true).create_new(true).mode(0o600).open(to)?;
            copy_content(&source, &target)?;
        }
        FileType::Symlink => std::os::unix::fs::symlink(fs::read_link(from)?, to)?,
        _ => mknodat(CWD, to, kind, Mode::from_raw_mode(0o600), metadata.rdev())?,
    }
    copy_all(from, to)
}

/// Opens a regular file for reading; its time of access stays as it is where the caller may ask for that.
///
/// # Errors
/// What opening fails with.
pub fn open_unnoticed(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match openat(CWD, path, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may ask for it.
        Err(Errno::PERM) => Ok(openat(CWD, path, flags, Mode::empty())?.into()),
        result => Ok(result?.into()),
    }
}

/// The names in a directory; its time of access stays as it is where the caller may ask for that.
///
/// # Errors
/// What opening or reading it fails with.
pub(super) fn names_unnoticed(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut entries = Dir::new(OwnedFd::from(open_unnoticed(directory)?))?;
    let mut names = BTreeSet::new();
    while let Some(entry) = entries.read() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Does something with an object of the store that its owner may have closed to himself: opened for that time.
///
/// # Errors
/// What it, or changing the mode, fails with.
pub(crate) fn opened<T>(path: &Path, act: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let result = act(path);
    if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
        return result;
    }
    let closed = fs::symlink_metadata(path)?;
    if closed.uid() != rustix::process::geteuid().as_raw() || closed.is_symlink() {
        return result;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(closed.mode() & 0o7777 | 0o700))?;
    let result = act(path);
    fs::set_permissions(path, closed.permissions())?;
    result
}

/// A directory that its owner may have closed to himself, open while this lives.
#[derive(Debug)]
pub(crate) struct Opened {
    closed: Option<(PathBuf, u32)>,
}

impl Opened {
    /// Opens the directory for looking into it, if it is the user's own and closed to him. That seldom takes a change of
    /// its mode, which whoever is killed meanwhile leaves changed: rights to change what is in it are not needed.
    ///
    /// # Errors
    /// What looking at it or changing its mode fails with.
    pub(crate) fn directory(path: &Path) -> io::Result<Opened> {
        const NEEDED: u32 = 0o500;
        let metadata = fs::symlink_metadata(path)?;
        if !is_closed(&metadata, NEEDED) {
            return Ok(Opened { closed: None });
        }
        let mode = metadata.mode() & 0o7777;
        fs::set_permissions(path, fs::Permissions::from_mode(mode | NEEDED))?;
        Ok(Opened { closed: Some((path.to_owned(), mode)) })
    }

    /// The mode that the directory at `path` has when it is closed again, if it is this one.
    pub(crate) fn mode_of(&self, path: &Path) -> Option<u32> {
        self.closed.as_ref().filter(|(closed, _)| closed == path).map(|(_, mode)| *mode)
    }
}

/// Says whether a directory lacks some of its owner's rights, and whoever asks is its owner and bound to them.
pub(crate) fn is_closed(metadata: &fs::Metadata, needed: u32) -> bool {
    let user = rustix::process::geteuid();
    !user.is_root() && metadata.mode() & needed != needed && metadata.uid() == user.as_raw()
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some((path, mode)) = &self.closed {
            // It was changed a moment ago, so it can be changed; if it is gone there is nothing to close.
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(*mode));
        }
    }
}

/// Says whether two regular files have the same content.
///
/// # Errors
/// What reading them fails with.
pub fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    use io::Read as _;
    let (mut one, mut other) = (open_unnoticed(one)?, open_unnoticed(other)?);
    let (mut left, mut right) = (vec![0_u8; 1 << 16], vec![0_u8; 1 << 16]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(other.read(&mut right[..1])? == 0);
        }
        match other.read_exact(&mut right[..read]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

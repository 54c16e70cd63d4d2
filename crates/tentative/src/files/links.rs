//! Which upper files are copies of files with several names, where the kernel keeps no index: an ordinary user's.
//!
//! The kernel parts such a copy from the other names and leaves no note on it. So the monitor, which is asked before a
//! name of that kind is opened for writing, moved or linked, holds each copy by a name of its own beside the upper
//! directory, and writes down what it is a copy of. Nothing in the upper directory itself is changed. Invariant: a copy
//! that was written to is held here, whatever became of its names.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs, io,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::files::{
    attributes, identity, name,
    plan::{CoverKind, Plan, Privilege},
};

const LOG: &str = "log";
const COPY: u8 = b'c';
const GONE: u8 = b'g';
const SEEN: u8 = b's';
const UNCLEAR: u8 = b'u';

/// The directory that belongs to an overlay's work directory, on the same file system.
fn directory(work: &Path) -> PathBuf {
    let number = work.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let number = number.strip_prefix(b"work").unwrap_or(number);
    let mut name = b"links".to_vec();
    name.extend_from_slice(number);
    work.with_file_name(OsStr::from_bytes(&name))
}

/// The overlays of one sandbox, for the monitor.
#[derive(Debug)]
pub(crate) struct Links {
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// None where something lies that is no overlay.
    overlay: Option<Overlay>,
}

#[derive(Debug)]
struct Overlay {
    path: PathBuf,
    lower: PathBuf,
    upper: PathBuf,
    links: PathBuf,
}

/// A path inside whose file below has several names.
#[derive(Debug)]
pub(crate) struct Name<'a> {
    overlay: &'a Overlay,
    below: PathBuf,
    handle: Vec<u8>,
}

impl Links {
    /// Says in the transaction that they will be kept. For root, whose overlays have the kernel's index, they are not.
    pub(crate) fn announce(plan: &Plan) -> io::Result<()> {
        match plan.covers.iter().find_map(work) {
            Some(first) if plan.privilege == Privilege::User => fs::create_dir_all(directory(first)),
            _ => Ok(()),
        }
    }

    /// Begins to keep them; none for root.
    pub(crate) fn of(plan: &Plan) -> io::Result<Option<Links>> {
        if plan.privilege == Privilege::Root {
            return Ok(None);
        }
        Links::announce(plan)?;
        let place = |path: &Path, kind: &CoverKind| {
            let overlay = match kind {
                CoverKind::Overlay { lower, upper, work, .. } => {
                    let (path, lower, upper) = (path.to_owned(), lower.clone(), upper.clone());
                    Some(Overlay { path, lower, upper, links: directory(work) })
                }
                _ => None,
            };
            Place { path: path.to_owned(), overlay }
        };
        let mut places: Vec<Place> =
            plan.covers.iter().map(|cover| place(&cover.path, &cover.kind)).collect();
        // The innermost first.
        places.sort_by_key(|place| std::cmp::Reverse(place.path.as_os_str().len()));
        Ok(Some(Links { places }))
    }

    /// What is known about a path inside that holds no symbolic link; none when the file below has one name or is none.
    pub(crate) fn name(&self, path: &Path) -> Option<Name<'_>> {
        let (overlay, below) = self.overlay_of(path)?;
        let lower = overlay.lower.join(&below);
        let there = fs::symlink_metadata(&lower).ok()?;
        if !there.is_file() || there.nlink() < 2 {
            return None;
        }
        Some(Name { overlay, below, handle: identity::handle(&lower).ok()?? })
    }

    /// Writes down that the copy that is now at `path` inside, if one is held there, may be found by `name` too.
    pub(crate) fn note_name(&self, path: &Path, name: &Path) -> io::Result<()> {
        let (Some((overlay, now)), Some((_, name))) = (self.overlay_of(path), self.overlay_of(name)) else {
            return Ok(());
        };
        let Ok(there) = fs::symlink_metadata(overlay.upper.join(now)) else { return Ok(()) };
        let index = Index::read_in(&overlay.links)?;
        match index.copies.iter().find(|copy| copy.inode == (there.dev(), there.ino())) {
            Some(copy) => write(&overlay.links, SEEN, copy.name().as_bytes(), &name),
            None => Ok(()),
        }
    }

    /// Whether two paths inside, at both of which something is, are names of one file for a program that is not inside.
    /// Neither need be a name of it below: a copy keeps what it is a copy of wherever it was moved.
    pub(crate) fn are_same_file(&self, one: &Path, other: &Path) -> bool {
        let original = self.original(one);
        original.is_some() && original == self.original(other)
    }

    /// The file below that a path inside is a name of, not copied up or by a copy that is held: its overlay and handle.
    fn original(&self, path: &Path) -> Option<(&Path, Vec<u8>)> {
        let (overlay, below) = self.overlay_of(path)?;
        let handle = match fs::symlink_metadata(overlay.upper.join(below)) {
            Ok(copy) => {
                Index::read_in(&overlay.links).ok()?.by_inode.get(&(copy.dev(), copy.ino())).cloned()?
            }
            Err(_) => self.name(path)?.handle,
        };
        Some((&overlay.path, handle))
    }

    /// The overlay that a path inside is in, and the path below it.
    fn overlay_of(&self, path: &Path) -> Option<(&Overlay, PathBuf)> {
        let place = self.places.iter().find(|place| path.starts_with(&place.path))?;
        Some((place.overlay.as_ref()?, path.strip_prefix(&place.path).ok()?.to_owned()))
    }

    /// Holds the file that is now at `path` inside as the copy of `original`.
    pub(crate) fn hold(&self, original: &Name<'_>, path: &Path) -> io::Result<()> {
        let Some((overlay, now)) = self.overlay_of(path) else { return Ok(()) };
        let upper = overlay.upper.join(&now);
        fs::create_dir_all(&overlay.links)?;
        let handle = name::hex(&original.handle);
        for number in 0.. {
            let name = format!("{handle}.{number}");
            match fs::hard_link(&upper, overlay.links.join(&name)) {
                Ok(()) => {
                    write(&overlay.links, COPY, name.as_bytes(), &original.below)?;
                    return write(&overlay.links, SEEN, name.as_bytes(), &now);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Name<'_> {
    /// A path inside where a copy of the same file is that was made by another name, if one is known.
    pub(crate) fn copied(&self) -> Option<PathBuf> {
        let index = Index::read_in(&self.overlay.links).ok()?;
        let mut copies = index.copies.iter().filter(|copy| copy.handle == self.handle);
        copies.find_map(|copy| {
            let is_it = |name: &&PathBuf| {
                let there = fs::symlink_metadata(self.overlay.upper.join(name));
                there.is_ok_and(|there| copy.inode == (there.dev(), there.ino()))
            };
            // The last one first: it is the likeliest to be there still.
            copy.seen.iter().rev().find(is_it).map(|name| self.overlay.path.join(name))
        })
    }

    /// Whether the name is still that of the file below: nothing was copied, and nothing took its place.
    pub(crate) fn is_untouched(&self) -> bool {
        fs::symlink_metadata(self.overlay.upper.join(&self.below)).is_err()
    }

    /// Writes down that nobody will know whether the name's file is a copy of the one below or a new one, if that is so:
    /// it is neither held nor known to be gone, and looks like both.
    pub(crate) fn note_unclear(&self) -> io::Result<()> {
        let (lower, upper) = (self.overlay.lower.join(&self.below), self.overlay.upper.join(&self.below));
        let (Ok(old), Ok(new)) = (fs::symlink_metadata(&lower), fs::symlink_metadata(&upper)) else {
            return Ok(());
        };
        let index = Index::read_in(&self.overlay.links)?;
        let is_known = !new.is_file()
            || index.gone.contains(&self.below)
            || index.by_inode.contains_key(&(new.dev(), new.ino()));
        if is_known || !may_be_copy((&lower, &old), (&upper, &new))? {
            return Ok(());
        }
        self.is_unclear()
    }

    /// Writes down that the file below was changed in a way that is lost.
    pub(crate) fn is_unclear(&self) -> io::Result<()> {
        fs::create_dir_all(&self.overlay.links)?;
        write(&self.overlay.links, UNCLEAR, b"", &self.below)
    }

    /// Writes down that the name stopped being that of the file below: what is there later is another file, unless it
    /// is a copy that is held.
    pub(crate) fn is_gone(&self) -> io::Result<()> {
        fs::create_dir_all(&self.overlay.links)?;
        write(&self.overlay.links, GONE, b"", &self.below)
    }
}

fn work(cover: &crate::files::plan::Cover) -> Option<&Path> {
    match &cover.kind {
        CoverKind::Overlay { work, .. } => Some(work),
        _ => None,
    }
}

/// Whether a file at a name of one with several names could be a copy of it, by its looks: nobody is known to have
/// written to a copy, so that it has the old content, and of a new file the times of birth and access are the same.
pub(super) fn may_be_copy(
    (lower, old): (&Path, &fs::Metadata),
    (upper, new): (&Path, &fs::Metadata),
) -> io::Result<bool> {
    if identity::is_as_made(new) {
        return Ok(false);
    }
    let accessed = |metadata: &fs::Metadata| (metadata.atime(), metadata.atime_nsec());
    Ok(accessed(old) == accessed(new) || (old.len() == new.len() && attributes::same_content(lower, upper)?))
}

/// No path and no name holds a NUL.
fn write(links: &Path, kind: u8, name: &[u8], below: &Path) -> io::Result<()> {
    let line = [&[kind], name, b"\0", below.as_os_str().as_bytes(), b"\0"].concat();
    fs::OpenOptions::new().append(true).create(true).open(links.join(LOG))?.write_all(&line)
}

/// A copy that is held.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    /// Where it is held.
    pub(super) at: PathBuf,
    /// The handle of the file that it is a copy of.
    pub(super) handle: Vec<u8>,
    /// The name that it was copied by, below the cover.
    pub(super) below: PathBuf,
    /// Its device and inode.
    inode: (u64, u64),
    /// Names that it was given since, below the cover; it need not have them any more.
    seen: Vec<PathBuf>,
}

impl Copy {
    /// The name that it is held by.
    fn name(&self) -> &OsStr {
        self.at.file_name().unwrap_or_default()
    }
}

/// What the monitor wrote down for one overlay.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The handle of the original, by device and inode of the copy.
    pub(super) by_inode: HashMap<(u64, u64), Vec<u8>>,
    /// All copies.
    pub(super) copies: Vec<Copy>,
    /// Names below the cover that stopped being those of the files below.
    pub(super) gone: BTreeSet<PathBuf>,
    /// Names below the cover of which nobody will know whose they were.
    pub(super) unclear: BTreeSet<PathBuf>,
}

/// Whether a monitor kept links for the transaction of this plan: it did not for root, nor inside another transaction.
pub(super) fn are_kept(plan: &Plan) -> bool {
    plan.privilege == Privilege::User
        && plan.covers.iter().find_map(work).is_some_and(|work| directory(work).is_dir())
}

impl Index {
    /// Reads what belongs to an overlay.
    pub(super) fn read(work: &Path) -> io::Result<Index> {
        Index::read_in(&directory(work))
    }

    fn read_in(links: &Path) -> io::Result<Index> {
        let mut index = Index::default();
        let log = match fs::read(links.join(LOG)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(index),
            other => other?,
        };
        let mut words = log.split(|byte| *byte == 0);
        while let (Some(word), Some(below)) = (words.next(), words.next()) {
            let below = PathBuf::from(OsStr::from_bytes(below));
            match word.split_first() {
                Some((&COPY, name)) => {
                    let at = links.join(OsStr::from_bytes(name));
                    let metadata = fs::symlink_metadata(&at)?;
                    let (handle, inode) = (handle_of(name), (metadata.dev(), metadata.ino()));
                    index.by_inode.insert(inode, handle.clone());
                    index.copies.push(Copy { at, handle, below, inode, seen: Vec::new() });
                }
                Some((&SEEN, name)) => {
                    let mut copies = index.copies.iter_mut().rev();
                    if let Some(copy) = copies.find(|copy| copy.name().as_bytes() == name) {
                        copy.seen.push(below);
                    }
                }
                Some((&GONE, _)) => {
                    index.gone.insert(below);
                }
                Some((&UNCLEAR, _)) => {
                    index.unclear.insert(below);
                }
                _ => {}
            }
        }
        Ok(index)
    }
}

fn handle_of(name: &[u8]) -> Vec<u8> {
    let digits = name.split(|byte| *byte == b'.').next().unwrap_or_default();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).filter_map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_found_again() {
        let place = tempfile::tempdir().unwrap();
        let work = place.path().join("work3");
        let links = directory(&work);
        assert_eq!(links, place.path().join("links3"));
        fs::create_dir(&links).unwrap();
        fs::write(links.join("0aff.1"), "copy").unwrap();
        write(&links, COPY, b"0aff.1", Path::new("a\nb")).unwrap();
        write(&links, GONE, b"", Path::new("c")).unwrap();
        let index = Index::read(&work).unwrap();
        assert_eq!(index.copies[0].handle, [0x0a, 0xff]);
        assert_eq!(index.copies[0].below, Path::new("a\nb"));
        assert!(index.gone.contains(Path::new("c")));
        assert_eq!(index.by_inode.len(), 1);
    }
}

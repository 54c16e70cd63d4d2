//! Which file of the outside an object in an upper directory was copied from.
//!
//! The kernel notes it as a file handle in `user.overlay.origin`. For an ordinary user the note is empty, because the
//! kernel decodes handles for CAP_DAC_READ_SEARCH only; then type, size, time of modification and content have to do. For
//! a file with several names it leaves no note at all where it keeps no index; only there the time of access has to do.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{fs::CWD, io::Errno};
use tentative_sys::files::handle::name_to_handle_at;

use crate::files::{attributes, moment::Moment};

/// `struct ovl_fb` of the kernel: version, magic, length, flags, type, UUID; the handle follows.
const HEADER_BYTES: usize = 21;
const TYPE_AT: usize = 4;

/// What the note says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Not copied up: a new object.
    None,
    /// Copied up from somewhere.
    Unnamed,
    /// Copied up from the file with this handle: its type, then its bytes.
    Known(Vec<u8>),
}

/// Reads the note of an object in an upper directory.
pub(super) fn origin(upper: &Path) -> io::Result<Origin> {
    Ok(match attributes::overlay_note(upper, "origin")? {
        None => Origin::None,
        Some(note) if note.len() <= HEADER_BYTES => Origin::Unnamed,
        Some(note) => {
            let mut handle = vec![note[TYPE_AT]];
            handle.extend_from_slice(&note[HEADER_BYTES..]);
            Origin::Known(handle)
        }
    })
}

/// The handle of a file of the outside in the same form; none where its file system has none.
pub(super) fn handle(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let terminated =
        std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(Errno::INVAL))?;
    match name_to_handle_at(CWD, &terminated) {
        Ok(found) => {
            let mut handle = vec![found.kind.to_le_bytes()[0]];
            handle.extend_from_slice(&found.bytes);
            Ok(Some(handle))
        }
        Err(Errno::OPNOTSUPP | Errno::OVERFLOW) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says whether two looks at files show the same time of access: covers do not change it (`noatime`), so that an upper
/// file that was copied up has that of its original, and a new one a later one. If the original was read outside since
/// the beginning, its own time is of no use: what then shows a time before the beginning is no new file. Where the kernel
/// keeps an index this says nothing: programs give files such times, and reading both gives them equal ones.
pub(super) fn same_access(begun: &Moment, old: &fs::Metadata, new: &fs::Metadata) -> bool {
    if is_as_made(new) {
        return false;
    }
    (old.atime(), old.atime_nsec()) == (new.atime(), new.atime_nsec())
        || (begun.is_before_access(old) && !begun.is_before_access(new))
}

/// Whether a file has the time of access that it was made with, which the kernel's copy of another file has not.
pub(super) fn is_as_made(metadata: &fs::Metadata) -> bool {
    metadata.created().ok().is_some_and(|born| metadata.accessed().ok() == Some(born))
}

/// Where the kernel keeps the index of an overlay, if it does: it makes the directory when it mounts one with an index.
pub(super) fn index_of(work: &Path) -> PathBuf {
    work.join("index")
}

/// Objects that are no longer at their paths, to be found by what was copied from them.
#[derive(Default)]
pub(super) struct Lost {
    objects: Vec<(PathBuf, PathBuf, fs::Metadata)>,
    by_look: HashMap<Look, Vec<usize>>,
    by_handle: HashMap<Vec<u8>, Vec<usize>>,
    /// How many of `objects` have their handles in `by_handle`.
    handled: usize,
    /// Those that were found, with the new path of each.
    taken: HashMap<usize, PathBuf>,
}

type Look = (fs::FileType, u64, i64, i64);

fn look(metadata: &fs::Metadata) -> Look {
    (metadata.file_type(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

impl Lost {
    /// Adds an object that was at `path` and can be read at `lower`.
    pub(super) fn add(&mut self, path: &Path, lower: &Path, metadata: &fs::Metadata) {
        self.by_look.entry(look(metadata)).or_default().push(self.objects.len());
        self.objects.push((path.to_owned(), lower.to_owned(), metadata.clone()));
    }

    /// What the object at `upper`, now called `path`, was; each old path is found once.
    pub(super) fn take(
        &mut self,
        origin: &Origin,
        (path, in_tree): (&Path, bool),
        upper: &Path,
        new: &fs::Metadata,
        begun: &Moment,
    ) -> io::Result<Option<Found>> {
        let found = match origin {
            Origin::Known(noted) => self.by_handle(noted)?,
            Origin::Unnamed => self.by_look(upper, new, |old| old.nlink() == 1),
            Origin::None => self.by_look(upper, new, |old| old.nlink() > 1 && same_access(begun, old, new)),
        };
        // In a tree that took another one's place, a name can be that of the same file as before.
        let fits = |at: &usize| {
            let (old_path, _, old) = &self.objects[*at];
            !self.taken.contains_key(at) && (old_path != path || (in_tree && old.nlink() > 1))
        };
        let free = found.iter().copied().find(fits);
        if let Some(found) = free {
            self.taken.insert(found, path.to_owned());
            return Ok(Some(Found::Renamed(self.objects[found].0.clone())));
        }
        let first =
            found.iter().find_map(|at| self.taken.get(at)).filter(|_| matches!(origin, Origin::Known(_)));
        Ok(first.map(|first| Found::AnotherName(first.clone())))
    }

    fn by_handle(&mut self, noted: &[u8]) -> io::Result<Vec<usize>> {
        while self.handled < self.objects.len() {
            if let Some(handle) = handle(&self.objects[self.handled].1)? {
                self.by_handle.entry(handle).or_default().push(self.handled);
            }
            self.handled += 1;
        }
        Ok(self.by_handle.get(noted).cloned().unwrap_or_default())
    }

    fn by_look(&self, upper: &Path, new: &fs::Metadata, fits: impl Fn(&fs::Metadata) -> bool) -> Vec<usize> {
        let candidates = self.by_look.get(&look(new)).into_iter().flatten().copied();
        let mut free = candidates.filter(|at| !self.taken.contains_key(at));
        let found = free.find(|at| {
            let (_, lower, old) = &self.objects[*at];
            fits(old) && (!new.is_file() || attributes::same_content(upper, lower).unwrap_or(false))
        });
        found.into_iter().collect()
    }
}

/// What an object that was copied up was before.
pub(super) enum Found {
    /// The object at this path, which is gone.
    Renamed(PathBuf),
    /// One that was found already: this is another name of the object that is now here.
    AnotherName(PathBuf),
}

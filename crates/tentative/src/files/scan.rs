//! Walking the upper directories: what changed, and which operations a commit needs for it.
//!
//! A name in an upper directory is a whiteout (deleted), a directory merged with the one below, or an object of its own.
//! An object that the kernel copied up carries the note `origin`: it is the same file, changed. Without the note it took
//! the place of what was there. Operations name whole trees where a tree is new, so that a commit renames once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    change::ChangeKind,
    files::{
        attributes::{self, Opened},
        changes::{FileChange, ScanError, attribute_words, words},
        compare::{Differences, Held, differences, parted},
        identity::{self, Found, Origin},
        links::{self, Index},
        moment::Moment,
        moved,
        plan::{Ancestor, Cover, CoverKind, Plan},
        scaffold::is_scaffold,
        ways::Merged,
    },
};

/// Bytes of a path that the kernel takes, less what the journal's names may be longer by than the upper directory's.
const LONGEST_PATH: usize = 4096 - 256;
/// Bytes of a name, with its slash.
const LONGEST_NAME: usize = 256;

/// What a commit has to do with one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Remove it, with everything in it.
    Remove,
    /// Put the new object or tree there, in place of what is there.
    Place {
        /// A path that disappears whose file this was: a rename.
        renamed_from: Option<PathBuf>,
        /// Whether a copy of it comes with a tree that is put there anyway.
        in_tree: bool,
    },
    /// Change the file that is there, keeping that it is the same file.
    Update {
        /// Whether the content differs, not only attributes.
        content: bool,
    },
    /// Change a file that loses this name and lives on under another one.
    UpdateHidden,
    /// Make the path another name of the file at `first`.
    Link {
        /// The path that keeps its file.
        first: PathBuf,
    },
    /// Set the times of a directory in which something changed.
    Times,
}

/// One operation of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// What to do.
    pub(crate) deed: Deed,
    /// Where.
    pub(crate) path: PathBuf,
    /// The new object; for a removal, the whiteout.
    pub(crate) upper: PathBuf,
    /// What was below as the code saw it, where there was something.
    pub(crate) lower: Option<PathBuf>,
    /// The index of the cover in the plan.
    pub(crate) cover: usize,
}

/// The result of a scan.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// For people; sorted.
    pub(crate) changes: Vec<FileChange>,
    /// For a commit.
    pub(crate) operations: Vec<Operation>,
    /// Directories in which a commit would change something.
    pub(crate) merged: Vec<Merged>,
    /// Upper directories that are closed to their owner; they have to be open for a commit.
    pub(crate) closed: Vec<PathBuf>,
    /// Paths that were changed inside while the file of the outside vanished.
    pub(crate) vanished: Vec<PathBuf>,
    /// Directories with names in them that no path reaches.
    pub(crate) too_deep: Vec<PathBuf>,
    /// What transactions inside left of their own in trees that are new; it must not be put in place with them.
    pub(crate) scaffolds: Vec<PathBuf>,
    /// Names of files with several names of which more than one was changed inside, apart from each other.
    pub(crate) parted: Vec<PathBuf>,
    /// Names of files with several names that were changed or replaced: it cannot be told which.
    pub(crate) unclear: Vec<PathBuf>,
}

/// Scans all covers of a plan.
pub(crate) fn scan(plan: &Plan) -> Result<Scan, ScanError> {
    let mut whole = Scan::default();
    let kept = links::are_kept(plan);
    let mut copies = Vec::new();
    for (number, cover) in plan.covers.iter().enumerate() {
        match &cover.kind {
            CoverKind::Overlay { lower, upper, work, ancestors, .. } => {
                let mounted: BTreeSet<&Path> = plan.covers.iter().map(|cover| cover.path.as_path()).collect();
                let mut walk = Walk::new(number, cover, lower, upper, ancestors, (plan.begun, &mounted));
                walk.has_index = identity::index_of(work).is_dir();
                if kept {
                    let index = Index::read(work).map_err(read(work))?;
                    walk.unclear = index.unclear.iter().map(|below| walk.outside(below)).collect();
                    walk.links = Some(index);
                }
                walk.root()?;
                copies.extend(walk.held());
                walk.finish(work, &mut whole)?;
            }
            CoverKind::Copy { copy } => scan_copy(number, cover, copy, &mut whole)?,
            CoverKind::ReadOnly | CoverKind::Masked | CoverKind::Hidden => {}
        }
    }
    whole.parted = parted(copies)?;
    moved::directories(&mut whole.changes)?;
    whole.changes.sort_by(|a, b| {
        (a.kind != ChangeKind::Deleted, &a.path, a.kind).cmp(&(
            b.kind != ChangeKind::Deleted,
            &b.path,
            b.kind,
        ))
    });
    Ok(whole)
}

pub(super) fn read<'a>(path: &'a Path) -> impl Fn(io::Error) -> ScanError + use<'a> {
    move |source| ScanError::Read { path: path.to_owned(), source }
}

/// The object at a path, none when there is none.
pub(super) fn look(path: &Path) -> Result<Option<fs::Metadata>, ScanError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(read(path)(error)),
    }
}

/// Whether an object says that it was changed later than now.
fn is_to_come(metadata: &fs::Metadata) -> bool {
    metadata.modified().is_ok_and(|time| time > SystemTime::now())
}

fn scan_copy(number: usize, cover: &Cover, copy: &Path, whole: &mut Scan) -> Result<(), ScanError> {
    let (Some(old), Some(new)) = (look(&cover.path)?, look(copy)?) else {
        whole.vanished.push(cover.path.clone());
        return Ok(());
    };
    let same = old.len() == new.len() && attributes::same_content(&cover.path, copy).map_err(read(copy))?;
    if same {
        return Ok(());
    }
    whole.changes.push(FileChange {
        path: cover.path.clone(),
        kind: ChangeKind::Modified,
        before: Some(words(&cover.path, &old)),
        after: Some(words(copy, &new)),
        old: Some(cover.path.clone()),
        new: Some(copy.to_owned()),
        from: None,
    });
    whole.operations.push(Operation {
        deed: Deed::Update { content: true },
        path: cover.path.clone(),
        upper: copy.to_owned(),
        lower: Some(cover.path.clone()),
        cover: number,
    });
    Ok(())
}

/// An object that is no longer visible at its old path.
struct Hidden {
    path: PathBuf,
    lower: PathBuf,
    metadata: fs::Metadata,
}

/// A copied-up object whose original is not at its own path.
struct Orphan {
    path: PathBuf,
    upper: PathBuf,
    origin: Origin,
    was_there: bool,
    in_tree: bool,
}

struct Walk<'a> {
    number: usize,
    cover: &'a Cover,
    lower: &'a Path,
    upper: &'a Path,
    begun: Moment,
    ancestors: HashMap<&'a Path, &'a Ancestor>,
    mounted: &'a BTreeSet<&'a Path>,
    changes: Vec<FileChange>,
    operations: Vec<Operation>,
    hidden: Vec<Hidden>,
    orphans: Vec<Orphan>,
    merged: Vec<Merged>,
    closed: Vec<PathBuf>,
    too_deep: Vec<PathBuf>,
    scaffolds: Vec<PathBuf>,
    /// Whether the kernel kept an index, so that every copy of a file with several names has its note.
    has_index: bool,
    /// What the monitor noted, where it keeps names together because the kernel does not.
    links: Option<Index>,
    unclear: Vec<PathBuf>,
    /// Upper objects with several names: where they are, and which name is that of the original.
    names: BTreeMap<(u64, u64), Vec<(PathBuf, bool)>>,
}

/// Where the walk is.
#[derive(Clone, Copy)]
struct Here<'a> {
    /// The directory below the cover.
    below: &'a Path,
    /// Whether the directory in the lower tree counts at all.
    has_lower: bool,
    /// Whether names that are missing in the upper directory are those of the lower one.
    merged: bool,
    /// Whether a parent is put in place as a tree.
    in_tree: bool,
}

impl<'a> Walk<'a> {
    fn new(
        number: usize,
        cover: &'a Cover,
        lower: &'a Path,
        upper: &'a Path,
        ancestors: &'a [Ancestor],
        (begun, mounted): (Moment, &'a BTreeSet<&'a Path>),
    ) -> Walk<'a> {
        Walk {
            number,
            cover,
            lower,
            upper,
            begun,
            ancestors: ancestors.iter().map(|ancestor| (ancestor.path.as_path(), ancestor)).collect(),
            mounted,
            changes: Vec::new(),
            operations: Vec::new(),
            hidden: Vec::new(),
            orphans: Vec::new(),
            merged: Vec::new(),
            closed: Vec::new(),
            too_deep: Vec::new(),
            scaffolds: Vec::new(),
            has_index: false,
            links: None,
            unclear: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// The copies that the monitor holds.
    fn held(&self) -> Vec<Held> {
        let copies = self.links.iter().flat_map(|links| &links.copies);
        let held = |copy: &links::Copy| Held {
            handle: copy.handle.clone(),
            path: self.outside(&copy.below),
            lower: self.lower.join(&copy.below),
            at: copy.at.clone(),
        };
        copies.map(held).collect()
    }

    fn root(&mut self) -> Result<(), ScanError> {
        let (Some(new), Some(old)) = (look(self.upper)?, look(self.lower)?) else { return Ok(()) };
        self.merged_directory(Path::new(""), &old, &new)
    }

    fn outside(&self, below: &Path) -> PathBuf {
        if below.as_os_str().is_empty() { self.cover.path.clone() } else { self.cover.path.join(below) }
    }

    fn operation(&mut self, deed: Deed, below: &Path, lower: Option<PathBuf>) {
        let (path, upper) = (self.outside(below), self.upper.join(below));
        self.operations.push(Operation { deed, path, upper, lower, cover: self.number });
    }

    /// Puts the new object there, unless it comes with a tree.
    fn place(&mut self, here: Here<'_>, below: &Path, lower: Option<PathBuf>) {
        if !here.in_tree {
            self.operation(Deed::Place { renamed_from: None, in_tree: false }, below, lower);
        }
    }

    fn change(
        &mut self,
        kind: ChangeKind,
        below: &Path,
        old: Option<&fs::Metadata>,
        new: Option<&fs::Metadata>,
    ) {
        let (lower, upper) = (self.lower.join(below), self.upper.join(below));
        self.changes.push(FileChange {
            path: self.outside(below),
            kind,
            before: old.map(|metadata| words(&lower, metadata)),
            after: new.map(|metadata| words(&upper, metadata)),
            old: old.map(|_| lower),
            new: new.map(|_| upper),
            from: None,
        });
    }

    fn merged_directory(
        &mut self,
        below: &Path,
        old: &fs::Metadata,
        new: &fs::Metadata,
    ) -> Result<(), ScanError> {
        let mark = self.operations.len();
        self.entries(Here { below, has_lower: true, merged: true, in_tree: false })?;
        let lower = self.lower.join(below);
        let (owner_differs, mode_differs) = match self.ancestors.get(below) {
            // Made beforehand: the owner and perhaps the mode are not the original's.
            Some(ancestor) => (false, new.mode() & 0o7777 != ancestor.mode),
            None => ((old.uid(), old.gid()) != (new.uid(), new.gid()), old.mode() != new.mode()),
        };
        let extended_differ = !self.ancestors.contains_key(below) && self.extended_differ(below)?;
        let time = |metadata: &fs::Metadata| (metadata.mtime(), metadata.mtime_nsec());
        // Somebody has set it, to the past or to the future; otherwise entries have come and gone.
        let time_was_set = (time(new) < (self.begun.seconds, self.begun.nanoseconds) || is_to_come(new))
            && time(old) != time(new)
            && !self.begun.is_before_change_of(old)
            && !self.ancestors.contains_key(below);
        if owner_differs || mode_differs || extended_differ || time_was_set {
            self.change(ChangeKind::Metadata, below, Some(old), Some(new));
            self.operation(Deed::Update { content: false }, below, Some(lower));
        } else if self.operations.len() > mark
            && (time(old) != time(new) || self.changes_entries(mark, below))
        {
            self.operation(Deed::Times, below, Some(lower));
        }
        if self.operations.len() > mark {
            let inode = self.ancestors.get(below).and_then(|ancestor| ancestor.inode);
            self.merged.push(Merged::of(self.outside(below), (&self.upper.join(below), new), inode)?);
        }
        Ok(())
    }

    /// Whether one of the last operations is about an entry of this directory, whose time that may change outside.
    fn changes_entries(&self, mark: usize, below: &Path) -> bool {
        let directory = self.outside(below);
        self.operations[mark..].iter().any(|operation| operation.path.parent() == Some(&directory))
    }

    /// Walks the entries of one upper directory, as far as paths reach.
    fn entries(&mut self, here: Here<'_>) -> Result<(), ScanError> {
        let directory = self.upper.join(here.below);
        if is_too_deep(&directory) {
            self.too_deep.push(self.outside(here.below));
            return Ok(());
        }
        if let Some(metadata) = look(&directory)?
            && attributes::is_closed(&metadata, 0o700)
            && !here.in_tree
        {
            self.closed.push(directory.clone());
        }
        let _opened = Opened::directory(&directory).map_err(read(&directory))?;
        let names = names_in_upper(&directory)?;
        if here.has_lower && !here.merged {
            // A directory that took another one's place: what it lacks is deleted.
            let lower = self.lower.join(here.below);
            for name in names_in_lower(&lower)?.difference(&names) {
                if let Some(old) = look(&lower.join(name))? {
                    self.deleted(&here.below.join(name), &old)?;
                }
            }
        }
        for name in names {
            let below = here.below.join(&name);
            // Another cover, or the place where this transaction lives: neither is this overlay's.
            if !below.as_os_str().is_empty() && self.mounted.contains(self.outside(&below).as_path()) {
                continue;
            }
            let Some(new) = look(&directory.join(&name))? else { continue };
            let old = if here.has_lower { look(&self.lower.join(&below))? } else { None };
            self.entry(here, &below, old, &new)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        here: Here<'_>,
        below: &Path,
        old: Option<fs::Metadata>,
        new: &fs::Metadata,
    ) -> Result<(), ScanError> {
        let (lower, upper) = (self.lower.join(below), self.upper.join(below));
        if is_scaffold(&upper, new, (&lower, old.as_ref())).map_err(read(&upper))? {
            if here.in_tree && new.is_dir() {
                self.scaffolds.push(upper);
            }
            return Ok(());
        }
        if new.file_type().is_char_device() && new.rdev() == 0 {
            if let Some(old) = old {
                self.deleted(below, &old)?;
                if !here.in_tree {
                    self.operation(Deed::Remove, below, Some(lower));
                }
            }
            return Ok(());
        }
        if new.is_dir() {
            return self.directory(here, below, old, new);
        }
        match old {
            Some(old) if old.is_dir() || old.file_type() != new.file_type() => {
                self.deleted(below, &old)?;
                self.object(here, below, None, new)
            }
            old => self.object(here, below, old, new),
        }
    }

    fn directory(
        &mut self,
        here: Here<'_>,
        below: &Path,
        old: Option<fs::Metadata>,
        new: &fs::Metadata,
    ) -> Result<(), ScanError> {
        let upper = self.upper.join(below);
        let opaque = attributes::overlay_note(&upper, "opaque")
            .map_err(read(&upper))?
            .is_some_and(|note| note == b"y");
        match old {
            Some(old) if old.is_dir() && here.merged && !opaque && !self.appeared(below, &old)? => {
                self.merged_directory(below, &old, new)
            }
            Some(old) if old.is_dir() => {
                if (old.mode(), old.uid(), old.gid()) != (new.mode(), new.uid(), new.gid()) {
                    self.change(ChangeKind::Metadata, below, Some(&old), Some(new));
                }
                self.place(here, below, Some(self.lower.join(below)));
                self.entries(Here { below, has_lower: true, merged: false, in_tree: true })
            }
            old => {
                if let Some(old) = old {
                    self.deleted(below, &old)?;
                } else if !here.in_tree && self.was_copied_up(below)? {
                    // It was there when the code looked, and is gone outside.
                    let path = self.outside(below);
                    self.orphans.push(Orphan {
                        path,
                        upper,
                        origin: Origin::Known(Vec::new()),
                        was_there: false,
                        in_tree: false,
                    });
                }
                self.change(ChangeKind::Created, below, None, Some(new));
                self.place(here, below, None);
                self.entries(Here { below, has_lower: false, merged: false, in_tree: true })
            }
        }
    }

    /// A directory that was made inside, under a name under which somebody outside made one too: without an index the
    /// kernel does not mark it as new, and shows the two as one.
    fn appeared(&self, below: &Path, old: &fs::Metadata) -> Result<bool, ScanError> {
        Ok(self.begun.is_before_change_of(old) && !self.was_copied_up(below)?)
    }

    fn was_copied_up(&self, below: &Path) -> Result<bool, ScanError> {
        let upper = self.upper.join(below);
        let noted = attributes::overlay_note(&upper, "origin").map_err(read(&upper))?.is_some();
        Ok(noted || self.ancestors.contains_key(below))
    }

    /// Something that is not a directory, over nothing or over something of the same type.
    fn object(
        &mut self,
        here: Here<'_>,
        below: &Path,
        old: Option<fs::Metadata>,
        new: &fs::Metadata,
    ) -> Result<(), ScanError> {
        let (lower, upper) = (self.lower.join(below), self.upper.join(below));
        let mut origin = identity::origin(&upper).map_err(read(&upper))?;
        if let Some(held) = self.links.as_ref().and_then(|links| links.by_inode.get(&(new.dev(), new.ino())))
        {
            origin = Origin::Known(held.clone());
        }
        let same = match (&old, &origin) {
            // A copy of a file with several names has no note.
            (Some(old), Origin::Unnamed) => !here.in_tree && old.nlink() == 1,
            (Some(old), Origin::None) if self.links.is_some() => {
                !here.in_tree && old.nlink() > 1 && new.is_file() && self.is_unclear(below, old, new)?
            }
            // With an index the kernel leaves a note on every copy: what has none is another file, whatever its times.
            (Some(old), Origin::None) => {
                !here.in_tree
                    && !self.has_index
                    && old.nlink() > 1
                    && new.is_file()
                    && identity::same_access(&self.begun, old, new)
            }
            (Some(_), Origin::Known(handle)) => {
                !here.in_tree && identity::handle(&lower).map_err(read(&lower))?.as_ref() == Some(handle)
            }
            _ => false,
        };
        let path = self.outside(below);
        if new.nlink() > 1 {
            self.names.entry((new.dev(), new.ino())).or_default().push((path.clone(), same));
        }
        if let (Some(old), true) = (&old, same) {
            return self.changed(below, old, new);
        }
        let is_old =
            !self.has_index && self.links.is_none() && new.is_file() && !self.begun.is_before_access(new);
        if origin != Origin::None || is_old {
            let (path, was_there, in_tree) = (path.clone(), old.is_some(), here.in_tree);
            self.orphans.push(Orphan { path, upper, origin, was_there, in_tree });
        }
        match &old {
            None => self.change(ChangeKind::Created, below, None, Some(new)),
            Some(old) => {
                let differs = self.differences(below, old, new)?;
                // Another file with the same content is a change where one of the two has other names.
                if differs != Differences::None || (new.is_file() && (old.nlink() > 1 || new.nlink() > 1)) {
                    self.change(differs.kind(), below, Some(old), Some(new));
                }
                self.hidden.push(Hidden { path, lower: lower.clone(), metadata: old.clone() });
            }
        }
        self.place(here, below, old.map(|_| lower));
        Ok(())
    }

    /// Something at a name of a file with several, which is no copy that is held: nobody wrote to such a file here. It
    /// is another file, unless only attributes were set in a way that the monitor is not asked about.
    fn is_unclear(
        &mut self,
        below: &Path,
        old: &fs::Metadata,
        new: &fs::Metadata,
    ) -> Result<bool, ScanError> {
        let is_gone = self.links.as_ref().is_some_and(|links| links.gone.contains(below));
        let (lower, upper) = (self.lower.join(below), self.upper.join(below));
        if is_gone || !links::may_be_copy((&lower, old), (&upper, new)).map_err(read(&upper))? {
            return Ok(false);
        }
        let differs = self.differences(below, old, new)?;
        self.unclear.push(self.outside(below));
        if differs == Differences::None {
            // Nothing but which names share the file; there has to be something to decide about.
            self.change(ChangeKind::Metadata, below, Some(old), Some(new));
        }
        Ok(true)
    }

    /// The same file as before, perhaps changed.
    fn changed(&mut self, below: &Path, old: &fs::Metadata, new: &fs::Metadata) -> Result<(), ScanError> {
        let differs = self.differences(below, old, new)?;
        if differs == Differences::None {
            return Ok(());
        }
        self.change(differs.kind(), below, Some(old), Some(new));
        if differs == Differences::Attributes {
            let extended = self.extended_differ(below)?;
            let (before, after) = attribute_words(old, new, extended);
            if let Some(change) = self.changes.last_mut() {
                change.before = change.before.take().map(|words| words + &before);
                change.after = change.after.take().map(|words| words + &after);
            }
        }
        let lower = self.lower.join(below);
        self.operation(Deed::Update { content: differs == Differences::Content }, below, Some(lower));
        Ok(())
    }

    fn differences(
        &self,
        below: &Path,
        old: &fs::Metadata,
        new: &fs::Metadata,
    ) -> Result<Differences, ScanError> {
        differences((&self.lower.join(below), old), (&self.upper.join(below), new))
    }

    fn extended_differ(&self, below: &Path) -> Result<bool, ScanError> {
        let (lower, upper) = (self.lower.join(below), self.upper.join(below));
        let before = attributes::extended(&lower).map_err(read(&lower))?;
        Ok(before != attributes::extended_in_store(&upper).map_err(read(&upper))?)
    }

    /// Something of the lower tree that is gone, with everything in it.
    fn deleted(&mut self, below: &Path, old: &fs::Metadata) -> Result<(), ScanError> {
        self.change(ChangeKind::Deleted, below, Some(old), None);
        let lower = self.lower.join(below);
        if !old.is_dir() {
            self.hidden.push(Hidden { path: self.outside(below), lower, metadata: old.clone() });
            return Ok(());
        }
        if is_too_deep(&lower) {
            self.too_deep.push(self.outside(below));
            return Ok(());
        }
        for name in names_in_lower(&lower)? {
            if let Some(old) = look(&lower.join(&name))? {
                self.deleted(&below.join(&name), &old)?;
            }
        }
        Ok(())
    }

    /// Finds renames and links, and hands everything over.
    fn finish(mut self, work: &Path, whole: &mut Scan) -> Result<(), ScanError> {
        self.match_links();
        self.match_renames(whole)?;
        self.match_index(work)?;
        whole.changes.append(&mut self.changes);
        whole.operations.append(&mut self.operations);
        whole.merged.append(&mut self.merged);
        whole.closed.append(&mut self.closed);
        whole.too_deep.append(&mut self.too_deep);
        whole.scaffolds.append(&mut self.scaffolds);
        whole.unclear.append(&mut self.unclear);
        Ok(())
    }

    /// A new name of a file that keeps its place becomes a link to it; names of a new file stay together by themselves,
    /// because each of them is renamed into place.
    fn match_links(&mut self) {
        let mut links = Vec::new();
        let mut linked = BTreeSet::new();
        for names in self.names.values() {
            let Some((first, _)) = names.iter().find(|(_, same)| *same) else { continue };
            for (path, _) in names.iter().filter(|(_, same)| !same) {
                linked.insert(path.clone());
                links.push((path.clone(), first.clone()));
            }
        }
        for (path, first) in &links {
            self.link(path, first);
        }
        self.orphans.retain(|orphan| !linked.contains(&orphan.path));
    }

    fn link(&mut self, path: &Path, first: &Path) {
        let deed = Deed::Link { first: first.to_owned() };
        match self.operations.iter_mut().find(|operation| operation.path == *path) {
            Some(operation) => operation.deed = deed,
            // Inside a tree that is new: the tree comes first, the link then replaces the copy in it.
            None => {
                let upper = self.upper.join(path.strip_prefix(&self.cover.path).unwrap_or(path));
                let operation =
                    Operation { deed, path: path.to_owned(), upper, lower: None, cover: self.number };
                self.operations.push(operation);
            }
        }
    }

    fn match_renames(&mut self, whole: &mut Scan) -> Result<(), ScanError> {
        let orphans = std::mem::take(&mut self.orphans);
        if orphans.is_empty() {
            return Ok(());
        }
        let mut hidden = identity::Lost::default();
        for lost in &self.hidden {
            hidden.add(&lost.path, &lost.lower, &lost.metadata);
        }
        let mut renames = Vec::new();
        for orphan in orphans {
            let Some(metadata) = look(&orphan.upper)? else { continue };
            let found = hidden
                .take(&orphan.origin, (&orphan.path, orphan.in_tree), &orphan.upper, &metadata, &self.begun)
                .map_err(read(&orphan.upper))?;
            match found {
                Some(Found::Renamed(from)) => renames.push((orphan, from)),
                Some(Found::AnotherName(first)) => self.link(&orphan.path, &first),
                None if orphan.was_there || orphan.origin == Origin::None => {}
                // Renamed and written to, as far as an ordinary user can tell.
                None if orphan.origin == Origin::Unnamed && !self.hidden.is_empty() => {}
                None => whole.vanished.push(orphan.path),
            }
        }
        self.renamed(renames)
    }

    fn renamed(&mut self, renames: Vec<(Orphan, PathBuf)>) -> Result<(), ScanError> {
        let gone: BTreeSet<PathBuf> = renames.iter().map(|(_, from)| from.clone()).collect();
        let new: HashMap<PathBuf, PathBuf> =
            renames.iter().map(|(orphan, from)| (orphan.path.clone(), from.clone())).collect();
        self.changes.retain(|change| change.kind != ChangeKind::Deleted || !gone.contains(&change.path));
        for change in self.changes.iter_mut().filter(|change| change.kind != ChangeKind::Deleted) {
            if let Some(from) = new.get(&change.path).filter(|from| **from != change.path) {
                change.was_at(from).map_err(read(from))?;
            }
        }
        for operation in &mut self.operations {
            if let (Deed::Place { renamed_from, .. }, Some(from)) =
                (&mut operation.deed, new.get(&operation.path))
            {
                *renamed_from = Some(from.clone());
            }
        }
        for (orphan, from) in renames.into_iter().filter(|(orphan, _)| orphan.in_tree) {
            self.operations.push(Operation {
                deed: Deed::Place { renamed_from: Some(from), in_tree: true },
                path: orphan.path,
                upper: orphan.upper,
                lower: None,
                cover: self.number,
            });
        }
        Ok(())
    }

    /// A file with several names that was changed through one that is then deleted: its content is only in the index.
    fn match_index(&mut self, work: &Path) -> Result<(), ScanError> {
        let linked: Vec<(PathBuf, PathBuf)> = self
            .hidden
            .iter()
            .filter(|hidden| hidden.metadata.is_file() && hidden.metadata.nlink() > 1)
            .map(|hidden| (hidden.path.clone(), hidden.lower.clone()))
            .collect();
        if linked.is_empty() {
            return Ok(());
        }
        for (entry, origin) in self.indexed(work)? {
            let Some(metadata) = look(&entry)? else { continue };
            if !metadata.is_file() || self.names.contains_key(&(metadata.dev(), metadata.ino())) {
                continue;
            }
            for (path, lower) in &linked {
                if identity::handle(lower).map_err(read(lower))?.as_ref() == Some(&origin) {
                    self.operations.push(Operation {
                        deed: Deed::UpdateHidden,
                        path: path.clone(),
                        upper: entry.clone(),
                        lower: Some(lower.clone()),
                        cover: self.number,
                    });
                    break;
                }
            }
        }
        Ok(())
    }

    /// The copies in the kernel's index, or else those that the monitor holds, with the handles of their originals.
    fn indexed(&self, work: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, ScanError> {
        if let Some(links) = &self.links {
            return Ok(links.copies.iter().map(|copy| (copy.at.clone(), copy.handle.clone())).collect());
        }
        let index = identity::index_of(work);
        let mut entries = Vec::new();
        for name in if self.has_index { names_in_upper(&index)? } else { BTreeSet::new() } {
            let entry = index.join(name);
            if let Origin::Known(origin) = identity::origin(&entry).map_err(read(&entry))? {
                entries.push((entry, origin));
            }
        }
        Ok(entries)
    }
}

/// Whether paths of what lies in a directory may be longer than the kernel takes, in the store or where they are put.
fn is_too_deep(directory: &Path) -> bool {
    directory.as_os_str().len() + LONGEST_NAME > LONGEST_PATH
}

/// The names in a directory of the upper tree, which is open.
fn names_in_upper(directory: &Path) -> Result<BTreeSet<OsString>, ScanError> {
    attributes::names_unnoticed(directory).map_err(read(directory))
}

/// The names in a directory of the lower tree; none where the user may not look, since he could not inside either.
fn names_in_lower(directory: &Path) -> Result<BTreeSet<OsString>, ScanError> {
    match attributes::names_unnoticed(directory) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(BTreeSet::new()),
        result => result.map_err(read(directory)),
    }
}

//! What becomes of the origin's descriptors in a contained branch (DESIGN: process state).

use std::{
    collections::HashMap,
    ffi::CString,
    fs,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
};

use tentative_sys::process::{
    copies::PrivateCopy,
    descriptors::{Inherit, Inherited, flags_and_offset, inode_of, same_open_file, stamp_of},
};

use super::{BeginError, copies, own::Own};
use crate::{
    layer::{Layer, LayerSet},
    process::gaps::{Open, Uncontained, leads_to, may_write},
};

/// The plan, with the paths that it points to.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) entries: Vec<Inherited>,
    /// What the branch has instead of deleted files, and their descriptors.
    pub(super) copies: Vec<PrivateCopy>,
    pub(super) owned: Vec<Own>,
    /// Kept alive for the entries.
    _paths: Vec<CString>,
}

impl Plan {
    /// The entry of a file or directory that is opened again by its path.
    fn reopen(
        &mut self,
        entry: Inherited,
        path: PathBuf,
        copied: &[PathBuf],
    ) -> Result<Inherited, BeginError> {
        let number = entry.number;
        // Inside only a file's inode is compared: an overlay has other devices, and other numbers for directories.
        leads_to(&path, number).map_err(|errno| BeginError::Reopen { number, errno })?;
        let inode = inode_inside(number, &path, copied);
        let path = CString::new(path.into_os_string().into_vec())
            .map_err(|_| BeginError::Descriptor { number, kind: Uncontained::Unknown })?;
        self._paths.push(path);
        // The string's bytes stay where they are when the vector grows.
        let path = self._paths.last().map_or(std::ptr::null(), |path| path.as_ptr().cast());
        Ok(Inherited { action: Inherit::Reopen, path, inode, ..entry })
    }
}

/// Plans for every open descriptor of the program's; `captured` output is where the branch has its own, and files directly
/// in a directory that is `copied`, or that are so themselves, are other ones inside.
pub(super) fn plan(
    open: Vec<(i32, Open)>,
    without: LayerSet,
    captured: bool,
    copied: &[PathBuf],
) -> Result<Plan, BeginError> {
    let mut plan = Plan { entries: Vec::new(), copies: Vec::new(), owned: Vec::new(), _paths: Vec::new() };
    let held_elsewhere = held_elsewhere(&open);
    let mut holders = Holders::default();
    for (number, open) in open {
        let (flags, offset) =
            flags_and_offset(number).map_err(|source| BeginError::Inspect { number, source })?;
        let entry = Inherited {
            number,
            action: Inherit::Share,
            path: std::ptr::null(),
            flags,
            original: -1,
            offset: -1,
            inode: 0,
        };
        let entry = match open {
            // Standard streams are shown live; terminals stay terminals.
            Open::Harmless | Open::Terminal(_) => entry,
            Open::Pipe | Open::Socket if number <= 2 || without.contains(Layer::World) => entry,
            Open::Pipe if !may_write(flags) => Inherited { action: Inherit::PipeReader, ..entry },
            Open::Pipe => Inherited { action: Inherit::PipeWriter, ..entry },
            Open::Socket => Inherited { action: Inherit::Socket, ..entry },
            Open::Path(_) | Open::Unlinked | Open::Unnamed(_) if without.contains(Layer::Files) => entry,
            // The branch has its own there.
            _ if captured && is_output(number) => entry,
            // A regular file as standard stream: what is written there is shown, as on a terminal. A deleted one that
            // the program also holds elsewhere is its own: nobody else sees it (pytest captures that way). What cannot
            // be written shows nothing, and a directory leads to everything.
            Open::Path(_) | Open::Unnamed(_) if is_stream(number, flags) => entry,
            Open::Unlinked if is_stream(number, flags) && !held_elsewhere.contains(&number) => entry,
            Open::Unnamed(kind) => return Err(BeginError::Descriptor { number, kind }),
            // Opened by somebody with more rights, who handed it down: to open it again is not the program's right.
            Open::Path(path) if inode_of(number).is_some() && !may_open(&path, flags) => {
                let writes = may_write(flags);
                Inherited { action: if writes { Inherit::PipeWriter } else { Inherit::PipeReader }, ..entry }
            }
            Open::Path(path) => match holders.twin(number) {
                Some(original) => Inherited { action: Inherit::Duplicate, original, ..entry },
                None => plan.reopen(Inherited { offset, ..entry }, path, copied)?,
            },
            // Output that goes to a standard stream under another number is captured with it.
            Open::Unlinked if captured && stream_of(number).is_some() => {
                Inherited { action: Inherit::Stream, original: stream_of(number).unwrap_or(1), ..entry }
            }
            Open::Unlinked => match holders.twin(number) {
                Some(original) => Inherited { action: Inherit::Duplicate, original, ..entry },
                None => {
                    let made = copies::make(number, flags, offset, &plan.copies)?;
                    plan.copies.push(made.copy);
                    plan.owned.extend(made.owned);
                    Inherited { action: Inherit::Copy, original: made.copy.copy, ..entry }
                }
            },
            Open::Uncontained(kind) => return Err(BeginError::Descriptor { number, kind }),
        };
        if matches!(entry.action, Inherit::Reopen | Inherit::Copy) {
            holders.note(number);
        }
        plan.entries.push(entry);
    }
    Ok(plan)
}

/// The inode that the file at a number has inside, for comparison; 0 of one that is a copy there, and of a directory. The
/// copy is of what the path names outside, so that has to be the file that is open.
fn inode_inside(number: i32, path: &Path, copied: &[PathBuf]) -> u64 {
    let Some(inode) = inode_of(number) else { return 0 };
    let is_copied = copied.iter().any(|place| place == path || Some(place.as_path()) == path.parent());
    let is_named = || fs::symlink_metadata(path).is_ok_and(|named| named.ino() == inode);
    if is_copied && is_named() { 0 } else { inode }
}

const fn is_output(number: i32) -> bool {
    matches!(number, 1 | 2)
}

/// Whether a file is an output stream that somebody outside may read.
fn is_stream(number: i32, flags: i32) -> bool {
    is_output(number) && may_write(flags) && inode_of(number).is_some()
}

/// Whether the caller has the rights on a file that these flags of an open file want.
fn may_open(path: &Path, flags: i32) -> bool {
    let wanted = match flags & libc_accmode() {
        0 => Access::READ_OK,
        1 => Access::WRITE_OK,
        _ => Access::READ_OK | Access::WRITE_OK,
    };
    accessat(CWD, path, wanted, AtFlags::EACCESS) != Err(Errno::ACCESS)
}

/// The output stream whose open file a number has.
fn stream_of(number: i32) -> Option<i32> {
    [1, 2].into_iter().find(|stream| same_open_file(*stream, number))
}

/// Output streams that are deleted files which the program holds at another number as well.
fn held_elsewhere(open: &[(i32, Open)]) -> Vec<i32> {
    let deleted = |wanted: fn(i32) -> bool| {
        open.iter().filter(move |(number, open)| *open == Open::Unlinked && wanted(*number)).map(|it| it.0)
    };
    let is_held = |stream: &i32| deleted(|number| number > 2).any(|other| same_open_file(*stream, other));
    deleted(|number| number == 1 || number == 2).filter(is_held).collect()
}

const fn libc_accmode() -> i32 {
    // O_ACCMODE; 0 is read-only.
    3
}

/// The numbers that are planned to have an open file of their own, by the device and inode of the file: only those of one
/// file can share an open one, and comparing each with each takes seconds for thousands.
#[derive(Default)]
struct Holders(HashMap<(u64, u64), Vec<i32>>);

impl Holders {
    /// The number among them that shares its open file with `number`.
    fn twin(&self, number: i32) -> Option<i32> {
        let of_the_file = self.0.get(&file_of(number)?)?;
        of_the_file.iter().copied().find(|other| same_open_file(*other, number))
    }

    fn note(&mut self, number: i32) {
        if let Some(file) = file_of(number) {
            self.0.entry(file).or_default().push(number);
        }
    }
}

fn file_of(number: i32) -> Option<(u64, u64)> {
    stamp_of(number).ok().map(|stamp| stamp.file())
}

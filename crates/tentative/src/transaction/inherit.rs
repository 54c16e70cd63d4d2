//! What becomes of the origin's descriptors in a contained branch (DESIGN: process state).

use std::{ffi::CString, os::unix::ffi::OsStringExt as _};

use tentative_sys::process::descriptors::{Inherit, Inherited, flags_and_offset, inode_of, same_open_file};

use super::BeginError;
use crate::{
    layer::{Layer, LayerSet},
    process::gaps::{Open, Uncontained},
};

/// The plan, with the paths that it points to.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) entries: Vec<Inherited>,
    /// Kept alive for the entries.
    _paths: Vec<CString>,
}

/// Plans for every open descriptor of the program's.
pub(super) fn plan(open: Vec<(i32, Open)>, without: LayerSet) -> Result<Plan, BeginError> {
    let mut plan = Plan { entries: Vec::new(), _paths: Vec::new() };
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
            Open::Harmless | Open::Terminal => entry,
            Open::Pipe | Open::Socket if number <= 2 || without.contains(Layer::World) => entry,
            Open::Pipe if flags & libc_accmode() == 0 => Inherited { action: Inherit::PipeReader, ..entry },
            Open::Pipe => Inherited { action: Inherit::PipeWriter, ..entry },
            Open::Socket => Inherited { action: Inherit::Socket, ..entry },
            Open::Path(_) | Open::Unlinked if without.contains(Layer::Files) => entry,
            // A regular file as standard stream: what is written there is shown, as on a terminal.
            Open::Path(_) | Open::Unlinked if number <= 2 && number > 0 => entry,
            Open::Path(path) => match twin(&plan.entries, number) {
                Some(original) => Inherited { action: Inherit::Duplicate, original, ..entry },
                None => {
                    let path = CString::new(path.into_os_string().into_vec())
                        .map_err(|_| BeginError::Descriptor { number, kind: Uncontained::Unknown })?;
                    plan._paths.push(path);
                    // The string's bytes stay where they are when the vector grows.
                    let path = plan._paths.last().map_or(std::ptr::null(), |path| path.as_ptr().cast());
                    let inode = inode_of(number).unwrap_or(0);
                    Inherited { action: Inherit::Reopen, path, offset, inode, ..entry }
                }
            },
            Open::Unlinked => return Err(BeginError::Unlinked { number }),
            Open::Uncontained(kind) => return Err(BeginError::Descriptor { number, kind }),
        };
        plan.entries.push(entry);
    }
    Ok(plan)
}

const fn libc_accmode() -> i32 {
    // O_ACCMODE; 0 is read-only.
    3
}

/// The number among the planned ones that shares its open file with `number`.
fn twin(planned: &[Inherited], number: i32) -> Option<i32> {
    planned
        .iter()
        .filter(|entry| entry.action == Inherit::Reopen)
        .map(|entry| entry.number)
        .find(|other| same_open_file(*other, number))
}

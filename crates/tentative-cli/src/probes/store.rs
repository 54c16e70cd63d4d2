//! The store's directory: where it is, whether it can be written, whether names can be exchanged in it.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with, statfs, statvfs},
    io::Errno,
};
use tentative_report::units::bytes;

use super::{Failure, Need, Probe};

/// Where the store is, on which file system, with how much space.
pub(super) const PLACE: Probe = Probe {
    name: "store",
    title: "store for pending transactions",
    need: Need::Required,
    attempt: |store| {
        let scratch = Scratch::make(store)?;
        fs::write(scratch.path().join("written"), vec![0; 4096])
            .map_err(|error| unusable("write to it", &error))?;
        let free = statvfs(store).map_err(|errno| Failure::step("ask for its space", errno))?;
        let kind = statfs(store).map_err(|errno| Failure::step("ask for its file system", errno))?;
        Ok(format!(
            "{} on {}, {} free",
            store.display(),
            file_system(u64::try_from(kind.f_type).unwrap_or(0)),
            bytes(free.f_bavail.saturating_mul(free.f_frsize))
        ))
    },
};

/// What transactions of stores that are gone have left on other file systems.
pub(super) const LEFTOVERS: Probe = Probe {
    name: "leftovers",
    title: "nothing is left of stores that are gone",
    need: Need::Optional,
    attempt: |_| {
        let orphans = tentative::files::places::orphans().map_err(|error| unusable("look for it", &error))?;
        match orphans.first() {
            None => Ok("nothing on any file system".to_owned()),
            Some(one) => Err(Failure {
                found: format!(
                    "{} of {}, and {} more",
                    one.place.display(),
                    one.store.display(),
                    orphans.len() - 1
                ),
                remedy: Some("'tentative recover' removes it".to_owned()),
            }),
        }
    },
};

/// Exchanging two names in one step.
pub(super) const EXCHANGE: Probe = Probe {
    name: "rename-exchange",
    title: "exchange of two names on the store's file system",
    need: Need::Optional,
    attempt: |store| {
        let scratch = Scratch::make(store)?;
        let [one, two] = ["one", "two"].map(|name| scratch.path().join(name));
        for path in [&one, &two] {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            fs::write(path, name).map_err(|error| unusable("write a file", &error))?;
        }
        renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).map_err(|errno| {
            Failure::step("exchange two names", errno)
                .remedy("set TENTATIVE_HOME to a directory on ext4, xfs, btrfs or tmpfs")
        })?;
        let exchanged = fs::read(&one).is_ok_and(|content| content == b"two");
        if exchanged {
            Ok("two names were exchanged".to_owned())
        } else {
            Err(Failure { found: "the names were not exchanged".to_owned(), remedy: None })
        }
    },
};

/// A directory in the store that goes away with this.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes the store's directory if it is not there, and a new one in it.
    pub(super) fn make(store: &Path) -> Result<Scratch, Failure> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        builder.recursive(true).create(store).map_err(|error| unusable("make it", &error))?;
        let path = scratch(store, std::process::id());
        builder.recursive(false).create(&path).map_err(|error| unusable("make a directory in it", &error))?;
        Ok(Scratch(path))
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is a mount point of this process goes with it, and is removed by `doctor` afterwards.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what a probe process that has ended could not remove itself.
pub(crate) fn remove_scratch(store: &Path, pid: u32) {
    let scratch = scratch(store, pid);
    // An overlay leaves a directory that even its owner may not list. Most probes have made none.
    let _ = fs::set_permissions(scratch.join("work/work"), fs::Permissions::from_mode(0o700));
    let _ = fs::remove_dir_all(scratch);
}

/// The dot keeps it out of the store's listing of transactions.
fn scratch(store: &Path, pid: u32) -> PathBuf {
    store.join(format!(".doctor-{pid}"))
}

fn unusable(doing: &str, error: &std::io::Error) -> Failure {
    Failure::step(doing, Errno::from_io_error(error).unwrap_or(Errno::IO))
        .remedy("set TENTATIVE_HOME to a directory that you can write to")
}

/// The name of a file system's magic number (statfs(2)).
fn file_system(magic: u64) -> String {
    let name = match magic & 0xffff_ffff {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x6573_5546 => "fuse",
        other => return format!("file system {other:#x}"),
    };
    name.to_owned()
}

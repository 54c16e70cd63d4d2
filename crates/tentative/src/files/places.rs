//! The directories that transactions have on file systems which the store is not on: `MOUNT/.tentative-UID/ID`.
//!
//! Beside each lies `ID.owner`, made before it and removed after it, which names the transaction's directory in its
//! store. Whoever runs the transaction holds a lock on it. With both the places of a store that somebody deleted by
//! hand are told from those of a store that is only out of sight: on a disk that is not mounted, or in another mount
//! namespace.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{
    draft,
    mountinfo::{self, Mount},
    name, tree,
};
use crate::store::{self, Id, StoreError};

/// What the user's number follows in the name of a shared directory.
const SHARED: &str = ".tentative-";
/// What follows the id in the name of an owner file.
const OWNER: &str = ".owner";

/// Which transaction a place belongs to.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    /// The transaction's directory in its store.
    #[serde(with = "name::one")]
    directory: PathBuf,
    /// The store's directory and those above it, from the root on.
    path: Vec<Step>,
}

/// The shared directory can vanish that often while a place is made in it.
const ATTEMPTS: usize = 20;

/// A directory on the way to a store.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Step {
    device: u64,
    inode: u64,
    /// Whether it is on another mount than the one above it.
    mounted: bool,
}

/// A place whose transaction is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The transaction.
    pub id: Id,
    /// Its directory outside the store.
    pub place: PathBuf,
    /// Where its store was.
    pub store: PathBuf,
}

/// `.tentative-UID`: holds the transactions of one user on a file system that the store is not on.
pub(super) fn shared_name() -> String {
    format!("{SHARED}{}", rustix::process::geteuid().as_raw())
}

/// Says whether a name is that of such a directory, whoever's.
pub(super) fn is_shared_name(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix(SHARED));
    number.is_some_and(|number| number.parse::<u32>().is_ok_and(|uid| uid.to_string() == number))
}

/// Says whether a name is one that things in such a directory have.
pub(super) fn is_name_within(name: &OsStr) -> bool {
    let name = name.to_str().unwrap_or_default();
    name.strip_suffix(OWNER).unwrap_or(name).parse::<Id>().is_ok()
}

pub(super) fn is_own_or_absent(shared: &Path) -> bool {
    match fs::symlink_metadata(shared) {
        Ok(metadata) => is_own(&metadata),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn is_own(metadata: &fs::Metadata) -> bool {
    metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0
}

/// Makes a transaction's directory on another file system, with the shared one above it and its owner beside it; returns
/// the lock that says that the transaction is in use.
pub(super) fn make(place: &Path, directory: &Path) -> io::Result<OwnedFd> {
    for _ in 0..ATTEMPTS {
        match try_make(place, directory) {
            // Somebody else's last place was just removed, with the shared directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    try_make(place, directory)
}

fn try_make(place: &Path, directory: &Path) -> io::Result<OwnedFd> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    if let Some(shared) = place.parent() {
        match builder.create(shared) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ if !is_own_or_absent(shared) => return Err(io::ErrorKind::PermissionDenied.into()),
            Ok(()) => store::spread(shared),
            Err(_) => {}
        }
    }
    let store = directory.parent().unwrap_or(directory);
    let owner = Owner { directory: directory.to_owned(), path: steps(store)? };
    let text = serde_json::to_vec(&owner)?;
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(owner_of(place))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    file.write_all(&text)?;
    builder.create(place)?;
    Ok(file.into())
}

/// Removes a place with its owner file, and the shared directory if that is empty then.
pub(crate) fn remove(place: &Path) -> Result<(), StoreError> {
    tree::remove(place)?;
    tree::remove(&owner_of(place))?;
    if let Some(shared) = place.parent() {
        // Other transactions may have theirs there.
        let _ = fs::remove_dir(shared);
    }
    Ok(())
}

fn owner_of(place: &Path) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(OWNER);
    place.with_file_name(name)
}

fn steps(directory: &Path) -> io::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for at in directory.ancestors() {
        let metadata = fs::metadata(at)?;
        let mounted = at.parent().is_some_and(|above| mountinfo::mount_of(above) != mountinfo::mount_of(at));
        steps.push(Step { device: metadata.dev(), inode: metadata.ino(), mounted });
    }
    steps.reverse();
    Ok(steps)
}

/// The user's places on mounted file systems whose transaction is gone from a store that is in sight.
///
/// # Errors
/// When the list of mounts cannot be read.
pub fn orphans() -> io::Result<Vec<Orphan>> {
    let mounts = mountinfo::read()?.visible;
    let mut shared: Vec<PathBuf> = mounts.iter().filter(|mount| !mount.is_file).map(top).collect();
    shared.extend(draft::homes().iter().map(|home| home.join(shared_name())));
    shared.sort();
    shared.dedup();
    let mut orphans = Vec::new();
    for shared in shared {
        if fs::symlink_metadata(&shared).is_ok_and(|metadata| is_own(&metadata)) {
            orphans.extend(orphans_in(&shared));
        }
    }
    orphans.sort_by(|a, b| (&a.id, &a.place).cmp(&(&b.id, &b.place)));
    Ok(orphans)
}

fn top(mount: &Mount) -> PathBuf {
    mount.path.join(shared_name())
}

fn orphans_in(shared: &Path) -> Vec<Orphan> {
    let entries = fs::read_dir(shared).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let ids = names.filter_map(|name| name.strip_suffix(OWNER).and_then(|id| id.parse::<Id>().ok()));
    ids.filter_map(|id| orphan(shared, id)).collect()
}

/// The place of an id if its transaction is gone; none if it is there, in use, or if that cannot be told.
fn orphan(shared: &Path, id: Id) -> Option<Orphan> {
    let place = shared.join(id.as_str());
    let file = fs::File::open(owner_of(&place)).ok()?;
    flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
    let owner: Owner = serde_json::from_reader(&file).ok()?;
    let store = owner.directory.parent()?.to_owned();
    let named_alike = owner.directory.file_name()? == id.as_str();
    (named_alike && is_gone(&owner, &store)).then_some(Orphan { id, place, store })
}

/// Whether the transaction's directory is gone from where it was: the nearest directory above it that is the very same
/// as then must be on the mount that the store was on, and nothing may be mounted below it now. Otherwise the store may
/// be out of sight only.
fn is_gone(owner: &Owner, store: &Path) -> bool {
    let is_absent = |path: &Path| matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
    if !is_absent(&owner.directory) || owner.path.len() != store.ancestors().count() {
        return false;
    }
    let mut mount_below = None;
    for (at, step) in store.ancestors().zip(owner.path.iter().rev()) {
        if !is_absent(at) {
            let (Ok(metadata), Some(mount)) = (fs::metadata(at), mountinfo::mount_of(at)) else {
                return false;
            };
            if mount_below.is_some_and(|below| below != mount) {
                return false;
            }
            if (metadata.dev(), metadata.ino()) == (step.device, step.inode) {
                return true;
            }
            mount_below = Some(mount);
        }
        if step.mounted {
            return false;
        }
    }
    false
}

/// Removes an orphan, unless it has become somebody's meanwhile.
///
/// # Errors
/// What could not be removed.
pub(crate) fn remove_orphan(found: &Orphan) -> Result<bool, StoreError> {
    let shared = found.place.parent().unwrap_or(&found.place);
    if orphan(shared, found.id.clone()).is_none() {
        return Ok(false);
    }
    remove(&found.place).map(|()| true)
}

//! Drafting a plan: which path gets which cover, and where the upper directories go.
//!
//! Drafting only reads. What it decides is made by [`super::plan::Plan::make`] after the plan has been saved.

use std::{
    collections::BTreeSet,
    env, fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, accessat, mknodat};

use crate::{
    containment::Gap,
    files::{
        ancestors, attributes,
        moment::Moment,
        mountinfo::{self, Mount},
        name, places,
        plan::{Cover, CoverKind, Plan, PlanError, Privilege},
    },
    layer::Layer,
    store::Transaction,
};

/// Trees that the sandbox makes itself.
const SANDBOX_OWN: [&str; 3] = ["/proc", "/sys", "/dev"];
/// What of them is covered all the same.
const SHARED_MEMORY: &str = "/dev/shm";

/// File systems that are interfaces of the kernel: showing the host's own inside would be a way out.
const KERNEL: [&str; 22] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// File systems that cannot hold an upper directory: no `RENAME_WHITEOUT`, no attributes, or another overlay.
const NO_UPPER: [&str; 19] = [
    "9p", "afs", "ceph", "cifs", "ecryptfs", "erofs", "exfat", "iso9660", "msdos", "nfs", "nfs4", "ntfs",
    "ntfs3", "overlay", "ramfs", "smb3", "squashfs", "vfat", "virtiofs",
];

/// A file of this size or smaller is copied into a skeleton; a larger one is shown read-only.
const SKELETON_FILE_BYTES: u64 = 16 << 20;

fn can_hold_upper(file_system: &str) -> bool {
    !NO_UPPER.contains(&file_system) && !file_system.starts_with("fuse")
}

/// Decides everything about a plan.
pub(super) fn draft(transaction: &Transaction, privilege: Privilege) -> Result<Plan, PlanError> {
    let found = mountinfo::read().map_err(PlanError::Mounts)?;
    let mounts: Vec<Mount> = found.visible.into_iter().filter(is_ours).collect();
    let mut drafting = Drafting {
        store: transaction.dir(),
        store_mount: mountinfo::mount_of(transaction.dir()),
        mounts: &mounts,
        mount_points: &found.points,
        privilege,
        number: 0,
        covers: Vec::new(),
        places: BTreeSet::new(),
        gaps: Vec::new(),
        homes: homes(),
    };
    drafting.refuse_unfit_store()?;
    for mount in &mounts {
        drafting
            .cover_mount(mount)
            .map_err(|source| PlanError::Prepare { path: mount.path.clone(), source })?;
    }
    drafting.hide(transaction.store_root());
    let mut covers = drafting.covers;
    covers.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Plan {
        privilege,
        begun: Moment::about_now(),
        covers,
        places: drafting.places.into_iter().collect(),
        gaps: drafting.gaps,
        ways: None,
    })
}

fn is_ours(mount: &Mount) -> bool {
    mount.path.starts_with(SHARED_MEMORY) || !SANDBOX_OWN.iter().any(|own| mount.path.starts_with(own))
}

/// Directories on which an ordinary user's writes are likely: tried for upper directories, and copied up beforehand.
pub(super) fn homes() -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = ["HOME", "TMPDIR"]
        .iter()
        .filter_map(|variable| env::var_os(variable).map(PathBuf::from))
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    homes.extend(["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from));
    homes
}

struct Drafting<'a> {
    store: &'a Path,
    store_mount: Option<u64>,
    mounts: &'a [Mount],
    /// Where anything is mounted, reachable or not: the kernel counts all of them.
    mount_points: &'a [PathBuf],
    privilege: Privilege,
    number: usize,
    covers: Vec<Cover>,
    places: BTreeSet<PathBuf>,
    gaps: Vec<Gap>,
    homes: Vec<PathBuf>,
}

impl Drafting<'_> {
    fn refuse_unfit_store(&self) -> Result<(), PlanError> {
        let holder = self.mounts.iter().find(|mount| Some(mount.id) == self.store_mount);
        match holder {
            Some(mount) if !can_hold_upper(&mount.file_system) => Err(PlanError::NoUpper {
                path: self.store.to_owned(),
                file_system: mount.file_system.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn cover_mount(&mut self, mount: &Mount) -> io::Result<()> {
        if KERNEL.contains(&mount.file_system.as_str()) {
            if !mount.is_file && mount.file_system != "autofs" {
                self.push(&mount.path, mount, CoverKind::Masked);
            }
            return Ok(());
        }
        if mount.read_only {
            self.push(&mount.path, mount, CoverKind::ReadOnly);
            return Ok(());
        }
        if mount.is_file {
            return self.cover_file(&mount.path, mount);
        }
        let near = self.place_on(mount);
        if self.privilege == Privilege::User && self.holds_mounts(&mount.path) {
            self.cover_split(&mount.path, mount, near.as_deref())
        } else {
            self.cover_directory(&mount.path, mount, near.as_deref());
            Ok(())
        }
    }

    fn cover_file(&mut self, path: &Path, mount: &Mount) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        if metadata.is_file() && accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS).is_ok() {
            let copy = self.numbered("copy");
            self.push(path, mount, CoverKind::Copy { copy });
        } else {
            self.push(path, mount, CoverKind::ReadOnly);
        }
        Ok(())
    }

    fn holds_mounts(&self, directory: &Path) -> bool {
        let all = self.mount_points.iter().map(PathBuf::as_path).chain(SANDBOX_OWN.map(Path::new));
        all.into_iter().any(|path| path != directory && path.starts_with(directory))
    }

    fn is_mount_point(&self, path: &Path) -> bool {
        self.mounts.iter().any(|mount| mount.path == path)
            || SANDBOX_OWN.iter().any(|own| path == Path::new(own))
    }

    /// Mounts of the outside are locked below `directory`: the kernel wants no overlay over it, so a skeleton stands
    /// for the directory itself and each entry gets a cover of its own.
    fn cover_split(&mut self, directory: &Path, mount: &Mount, near: Option<&Path>) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            // Nobody can look in here: the skeleton above has it, as closed as it is outside.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && directory != mount.path => {
                return Ok(());
            }
            result => result?,
        };
        let skeleton = self.numbered("skeleton");
        self.push_overlay(directory, mount, near, Some(skeleton));
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let metadata = match entry.metadata() {
                Err(error) if was_removed(&error, &path) => continue,
                result => result?,
            };
            if self.is_mount_point(&path) || metadata.is_symlink() {
                continue;
            }
            if metadata.is_dir() {
                if self.holds_mounts(&path) {
                    self.cover_split(&path, mount, near)?;
                } else if !ancestors::has_no_use(&path, &metadata) {
                    self.cover_directory(&path, mount, near);
                }
            } else if !has_own_node(&metadata) && !is_copied_into_skeleton(&path, &metadata) {
                self.push(&path, mount, CoverKind::ReadOnly);
                if metadata.is_file() && ancestors::may_change(&path, &metadata) {
                    let reason = format!("{} is read-only inside: mounts lie beside it", name::shown(&path));
                    self.gaps.push(Gap { layer: Layer::Files, reason });
                }
            }
        }
        Ok(())
    }

    fn cover_directory(&mut self, path: &Path, mount: &Mount, near: Option<&Path>) {
        self.push_overlay(path, mount, near, None);
    }

    fn push_overlay(&mut self, path: &Path, mount: &Mount, near: Option<&Path>, skeleton: Option<PathBuf>) {
        let number = self.number;
        self.number += 1;
        let base = near.filter(|_| can_hold_upper(&mount.file_system)).unwrap_or(self.store);
        let ancestors = match (self.privilege, &skeleton) {
            (Privilege::User, None) => ancestors::for_user(path, &self.homes),
            _ => vec![ancestors::root_of(path, self.privilege)],
        };
        let kind = CoverKind::Overlay {
            lower: skeleton.unwrap_or_else(|| path.to_owned()),
            upper: base.join(format!("upper{number}")),
            work: base.join(format!("work{number}")),
            near: near.map(|near| near.join("near")),
            ancestors,
        };
        self.push(path, mount, kind);
    }

    fn push(&mut self, path: &Path, mount: &Mount, kind: CoverKind) {
        self.covers.push(Cover {
            path: path.to_owned(),
            kind,
            no_suid: mount.no_suid,
            no_exec: mount.no_exec,
        });
    }

    fn hide(&mut self, path: &Path) {
        self.covers.push(Cover {
            path: path.to_owned(),
            kind: CoverKind::Hidden,
            no_suid: true,
            no_exec: true,
        });
    }

    fn numbered(&mut self, kind: &str) -> PathBuf {
        self.number += 1;
        self.store.join(format!("{kind}{}", self.number))
    }

    /// A directory of this transaction on the given mount, so that a commit can rename; the store where it is there.
    fn place_on(&mut self, mount: &Mount) -> Option<PathBuf> {
        if Some(mount.id) == self.store_mount {
            return Some(self.store.to_owned());
        }
        let candidates: Vec<PathBuf> =
            std::iter::once(mount.path.clone()).chain(self.homes.iter().cloned()).collect();
        for candidate in candidates {
            let usable = mountinfo::mount_of(&candidate) == Some(mount.id)
                && accessat(CWD, &candidate, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok();
            let shared = candidate.join(places::shared_name());
            if usable && places::is_own_or_absent(&shared) {
                let place = shared.join(self.store.file_name()?);
                if self.places.insert(place.clone()) {
                    self.hide(&shared);
                }
                return Some(place);
            }
        }
        None
    }
}

/// Whether a skeleton has a node of its own for it: the outside's would reach whoever has it open there.
fn has_own_node(metadata: &fs::Metadata) -> bool {
    metadata.file_type().is_fifo() || metadata.file_type().is_socket()
}

fn is_copied_into_skeleton(path: &Path, metadata: &fs::Metadata) -> bool {
    metadata.is_file()
        && metadata.len() <= SKELETON_FILE_BYTES
        && accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS).is_ok()
}

/// Whether an error means that somebody removed the path meanwhile. Inside another transaction its overlay may say so by
/// a stale handle, and may still find by name what was removed from below it: the directory that it was in is asked too.
pub(super) fn was_removed(error: &io::Error, path: &Path) -> bool {
    let listed = || {
        let mut entries = fs::read_dir(path.parent()?).ok()?.filter_map(Result::ok);
        Some(entries.any(|entry| Some(entry.file_name().as_os_str()) == path.file_name()))
    };
    let says_so = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle);
    says_so && (fs::symlink_metadata(path).is_err() || listed() == Some(false))
}

/// Fills a skeleton: directories empty, symbolic links and small files as they are, the rest as places to mount on.
pub(super) fn make_skeleton(directory: &Path, skeleton: &Path) -> io::Result<()> {
    fs::create_dir_all(skeleton)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match make_in_skeleton(&entry, skeleton) {
            Err(error) if was_removed(&error, &entry.path()) => {}
            result => result?,
        }
    }
    let mode = ancestors::mode_inside(directory, Privilege::User);
    attributes::copy_attributes(directory, skeleton, mode)
}

fn make_in_skeleton(entry: &fs::DirEntry, skeleton: &Path) -> io::Result<()> {
    let (from, to, kind) = (entry.path(), skeleton.join(entry.file_name()), entry.file_type()?);
    if kind.is_dir() {
        fs::create_dir(&to)?;
        return attributes::copy_attributes(&from, &to, ancestors::mode_inside(&from, Privilege::User));
    }
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(&from)?, &to);
    }
    let metadata = entry.metadata()?;
    if has_own_node(&metadata) {
        let kind = FileType::from_raw_mode(metadata.mode());
        mknodat(CWD, &to, kind, Mode::RUSR | Mode::WUSR, 0)?;
        return attributes::copy_attributes(&from, &to, ancestors::mode_inside(&from, Privilege::User));
    }
    if !is_copied_into_skeleton(&from, &metadata) {
        return fs::write(&to, b"");
    }
    attributes::copy_file(&from, &to)?;
    if accessat(CWD, &from, Access::WRITE_OK, AtFlags::EACCESS).is_err() {
        let mode = fs::metadata(&to)?.mode() & 0o7555;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

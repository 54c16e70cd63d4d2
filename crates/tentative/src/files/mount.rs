//! Mounting a plan below a new root.
//!
//! Runs in the process that owns a fresh mount namespace, before `pivot_root`. It never unmounts anything: the mounts end
//! with the namespace. Lower directories are looked up in the namespace's present root.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
        unmount,
    },
};
use tentative_sys::files::mount::{deny_devices, set_read_only};

use crate::files::{
    draft,
    plan::{Cover, CoverKind, Plan, Privilege},
};

/// What the sandbox mounts afresh; covers below it wait for [`Plan::mount_devices`].
const DEVICES: &str = "/dev";

/// Why a cover could not be mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The kernel has no overlays, or does not let this user make them.
    #[error("cannot open an overlay (is the overlay module there?)")]
    Open(#[source] Errno),
    /// An option of an overlay was refused.
    #[error("the overlay over {} does not take '{option}'", path.display())]
    Option {
        /// The covered path.
        path: PathBuf,
        /// The option.
        option: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The overlay could not be made.
    #[error("cannot make the overlay over {}", path.display())]
    Create {
        /// The covered path.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A read-only view, a private copy or an empty directory could not be made.
    #[error("cannot make the cover over {}", path.display())]
    Bind {
        /// The covered path.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The cover could not be put at its path.
    #[error("cannot mount over {}", path.display())]
    Attach {
        /// The path below the new root.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The mount point could not be made.
    #[error("cannot make the mount point {}", path.display())]
    Point {
        /// The path below the new root.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Plan {
    /// Mounts every cover below `new_root`, which becomes the cover of `/`; those below `/dev` are left out.
    ///
    /// # Errors
    /// See [`MountError`]; the namespace is then of no further use.
    pub fn mount(&self, new_root: &Path) -> Result<(), MountError> {
        let mut covers = self.covers.iter().filter(|cover| !cover.path.starts_with(DEVICES));
        covers.try_for_each(|cover| self.mount_one(cover, new_root))
    }

    /// Mounts the covers below `/dev` (`/dev/shm`), after the sandbox has put its own `/dev` below `new_root`.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn mount_devices(&self, new_root: &Path) -> Result<(), MountError> {
        for cover in self.covers.iter().filter(|cover| cover.path.starts_with(DEVICES)) {
            let point = below(new_root, &cover.path);
            if !point.exists() {
                fs::create_dir_all(&point)
                    .map_err(|source| MountError::Point { path: point.clone(), source })?;
            }
            self.mount_one(cover, new_root)?;
        }
        Ok(())
    }

    fn mount_one(&self, cover: &Cover, new_root: &Path) -> Result<(), MountError> {
        let bind = |source| MountError::Bind { path: cover.path.clone(), source };
        let made = match &cover.kind {
            CoverKind::Overlay { lower, upper, work, .. } => match self.overlay(cover, lower, upper, work) {
                // Removed by somebody since the plan was made: there is nothing to cover.
                Err(_) if fs::symlink_metadata(&cover.path).is_err() => return Ok(()),
                result => result?,
            },
            CoverKind::ReadOnly => match self.read_only(cover, &below(new_root, &cover.path)) {
                Err(errno) if draft::was_removed(&errno.into(), &cover.path) => return Ok(()),
                result => result.map_err(bind)?,
            },
            CoverKind::Copy { copy } => open_tree(CWD, copy, CLONE).map_err(bind)?,
            CoverKind::Masked => empty("0555", true).map_err(bind)?,
            CoverKind::Hidden => empty("0700", false).map_err(bind)?,
        };
        let point = below(new_root, &cover.path);
        // A file or directory that somebody made meanwhile, or one that is hidden by a cover: nothing to mount on.
        if cover.kind == CoverKind::Hidden && !point.exists() {
            return Ok(());
        }
        match move_mount(&made, "", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH) {
            Err(error) if draft::was_removed(&error.into(), &cover.path) => Ok(()),
            result => result.map_err(|source| MountError::Attach { path: point, source }),
        }
    }

    fn overlay(&self, cover: &Cover, lower: &Path, upper: &Path, work: &Path) -> Result<OwnedFd, MountError> {
        // Without an index a hard link that is copied up loses its other names. The kernel lets nobody in a user namespace
        // have one, and says so in its log for each overlay that asks: there `links` keeps the names together.
        let index = self.privilege == Privilege::Root;
        let context = match configured(cover, lower, upper, work, index) {
            // The file systems below cannot keep one, where the kernel does not just go without.
            Err(MountError::Create { .. } | MountError::Option { option: "index", .. }) if index => {
                configured(cover, lower, upper, work, false)?
            }
            result => result?,
        };
        // Reading inside must not change the upper files: see `identity` for what their time of access tells.
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOATIME;
        attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, cover.no_suid);
        // Root's overlays would open the devices themselves; those that the sandbox has are in its `/dev`.
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
        attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, cover.no_exec);
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|source| MountError::Create { path: cover.path.clone(), source })
    }

    fn read_only(&self, cover: &Cover, point: &Path) -> Result<OwnedFd, Errno> {
        if cover.path.is_dir()
            && let Ok(mount) = without_upper(cover, point)
        {
            return Ok(mount);
        }
        // A file, a kernel before Linux 6.5, a file system that overlays do not take. An ordinary user's mounts are locked to
        // each other: only the whole tree can be cloned, and what lies below it is covered in its turn.
        let recursive = self.privilege == Privilege::User;
        let flags = if recursive { CLONE | OpenTreeFlags::AT_RECURSIVE } else { CLONE };
        let tree = open_tree(CWD, &cover.path, flags)?;
        set_read_only(&tree, recursive)?;
        deny_devices(&tree, recursive)?;
        Ok(tree)
    }
}

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// The path below another root.
fn below(new_root: &Path, path: &Path) -> PathBuf {
    new_root.join(path.strip_prefix("/").unwrap_or(path))
}

fn configured(
    cover: &Cover,
    lower: &Path,
    upper: &Path,
    work: &Path,
    index: bool,
) -> Result<OwnedFd, MountError> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(MountError::Open)?;
    let failed = |option| move |source| MountError::Option { path: cover.path.clone(), option, source };
    fsconfig_set_string(&context, "source", "tentative").map_err(failed("source"))?;
    match fsconfig_set_string(&context, "lowerdir+", lower) {
        // Before Linux 6.5.
        Err(Errno::INVAL) => fsconfig_set_string(&context, "lowerdir", lower),
        result => result,
    }
    .map_err(failed("lowerdir"))?;
    fsconfig_set_string(&context, "upperdir", upper).map_err(failed("upperdir"))?;
    fsconfig_set_string(&context, "workdir", work).map_err(failed("workdir"))?;
    fsconfig_set_flag(&context, "userxattr").map_err(failed("userxattr"))?;
    fsconfig_set_flag(&context, "volatile").map_err(failed("volatile"))?;
    // In so many words, since kernels differ in what they do unasked.
    fsconfig_set_string(&context, "index", if index { "on" } else { "off" }).map_err(failed("index"))?;
    fsconfig_create(&context).map_err(|source| MountError::Create { path: cover.path.clone(), source })?;
    Ok(context)
}

/// The same tree without an upper directory: read-only, and with FIFOs of its own, which a bind mount would share with the
/// outside. `point` is where it will be mounted: the kernel wants a second directory below, which is an empty one there.
fn without_upper(cover: &Cover, point: &Path) -> Result<OwnedFd, Errno> {
    let attach = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(empty("0555", true)?, "", CWD, point, attach)?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_set_string(&context, "source", "tentative")?;
        fsconfig_set_string(&context, "lowerdir+", &cover.path)?;
        fsconfig_set_string(&context, "lowerdir+", point)?;
        fsconfig_set_flag(&context, "userxattr")?;
        fsconfig_create(&context)?;
        Ok(context)
    });
    unmount(point, UnmountFlags::DETACH)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, cover.no_suid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, cover.no_exec);
    fsmount(context?, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn empty(mode: &str, read_only: bool) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "tentative")?;
    fsconfig_set_string(&context, "mode", mode)?;
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

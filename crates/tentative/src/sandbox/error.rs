//! Why a sandbox could not be built: what is missing on this machine, and the remedy.

use rustix::io::Errno;

use crate::files::plan::Privilege;

/// A step of building, in the order in which init takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Dying with the builder.
    Leash,
    /// Letting go of the builder's descriptors.
    Descriptors,
    /// Mapping the ordinary user's ids.
    OwnUser,
    /// Cutting the mounts off from those outside.
    Private,
    /// Mounting the covers.
    Covers,
    /// A fresh `/proc`.
    Proc,
    /// A read-only `/sys`.
    Sys,
    /// A minimal `/dev`.
    Devices,
    /// The loopback interface.
    Loopback,
    /// Kernel settings read-only.
    Settings,
    /// Changing the root.
    Pivot,
    /// Entering the user namespace of a root user's sandbox.
    Users,
    /// Keeping namespaces of control groups from being made inside.
    ControlGroups,
    /// Being used again.
    Renewal,
}

impl Step {
    const ALL: [Step; 14] = [
        Step::Leash,
        Step::Descriptors,
        Step::OwnUser,
        Step::Private,
        Step::Covers,
        Step::Proc,
        Step::Sys,
        Step::Devices,
        Step::Loopback,
        Step::Settings,
        Step::Pivot,
        Step::Users,
        Step::ControlGroups,
        Step::Renewal,
    ];

    pub(super) fn from_number(number: u8) -> Option<Step> {
        Step::ALL.get(usize::from(number)).copied()
    }

    /// What the step does, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Step::Leash => "tie the sandbox to its builder",
            Step::Descriptors => "let go of the builder's descriptors",
            Step::OwnUser => "map the user's own ids",
            Step::Private => "cut the mounts off from those outside",
            Step::Covers => "mount the covers of the file system",
            Step::Proc => "mount a fresh /proc",
            Step::Sys => "mount a read-only /sys",
            Step::Devices => "make a minimal /dev",
            Step::Loopback => "bring up the loopback interface",
            Step::Settings => "make the kernel's settings read-only",
            Step::Pivot => "change the root directory",
            Step::Users => "enter a user namespace",
            Step::ControlGroups => "keep namespaces of control groups from being made inside",
            Step::Renewal => "use the sandbox again",
        }
    }

    /// What usually helps when the kernel refuses this step.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Step::Covers => {
                "transactions nest two deep; overlays in a user namespace need Linux 5.11 and a file system with extended attributes below the \
                 store; set TENTATIVE_HOME to a directory on ext4, xfs, btrfs or tmpfs, or go without the files: \
                 --without files"
            }
            Step::Proc => {
                "a container that masks parts of /proc forbids a fresh one: start it with --security-opt \
                 systempaths=unconfined, or go without: --without kin"
            }
            Step::OwnUser | Step::Users => "user namespaces are restricted here: see `tentative doctor`",
            _ => "see `tentative doctor`",
        }
    }
}

/// Why a sandbox could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The builder has several threads, so that a fork of it would hold locks that nobody releases.
    #[error("a sandbox can be built only by a process with one thread")]
    Threads,
    /// The kernel refused the namespaces.
    #[error("this machine does not let {who} make namespaces; {remedy}")]
    Namespaces {
        /// Who asked.
        who: &'static str,
        /// What helps.
        remedy: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// No socket to talk to init.
    #[error("cannot talk to the sandbox's first process")]
    Socket(#[source] Errno),
    /// The ids could not be mapped.
    #[error("cannot map the user and group ids of the sandbox")]
    Users(#[source] std::io::Error),
    /// A step inside failed.
    #[error("cannot {}: {detail}; {}", step.name(), step.remedy())]
    Step {
        /// Which.
        step: Step,
        /// On what.
        detail: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// Init ended without a word.
    #[error("the sandbox's first process was killed while the sandbox was being built")]
    Died,
    /// The finished sandbox could not be looked into.
    #[error("cannot look into the sandbox (is /proc mounted, with hidepid off?)")]
    Look(#[source] Errno),
}

impl SandboxError {
    pub(super) fn namespaces(source: Errno, privilege: Privilege) -> SandboxError {
        let who = match privilege {
            Privilege::Root => "root",
            Privilege::User => "an ordinary user",
        };
        let remedy = match source {
            Errno::NOSPC | Errno::USERS => "raise the limits user.max_*_namespaces with sysctl",
            Errno::PERM | Errno::ACCESS => match privilege {
                Privilege::User => {
                    "as root: sysctl kernel.unprivileged_userns_clone=1 \
                     kernel.apparmor_restrict_unprivileged_userns=0 (where they exist); in a container: start it with \
                     --security-opt seccomp=unconfined"
                }
                Privilege::Root => {
                    "in a container: start it with --cap-add SYS_ADMIN or --security-opt seccomp=unconfined"
                }
            },
            Errno::INVAL | Errno::NOSYS => "the kernel lacks a kind of namespace (CONFIG_*_NS)",
            _ => "see `tentative doctor`",
        };
        SandboxError::Namespaces { who, remedy, source }
    }
}

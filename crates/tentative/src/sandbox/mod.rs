//! A sandbox: the namespaces and mounts that a branch or a program runs in.
//!
//! Its first process (init, pid 1 inside) keeps it alive and does nothing else; it dies with the process that built the
//! sandbox, and everything inside dies with it. Nothing of a sandbox outlives init: no process, no mount, no directory.
//! The sandbox never decides what a program may do; the filter and the monitor do.

mod devices;
mod error;
mod guard;
mod init;
mod mounts;
mod renew;
mod report;
mod spawn;
mod users;

pub(crate) use devices::is_harmless;
use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

pub use error::{SandboxError, Step};
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair},
    process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};
pub use spawn::{SpawnError, Spawned};
use tentative_sys::kin::{Cloned, Namespaces, SANDBOX_ROOT_CAPABILITIES, clone_into, exit_now};

use crate::{
    files::plan::{Plan, Privilege},
    layer::{Layer, LayerSet},
};

/// What a sandbox is built from.
#[derive(Clone, Copy, Debug)]
pub struct Blueprint<'a> {
    /// The covers of the file system; none goes without the layer `files`.
    pub plan: Option<&'a Plan>,
    /// An empty directory to build on. It is needed only while building.
    pub point: &'a Path,
    /// Layers to go without, each by name.
    pub without: LayerSet,
    /// What the caller may do about mounts.
    pub privilege: Privilege,
    /// Device nodes of the host that the policy allows, put at the same paths.
    pub devices: &'a [PathBuf],
    /// Whether somebody may want to use it again.
    pub renewable: bool,
}

impl Blueprint<'_> {
    fn contains(&self, layer: Layer) -> bool {
        match layer {
            Layer::Files => self.plan.is_some() && !self.without.contains(layer),
            _ => !self.without.contains(layer),
        }
    }

    /// Whether nobody inside can have a capability.
    fn is_without_power(&self) -> bool {
        self.privilege == Privilege::User
    }

    /// The namespaces of the sandbox, those of users and mounts included.
    #[must_use]
    pub fn namespaces(&self) -> Namespaces {
        let mut namespaces = Namespaces::USER;
        if self.contains(Layer::Files) || self.contains(Layer::Kin) {
            namespaces = namespaces.with(Namespaces::MOUNT);
        }
        if self.contains(Layer::Kin) {
            namespaces = namespaces.with(Namespaces::PID).with(Namespaces::IPC).with(Namespaces::UTS);
            if may_have_control_groups() {
                namespaces = namespaces.with(Namespaces::CGROUP);
            }
        }
        if self.contains(Layer::World) {
            namespaces = namespaces.with(Namespaces::NET);
        }
        namespaces
    }
}

/// Whether this process may make a namespace of control groups: not inside a sandbox, which has one and lets no other be
/// made.
#[must_use]
pub fn may_have_control_groups() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    let setting = || fs::read_to_string(format!("/proc/{}", init::CONTROL_GROUPS));
    *MAY.get_or_init(|| !setting().is_ok_and(|most| most.trim() == "0"))
}

/// How long a sandbox that is to be used again waits for those inside that are just ending.
const ENDING: Duration = Duration::from_millis(10);

/// A sandbox that is up.
#[derive(Debug)]
pub struct Sandbox {
    init: Pid,
    pidfd: OwnedFd,
    namespaces: Namespaces,
    privilege: Privilege,
    proc: OwnedFd,
    root: OwnedFd,
    /// Init ends when this end is closed.
    leash: OwnedFd,
}

/// A sandbox that its init is building. It has to be finished, or its init stays unreaped.
#[derive(Debug)]
#[must_use]
pub struct Starting<'a> {
    blueprint: &'a Blueprint<'a>,
    init: Pid,
    pidfd: OwnedFd,
    leash: OwnedFd,
}

impl Starting<'_> {
    /// Waits until it is up.
    ///
    /// # Errors
    /// See [`SandboxError`]; nothing is left behind.
    pub fn finish(self) -> Result<Sandbox, SandboxError> {
        let Starting { blueprint, init, pidfd, leash } = self;
        let built = Sandbox::finish(blueprint, init, pidfd, leash);
        if built.is_err() {
            // Init has ended by itself or is told so by the closed socket; it must not stay a zombie.
            let _reaped = waitid(WaitId::Pid(init), WaitIdOptions::EXITED);
        }
        built
    }
}

impl Sandbox {
    /// Builds a sandbox; the calling process, which must have one thread, becomes init's parent.
    ///
    /// # Errors
    /// See [`SandboxError`]; nothing is left behind.
    pub fn build(blueprint: &Blueprint<'_>) -> Result<Sandbox, SandboxError> {
        Sandbox::start(blueprint)?.finish()
    }

    /// Lets init begin to build a sandbox, so that the caller can do something else meanwhile.
    ///
    /// # Errors
    /// See [`SandboxError`]; nothing is left behind.
    pub fn start<'a>(blueprint: &'a Blueprint<'a>) -> Result<Starting<'a>, SandboxError> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(SandboxError::Socket)?;
        let all = blueprint.namespaces();
        // A privileged caller mounts with his real privileges; init enters its user namespace afterwards.
        let first = match blueprint.privilege {
            Privilege::Root => all.except(Namespaces::USER),
            Privilege::User => all,
        };
        let user = users::own();
        match clone_into(first) {
            Err(Errno::DEADLK) => Err(SandboxError::Threads),
            Err(source) => Err(SandboxError::namespaces(source, blueprint.privilege)),
            Ok(Cloned::Child) => exit_now(init::run(blueprint, &theirs, user)),
            Ok(Cloned::Parent { pid, pidfd }) => Ok(Starting { blueprint, init: pid, pidfd, leash: ours }),
        }
    }

    fn finish(
        blueprint: &Blueprint<'_>,
        init: Pid,
        pidfd: OwnedFd,
        leash: OwnedFd,
    ) -> Result<Sandbox, SandboxError> {
        loop {
            match report::receive(&leash)? {
                report::Message::WantsUsers => {
                    users::map_everything(init).map_err(SandboxError::Users)?;
                    report::send(&leash, &report::Message::UsersMapped).map_err(SandboxError::Socket)?;
                }
                report::Message::Ready => break,
                report::Message::Failed { step, errno, detail } => {
                    return Err(SandboxError::Step { step, detail, source: errno });
                }
                report::Message::UsersMapped | report::Message::Renew => return Err(SandboxError::Died),
            }
        }
        let number = init.as_raw_nonzero();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open =
            |name: &str| rustix::fs::openat(CWD, format!("/proc/{number}/{name}"), flags, Mode::empty());
        let root = open("root").map_err(SandboxError::Look)?;
        let proc = open("root/proc").map_err(SandboxError::Look)?;
        Ok(Sandbox {
            init,
            pidfd,
            namespaces: blueprint.namespaces(),
            privilege: blueprint.privilege,
            proc,
            root,
            leash,
        })
    }

    /// Pid of init, as the builder numbers it.
    #[must_use]
    pub fn init_pid(&self) -> Pid {
        self.init
    }

    /// Descriptor of init: `setns` on it with [`Sandbox::namespaces`] enters the sandbox.
    #[must_use]
    pub fn init(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The namespaces to enter.
    #[must_use]
    pub fn namespaces(&self) -> Namespaces {
        self.namespaces
    }

    /// The capabilities that a program inside keeps, a bit set for
    /// [`tentative_sys::kin::drop_capabilities_raw`]: none for an ordinary user.
    #[must_use]
    pub fn capabilities(&self) -> u64 {
        match self.privilege {
            Privilege::Root => SANDBOX_ROOT_CAPABILITIES,
            Privilege::User => 0,
        }
    }

    /// The sandbox's root directory, for looking at paths as the inside sees them.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The sandbox's `/proc`.
    #[must_use]
    pub fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// The processes inside besides init, as the sandbox numbers them. Without the layer `kin`: none is known.
    ///
    /// # Errors
    /// When the sandbox's `/proc` cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>, Errno> {
        if !self.namespaces.contains(Namespaces::PID) {
            return Ok(Vec::new());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.proc, ".", flags, Mode::empty())?;
        let mut pids = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let name = entry?.file_name().to_owned();
            if let Some(pid) = name.to_str().ok().and_then(|name| name.parse().ok())
                && pid != 1
            {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// Makes it as it was when it was built, when nobody is left inside and nothing that init can see.
    ///
    /// # Errors
    /// What was left, or why that cannot be told: it must not be used again.
    pub(crate) fn renew(&self) -> Result<(), SandboxError> {
        let end = Instant::now() + ENDING;
        while !self.processes().map_err(SandboxError::Look)?.is_empty() {
            if Instant::now() > end {
                return Err(SandboxError::Look(Errno::BUSY));
            }
            thread::sleep(ENDING / 50);
        }
        report::send(&self.leash, &report::Message::Renew).map_err(SandboxError::Socket)?;
        match report::receive(&self.leash)? {
            report::Message::Ready => Ok(()),
            report::Message::Failed { step, errno, detail } => {
                Err(SandboxError::Step { step, detail, source: errno })
            }
            _ => Err(SandboxError::Died),
        }
    }

    /// Whether the kernel ends everything inside when init ends. Without the layer `kin` init does it itself, unless it is
    /// killed.
    #[must_use]
    pub fn dies_with_init(&self) -> bool {
        self.namespaces.contains(Namespaces::PID)
    }

    /// Kills everything inside without waiting for it.
    pub fn kill(&self) {
        if !self.dies_with_init() && shutdown(&self.leash, Shutdown::Both).is_ok() {
            // Init does it, and ends.
            return;
        }
        // ESRCH: it is dead already.
        let _dead_already = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Kills everything inside and waits until its processes and mounts are gone.
    ///
    /// Processes inside that are children of this process must be reaped by it, before or from another thread;
    /// those of another process are waited for.
    ///
    /// # Errors
    /// When init is not this process's child any more.
    pub fn destroy(self) -> Result<(), Errno> {
        self.end().wait()
    }

    /// Kills everything inside; what waits for its end can do something else before.
    pub fn end(self) -> Ending {
        self.kill();
        // The rest of it holds mounts of the sandbox.
        Ending { init: Some(self.init) }
    }
}

/// A sandbox in which everything was killed.
#[derive(Debug)]
#[must_use]
pub struct Ending {
    init: Option<Pid>,
}

impl Ending {
    /// One that was waited for already.
    pub(crate) const fn over() -> Ending {
        Ending { init: None }
    }

    /// Waits until its processes and mounts are gone.
    ///
    /// # Errors
    /// When init is not this process's child any more.
    pub fn wait(self) -> Result<(), Errno> {
        let Some(init) = self.init else { return Ok(()) };
        loop {
            match waitid(WaitId::Pid(init), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
    }
}

/// The directory that a sandbox is built on: one of the plan's, or else a new one in `directory`.
///
/// # Errors
/// When it cannot be made.
pub fn make_point(plan: Option<&Plan>, directory: &Path) -> std::io::Result<PathBuf> {
    if let Some(point) = plan.and_then(Plan::point) {
        return Ok(point.to_owned());
    }
    let point = directory.join("root");
    match plan.map(|_| fs::create_dir(&point)) {
        Some(Err(error)) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        // Without covers nothing is built on it.
        _ => Ok(point),
    }
}

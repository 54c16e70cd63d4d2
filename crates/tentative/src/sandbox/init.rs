//! Init: pid 1 of a sandbox. It builds the sandbox from inside and then waits for its builder to end.
//!
//! This code runs in a child forked from a process with one thread: it may allocate, but it never returns to the
//! builder's frames and never writes to the builder's files. It keeps its capabilities, which keeps programs inside
//! from tracing it: init itself is not filtered. Without the layer `kin` it ends what is left inside when its builder is gone.

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{MountPropagationFlags, OpenTreeFlags, open_tree},
    process::{Signal, set_parent_process_death_signal},
};
use tentative_sys::{
    kin::{Namespaces, SignalQueue, close_all_but, ignore_children, reset_signals, unshare},
    world::loopback_up,
};

use super::{
    Blueprint, devices,
    error::Step,
    guard, may_have_control_groups, mounts,
    renew::Unused,
    report::{self, Message},
    users,
};
use crate::{files::plan::Privilege, layer::Layer};

/// Every signal that can be blocked.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

/// How many namespaces of control groups the processes of a user namespace may have, below `/proc`.
pub(super) const CONTROL_GROUPS: &str = "sys/user/max_cgroup_namespaces";

/// Why a step failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) errno: Errno,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn new(errno: Errno, detail: impl Into<String>) -> Failure {
        Failure { errno, detail: detail.into() }
    }

    pub(super) fn io(error: &io::Error, detail: impl Into<String>) -> Failure {
        Failure { errno: Errno::from_io_error(error).unwrap_or(Errno::IO), detail: detail.into() }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure { errno, detail: errno.to_string() }
    }
}

/// What the steps share.
pub(super) struct Building<'a> {
    pub(super) blueprint: &'a Blueprint<'a>,
    socket: &'a OwnedFd,
    user: (u32, u32),
    /// A `/proc` with nothing mounted on it, for the last steps.
    proc: Cell<Option<OwnedFd>>,
}

type Act = fn(&Building<'_>) -> Result<(), Failure>;

const STEPS: &[(Step, Act)] = &[
    (Step::Leash, leash),
    (Step::Descriptors, descriptors),
    (Step::OwnUser, own_user),
    (Step::Private, private),
    (Step::Covers, mounts::covers),
    (Step::Proc, mounts::proc),
    (Step::Sys, mounts::sys),
    (Step::Devices, devices::devices),
    (Step::Loopback, loopback),
    (Step::Settings, mounts::settings),
    (Step::Pivot, mounts::pivot),
    (Step::Users, enter_users),
    (Step::ControlGroups, no_control_groups),
];

/// Builds the sandbox, reports, and waits for the builder's end. Returns the exit status of init.
///
/// `user` is the builder's user and group; in a new user namespace they read as nobody's until they are mapped.
pub(super) fn run(blueprint: &Blueprint<'_>, socket: &OwnedFd, user: (u32, u32)) -> i32 {
    let building = Building { blueprint, socket, user, proc: Cell::new(None) };
    let built = catch_unwind(AssertUnwindSafe(|| build(&building)));
    let Ok(true) = built else { return 1 };
    ignore_children();
    let unused = Unused::look(&building);
    // A pid namespace ends with init; without one what is inside has to be ended.
    let guarded = if blueprint.contains(Layer::Kin) { None } else { guarded() };
    if report::send(socket, &Message::Ready).is_err() {
        return 0;
    }
    // Ends when the builder closes its end or dies; nobody else has it.
    while let Ok(Message::Renew) = report::receive(socket) {
        let renewed = match &unused {
            Some(unused) => unused.renew(&building),
            None => Err(Errno::NOTSUP.into()),
        };
        let answer = match renewed {
            Ok(()) => Message::Ready,
            Err(Failure { errno, detail }) => Message::Failed { step: Step::Renewal, errno, detail },
        };
        if report::send(socket, &answer).is_err() {
            break;
        }
    }
    if let Some((proc, _signals)) = guarded {
        guard::end_all(&proc);
    }
    0
}

/// Makes init outlive a builder that is killed; none when it cannot: then what is inside lives on until a recovery.
fn guarded() -> Option<(OwnedFd, SignalQueue)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(CWD, "/proc", flags, Mode::empty()).ok()?;
    // Nobody looks at them: they are only to be kept from ending it.
    let signals = SignalQueue::open(&SIGNALS.collect::<Vec<_>>()).ok()?;
    guard::detach().ok()?;
    Some((proc, signals))
}

fn build(building: &Building<'_>) -> bool {
    for (step, act) in STEPS {
        if let Err(Failure { errno, detail }) = act(building) {
            // When the builder is gone nobody is interested.
            let _nobody_listens =
                report::send(building.socket, &Message::Failed { step: *step, errno, detail });
            return false;
        }
    }
    true
}

fn leash(_: &Building<'_>) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    reset_signals(false);
    Ok(())
}

fn descriptors(building: &Building<'_>) -> Result<(), Failure> {
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Failure::new(errno, "/dev/null"))?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    close_all_but(building.socket.as_fd())?;
    // Its number is closed already.
    std::mem::forget(null);
    Ok(())
}

fn own_user(building: &Building<'_>) -> Result<(), Failure> {
    if building.blueprint.privilege == Privilege::Root {
        return Ok(());
    }
    let (uid, gid) = building.user;
    users::map_own(uid, gid).map_err(|error| Failure::io(&error, error.to_string()))
}

fn private(building: &Building<'_>) -> Result<(), Failure> {
    if !building.blueprint.namespaces().contains(Namespaces::MOUNT) {
        return Ok(());
    }
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(|errno| Failure::new(errno, "/"))
}

fn loopback(building: &Building<'_>) -> Result<(), Failure> {
    if building.blueprint.contains(Layer::World) {
        loopback_up()?;
        if building.blueprint.privilege == Privilege::Root {
            // The capability for low ports counts in the namespace's owner, which is not the sandbox's.
            mounts::allow_low_ports()?;
        }
    }
    Ok(())
}

/// Lets nobody inside make a namespace of control groups. Who owns one can mount the host's control groups, those of the
/// processes outside with them, and write to what his user owns.
fn no_control_groups(building: &Building<'_>) -> Result<(), Failure> {
    if !may_have_control_groups() {
        // Inside another sandbox, whose limit holds here, too.
        return Ok(());
    }
    let failed = |errno: Errno| Failure::new(errno, format!("/proc/{CONTROL_GROUPS}: {errno}"));
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let setting = match building.proc.take() {
        Some(proc) => openat(proc, CONTROL_GROUPS, flags, Mode::empty()),
        None => openat(CWD, format!("/proc/{CONTROL_GROUPS}"), flags, Mode::empty()),
    };
    match setting {
        // A kernel without these namespaces.
        Err(Errno::NOENT) => Ok(()),
        other => rustix::io::write(other.map_err(failed)?, b"0").map(drop).map_err(failed),
    }
}

fn enter_users(building: &Building<'_>) -> Result<(), Failure> {
    if building.blueprint.privilege == Privilege::User {
        return Ok(());
    }
    // While it may: root's `/proc/sys` is read-only, and what lies on it is not copied with it.
    let proc = open_tree(CWD, "/proc", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    building.proc.set(proc.ok());
    unshare(Namespaces::USER)?;
    report::send(building.socket, &Message::WantsUsers)?;
    match report::receive(building.socket) {
        Ok(Message::UsersMapped) => Ok(()),
        _ => Err(Failure::new(Errno::PIPE, "the builder is gone")),
    }
}

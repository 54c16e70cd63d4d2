//! `tentative run`: the whole path of one program in one process, which is monitor and launcher at once.
//!
//! Build the sandbox, fork the program into it, serve its notifications until it ends, destroy the sandbox, look at what
//! changed, judge, save the record. It never decides about the transaction: the caller commits, keeps or discards. If the
//! runner is killed at any moment everything inside is killed with it.

mod ended;
mod inherited;
mod launch;
mod leftovers;
pub mod output;
mod terminal;
mod watch;

use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

pub use ended::{Ended, How};
pub use launch::LaunchStep;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::getpid,
};
use tentative_sys::kin::{receive_fd, session_of};

use crate::{
    files::{
        links::Links,
        plan::{Plan, PlanError, Privilege},
    },
    layer::{Layer, LayerSet},
    monitor::{Monitor, Origin, Outer, Scope},
    pathways,
    policy::Policy,
    process::place::working_directory,
    sandbox::{Blueprint, Ending, Sandbox, SandboxError, SpawnError, make_point},
    store::{StoreError, Transaction},
    transaction::Output,
    world::allowed_devices,
};

/// What to run, and how.
#[derive(Clone, Debug, Default)]
pub struct ProgramOptions {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Which crossings are let through.
    pub policy: Policy,
    /// Layers to go without, each by name.
    pub without: LayerSet,
    /// Where the program's output goes; capturing is holding.
    pub output: Output,
    /// TERM after this time, KILL 5 seconds later.
    pub timeout: Option<Duration>,
    /// Bytes of address space that each process inside may have.
    pub memory_limit: Option<u64>,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// No program was named.
    #[error("no program to run")]
    NoProgram,
    /// The working directory is gone.
    #[error("cannot find out the working directory")]
    Directory(#[source] std::io::Error),
    /// The covers could not be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The directory that the sandbox is built on could not be made.
    #[error("cannot make a directory in {}", path.display())]
    Point {
        /// The transaction's directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The sandbox could not be built: this machine cannot contain what was asked.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The program's process could not be made.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A step of the new process failed.
    #[error("cannot {} for the program", step.name())]
    Launch {
        /// Which.
        step: LaunchStep,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The program could not be executed.
    #[error("cannot execute {}", program.display())]
    Execute {
        /// The program.
        program: PathBuf,
        /// Why: `ENOENT` when it was not found.
        #[source]
        source: Errno,
    },
    /// The new process died before it ran the program.
    #[error("the new process was killed before it ran the program")]
    Died,
    /// Signals, sockets or pipes of the runner could not be made.
    #[error("cannot prepare to watch the program")]
    Prepare(#[source] Errno),
    /// Waiting for the program failed.
    #[error("cannot watch the program")]
    Watch(#[source] Errno),
    /// This would be a transaction inside a transaction inside a transaction.
    #[error("transactions nest two deep, as the kernel's overlays do: this one would be the third")]
    TooDeep,
    /// The monitor of the transaction around this one does not answer.
    #[error("cannot reach the monitor of the transaction around this one")]
    Outer(#[source] Errno),
    /// Nothing could be written beside the upper directories.
    #[error("cannot keep files with several names together")]
    Links(#[source] std::io::Error),
    /// Held output could not be kept.
    #[error("cannot keep the program's output")]
    Hold(#[source] std::io::Error),
    /// The sandbox did not go away.
    #[error("cannot wait for the sandbox to go away")]
    Destroy(#[source] Errno),
    /// The changes could not be found.
    #[error("cannot find out what changed")]
    Changes(#[source] crate::files::changes::ScanError),
    /// The record could not be saved.
    #[error(transparent)]
    Save(#[from] StoreError),
}

impl RunError {
    /// Whether the program may have changed something by then: the transaction is to be kept, not discarded.
    #[must_use]
    pub const fn has_run(&self) -> bool {
        matches!(
            self,
            RunError::Watch(_)
                | RunError::Hold(_)
                | RunError::Destroy(_)
                | RunError::Changes(_)
                | RunError::Save(_)
                | RunError::Outer(_)
        )
    }
}

/// Runs a program in the transaction and says how it ended; when there is something to decide, the record and the plan are
/// saved with the transaction.
///
/// The calling process must have one thread.
///
/// # Errors
/// See [`RunError`]; nothing is left of the sandbox. The transaction can be kept if the program [has run](RunError::has_run)
/// and discarded if not.
pub fn run(options: &ProgramOptions, transaction: &mut Transaction) -> Result<Ended, RunError> {
    let (ended, ending) = run_and_look(options, transaction)?;
    ending.wait().map_err(RunError::Destroy)?;
    Ok(ended)
}

/// Does the same without waiting for the sandbox's mounts to go. Nobody inside is left, so that what was written can be
/// discarded meanwhile; whoever keeps or commits it waits first.
///
/// # Errors
/// As [`run`].
pub fn run_and_look(
    options: &ProgramOptions,
    transaction: &mut Transaction,
) -> Result<(Ended, Ending), RunError> {
    let program = options.argv.first().ok_or(RunError::NoProgram)?;
    let began = Instant::now();
    let started_ns = crate::monitor::now_ns();
    let directory = working_directory().map_err(RunError::Directory)?;
    let outer = Outer::find(&options.policy).map_err(|errno| match errno {
        Errno::MLINK => RunError::TooDeep,
        errno => RunError::Outer(errno),
    })?;
    let privilege = Privilege::detect();
    let plan = match options.without.contains(Layer::Files) {
        true => None,
        false => Some(Plan::make(transaction, privilege)?),
    };
    leftovers::adopt(options.without)?;
    let point = make_point(plan.as_ref(), transaction.dir())
        .map_err(|source| RunError::Point { path: transaction.dir().to_owned(), source })?;
    let devices = allowed_devices(&options.policy);
    let (plan, without) = (plan.as_ref(), options.without);
    let inherited = inherited::Inherited::look(options.output == Output::Live);
    let blueprint =
        Blueprint { plan, point: &point, without, privilege, devices: &devices, renewable: false };
    let starting = Sandbox::start(&blueprint)?;
    // While init builds.
    let noted = transaction.save_record(&ended::running(options, transaction, started_ns));
    let filter = pathways::compile(without, privilege);
    let mut monitor = Monitor::new(&options.policy);
    inherited.record(monitor.log_mut());
    let sandbox = starting.finish()?;
    noted?;

    let launch = launch::Launch {
        options,
        program,
        directory: &directory,
        filter,
        id: transaction.id().to_string(),
        capabilities: sandbox.capabilities(),
        inherited: &inherited,
        outer: outer.as_ref(),
    };
    let ended = supervise(&launch, &sandbox, &mut monitor, (transaction, plan))?;
    let left = leftovers::end(&sandbox, options.without, monitor.log_mut());
    if let Some(outer) = &outer {
        let effects = outer.effects().map_err(RunError::Outer)?;
        effects.into_iter().for_each(|effect| monitor.log_mut().add(effect));
    }
    let effects = monitor.effects();
    // It holds descriptors of the sandbox's mounts.
    drop(monitor);
    let mut ending = sandbox.end();
    if left > 0 {
        ending.wait().map_err(RunError::Destroy)?;
        ending = Ending::over();
    }
    // Nobody is left who could write, so looking at the changes need not wait for the mounts to go.
    let found = ended::look(plan)?;
    if let Some(mut held) = ended.held {
        // Everybody who could write is gone: this reads to the end.
        held.drain().map_err(RunError::Hold)?;
    }
    let done = ended::Done {
        how: ended.how,
        timed_out: ended.timed_out,
        is_inside: outer.is_some(),
        started_ns,
        duration: began.elapsed(),
        effects,
        found,
    };
    Ok((ended::conclude(done, options, transaction, plan)?, ending))
}

fn supervise(
    launch: &launch::Launch<'_>,
    sandbox: &Sandbox,
    monitor: &mut Monitor,
    (transaction, plan): (&Transaction, Option<&Plan>),
) -> Result<watch::Watched, RunError> {
    let options = launch.options;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(RunError::Prepare)?;
    let held = match options.output {
        Output::Live => None,
        Output::Hold | Output::Capture => {
            Some(output::Held::open(transaction.dir()).map_err(RunError::Hold)?)
        }
    };
    let signals = watch::take_signals().map_err(RunError::Prepare)?;
    let terminal = terminal::Terminal::open();
    let spawned = sandbox.spawn(|| launch.run(&theirs, terminal.as_ref(), held.as_ref()))?;
    drop(theirs);
    // Without one the launch has failed and says why, or the monitor around this transaction serves it.
    let listener = if launch.outer.is_none() { receive_fd(&ours).ok() } else { None };
    if let Some(listener) = listener {
        let origin = Origin {
            parent: getpid().as_raw_nonzero().get(),
            group: None,
            session: session_of(0).unwrap_or(0),
            children: Vec::new(),
        };
        let mut scope = Scope::new(sandbox, origin, options.without).map_err(RunError::Prepare)?;
        scope.main = spawned.pid.as_raw_nonzero().get();
        scope.links = plan.map(Links::of).transpose().map_err(RunError::Links)?.flatten();
        monitor.add_listener(listener, scope);
    }
    let watch = watch::Watch {
        program: &spawned,
        sandbox,
        signals: &signals,
        launch: ours,
        terminal: terminal.as_ref(),
        held,
        deadline: options.timeout.map(|timeout| Instant::now() + timeout),
    };
    let watched = watch.run(monitor);
    if let Some(terminal) = &terminal {
        terminal.take_back();
    }
    match watched? {
        watch::Outcome::Ended(watched) => Ok(watched),
        watch::Outcome::NotLaunched(Some((LaunchStep::Execute, source))) => {
            Err(RunError::Execute { program: launch.program.into(), source })
        }
        watch::Outcome::NotLaunched(Some((step, source))) => Err(RunError::Launch { step, source }),
        watch::Outcome::NotLaunched(None) => Err(RunError::Died),
    }
}

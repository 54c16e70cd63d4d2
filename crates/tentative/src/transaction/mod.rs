//! The transaction of a live process: begin, and one of commit and rollback.
//!
//! `begin` returns twice, like fork: [`Begun::Inside`] in the branch, and [`Begun::Ended`] in the origin when the
//! branch was rolled back. After a commit it is [`Branch::commit`] that returns, in the origin, whose memory is then
//! the branch's. The caller flushes its buffers and runs its fork handlers around `begin`; this module knows no
//! interpreter.

mod capture;
pub(crate) mod copies;
mod error;
mod inherit;
mod link;
mod own;
mod report;
mod shown;

use std::{
    ffi::CString,
    io,
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use capture::Capture;

pub use error::{BeginError, CommitRefused, Refusal};
use link::{Asked, Session};
use own::Own;
pub use report::{Cause, MemoryChanges, Report};
pub use tentative_sys::transplant::{Departed, Elsewhere, Identity, Place};
use tentative_sys::{
    kin::{Namespaces, Terminals},
    process::offsets::Offsets,
    threads::quiesce::quiesce,
    transplant::{self, Entry, Wishes},
};

use crate::{
    containment::{Containment, Gap},
    effect::{Effect, put_first},
    layer::{Layer, LayerSet},
    live::protocol::{Findings, Ready},
    pathways,
    policy::Policy,
    process::{
        changes::Attributes,
        gaps::{Open, open_descriptors},
        place::working_directory,
    },
};

/// What becomes of output on the standard streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Shown as it comes.
    #[default]
    Live,
    /// Kept with the transaction and delivered by its commit.
    Hold,
    /// Returned to the caller.
    Capture,
}

/// What a transaction wants.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Layers that are not to be contained.
    pub without: LayerSet,
    /// Rolls back when the branch runs longer.
    pub timeout: Option<Duration>,
    /// Bytes of address space that the branch may add; `MEMORY_LIMIT_BY` says how.
    pub memory_limit: Option<u64>,
    /// Crossings that are let through.
    pub policy: Policy,
    /// What becomes of output.
    pub output: Output,
    /// Returns [`Begun::Frozen`] in the origin before a commit.
    pub decide: bool,
    /// The `tentative` executable, which serves as the monitor.
    pub executable: Option<PathBuf>,
    /// What `show` and `list` say that ran.
    pub program: Vec<String>,
}

/// Where `begin` returned.
#[derive(Debug)]
pub enum Begun {
    /// In the branch.
    Inside(Branch),
    /// In the origin: the branch asks for its commit and waits.
    Frozen(Frozen),
    /// In the origin: rolled back.
    Ended(Ended),
}

/// The branch's handle.
#[derive(Debug)]
pub struct Branch {
    inner: transplant::Branch,
    after: Afterwards,
    before: Attributes,
}

/// The origin's handle on a branch that asks for its commit.
#[derive(Debug)]
pub struct Frozen {
    inner: transplant::Frozen,
    after: Afterwards,
    needed: Needed,
}

/// What the commit of a frozen branch reads when the frame of `begin` is gone. After that commit the memory is the
/// branch's, where none of it was kept.
#[derive(Debug)]
struct Needed {
    _entry: Option<Box<Entry>>,
    /// The entry points into it.
    _plan: Option<inherit::Plan>,
}

/// A transaction that was rolled back, seen in the origin.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub cause: Cause,
    /// What the branch handed over.
    pub payload: Option<Vec<u8>>,
    /// What it did.
    pub report: Box<Report>,
    /// How long it ran.
    pub duration: Duration,
    /// The files of the transaction, until this is dropped.
    pub files: Files,
}

/// The files of a transaction whose memory is rolled back: discarded when this is dropped, unless they are kept.
#[derive(Debug)]
pub struct Files {
    session: Option<Session>,
    /// What the session does not know of.
    shown: Vec<Effect>,
}

/// A transaction that was committed, seen in the origin after it. The process that was its branch is reaped when this
/// is dropped: until then the kernel takes that process's memory down while the origin goes on.
#[derive(Debug)]
pub struct Committed {
    /// What it did.
    pub report: Box<Report>,
    /// How long it ran.
    pub duration: Duration,
    /// The process that was the branch.
    pub departed: Departed,
}

/// What the origin needs when the branch has ended. The branch has a copy, which it must not use.
#[derive(Debug)]
struct Afterwards {
    offsets: Offsets,
    terminals: Terminals,
    session: Option<Session>,
    capture: Option<Capture>,
    /// Descriptors of the branch's copies of deleted files.
    copies: Vec<Own>,
    output: Output,
    containment: Containment,
    started: Instant,
    /// Streams that somebody outside sees.
    shown: Vec<Effect>,
}

/// Begins a transaction.
///
/// # Errors
/// What cannot be contained, before anything has happened.
pub fn begin(options: &Options) -> Result<Begun, BeginError> {
    let begun = try_to_begin(options);
    if begun.is_err() {
        link::after_transaction();
    }
    begun
}

fn try_to_begin(options: &Options) -> Result<Begun, BeginError> {
    // The session is woken first: it answers while this process looks at itself.
    let asked = if link::is_needed(options) { Some(Session::ask(options)?) } else { None };
    let open = program_descriptors()?;
    let mut before = Attributes::with_descriptors(open.clone());
    let directory = named_directory(asked.is_some())?;
    let numbers = || open.iter().map(|(number, _)| *number);
    let (offsets, terminals) = (Offsets::capture(numbers()), Terminals::capture(numbers()));
    let mut session = asked.map(Asked::session).transpose()?;
    let captured = matches!(options.output, Output::Hold | Output::Capture);
    let streams = shown::streams(&open, captured);
    let capture = captured.then(Capture::new).transpose().map_err(BeginError::Output)?;
    let mut plan = match &mut session {
        Some(session) => Some(prepare(session, options, open, captured)?),
        None => None,
    };
    let stand_ins = plan.iter().flat_map(|plan| plan.entries.iter().filter(|entry| entry.is_pipe()));
    stand_ins.for_each(|entry| before.expect_stand_in(entry.number));
    let entry = session.as_ref().zip(plan.as_ref()).map(|(session, plan)| {
        Box::new(Entry {
            init: session.init(),
            namespaces: session.ready.namespaces,
            namespaces_of_branch: session.ready.namespaces_of_branch,
            same_pid: !options.without.contains(Layer::Kin),
            filter: pathways::compile(options.without, crate::files::plan::Privilege::detect()),
            outer: session.outer(),
            monitor: session.socket(),
            own: own::numbers(),
            journal: session.journal().into_bytes_with_nul(),
            capabilities: session.ready.capabilities,
            // Entering a mount namespace, which `kin` has too for its /proc, leads to its root directory.
            directory: if enters_mounts(&session.ready) {
                directory.into_bytes_with_nul()
            } else {
                Vec::new()
            },
            inherited: plan.entries.as_ptr(),
            inherited_len: plan.entries.len(),
            copies: plan.copies.as_ptr(),
            copies_len: plan.copies.len(),
        })
    });
    let wishes = Wishes {
        timeout: options.timeout,
        memory_limit: options.memory_limit,
        decide: options.decide,
        entry: entry.as_deref(),
        output: capture.as_ref().map(Capture::descriptors),
    };
    let after = Afterwards {
        offsets,
        terminals,
        output: options.output,
        containment: containment_of(options, session.as_ref()),
        started: Instant::now(),
        shown: shown::look(streams, plan.as_ref()),
        copies: plan.as_mut().map(|plan| std::mem::take(&mut plan.owned)).unwrap_or_default(),
        session: None,
        capture: None,
    };
    let begun = transplant::begin(&wishes);
    // The plan's paths and the filter were needed up to here, in either process.
    let after = Afterwards { session, capture, ..after };
    match begun {
        Ok(transplant::Begun::Inside(inner)) => {
            own::enter_branch(inner.marks());
            Ok(Begun::Inside(Branch { inner, after, before }))
        }
        Ok(transplant::Begun::Frozen(inner)) => {
            Ok(Begun::Frozen(Frozen { inner, after, needed: Needed { _entry: entry, _plan: plan } }))
        }
        Ok(transplant::Begun::Ended(ended)) => Ok(Begun::Ended(after.ended(ended))),
        Err(error) => Err(failed(error, plan.as_ref())),
    }
}

fn enters_mounts(ready: &Ready) -> bool {
    (ready.namespaces | ready.namespaces_of_branch) & Namespaces::MOUNT.bits() != 0
}

/// Tells the session what comes, and plans for the descriptors.
fn prepare(
    session: &mut Session,
    options: &Options,
    open: Vec<(i32, Open)>,
    captured: bool,
) -> Result<inherit::Plan, BeginError> {
    session.start(options)?;
    inherit::plan(open, options.without, captured, &session.ready.copied)
}

fn failed(error: transplant::BeginError, plan: Option<&inherit::Plan>) -> BeginError {
    BeginError::of(error, plan.map_or(&[], |plan| &plan.entries))
}

/// The working directory; where it is entered again, its path has to lead there.
fn named_directory(is_entered: bool) -> Result<CString, BeginError> {
    let directory = if is_entered { working_directory() } else { std::env::current_dir() };
    let directory = directory.map_err(BeginError::Directory)?;
    CString::new(directory.into_os_string().into_vec())
        .map_err(|_| BeginError::Directory(io::ErrorKind::InvalidInput.into()))
}

/// How far a branch is contained: as its session says, or by what was asked for.
fn containment_of(options: &Options, session: Option<&Session>) -> Containment {
    Containment::from_gaps(match session {
        Some(session) => session.ready.gaps.clone(),
        None => options.without.iter().map(Gap::without).collect(),
    })
}

/// What the program has open, if all of it can be contained.
fn program_descriptors() -> Result<Vec<(i32, Open)>, BeginError> {
    let mut open = open_descriptors().map_err(BeginError::ListDescriptors)?;
    let known = own::numbers();
    open.retain(|(number, _)| !known.contains(number));
    for (number, open) in &open {
        if let Open::Uncontained(kind) = open {
            return Err(BeginError::Descriptor { number: *number, kind: *kind });
        }
    }
    Ok(open)
}

impl Branch {
    /// Commits: on `Ok` the caller is the origin process with the branch's memory.
    ///
    /// # Errors
    /// The reasons; the caller is still the branch and goes on. Or it is somebody else, and nothing has happened.
    pub fn commit(&mut self) -> Result<Committed, CommitRefused> {
        if let Err(elsewhere) = self.place().check() {
            return Err(CommitRefused { reasons: vec![Refusal::Elsewhere(elsewhere)] });
        }
        if let Some(number) = own::number_in_use_by_the_program() {
            return Err(CommitRefused { reasons: vec![Refusal::DescriptorTaken { number }] });
        }
        let marks = self.inner.marks();
        let committed = self.inner.commit()?;
        // In the origin: the numbers of the session's descriptors are its own again.
        own::leave_branch(marks);
        let mut report = self.after.report_of_commit(committed.counts.into());
        // Layer 4 is the branch's by now, and what it opened is where it belongs.
        report.add_changes(self.before.changes(&own::numbers()));
        let duration = self.after.started.elapsed();
        self.after.close();
        Ok(Committed { report, duration, departed: committed.departed })
    }

    /// Ends the branch; `begin` returns in the origin with the payload.
    ///
    /// # Panics
    /// If the caller is not the branch but its child, another thread, or inside another transaction.
    pub fn rollback(&mut self, payload: &[u8]) -> ! {
        self.inner.rollback(payload)
    }

    /// Ends the branch if it is the caller; returns who it is otherwise, and nothing has happened.
    pub fn try_rollback(&mut self, payload: &[u8]) -> Elsewhere {
        match self.place().check() {
            Ok(()) => self.rollback(payload),
            Err(elsewhere) => elsewhere,
        }
    }

    /// Where the branch's code runs. What a child, another thread or a transaction inside asks this handle for is refused.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.inner.place()
    }

    /// What the branch has changed and touched so far, memory excepted.
    ///
    /// # Panics
    /// If the caller is not the branch.
    pub fn report(&mut self) -> Box<Report> {
        let mut findings: Findings = serde_json::from_slice(&self.inner.look()).unwrap_or_default();
        put_first(&self.after.shown, &mut findings.effects);
        let containment = self.after.containment.clone();
        let mut report = Report::new(containment, MemoryChanges::default(), findings, Default::default());
        report.add_changes(self.before.changes(&own::numbers()));
        Box::new(report)
    }

    /// What has changed in layer 4 so far: asks nobody.
    #[must_use]
    pub fn process_changes(&self) -> Vec<crate::change::Change> {
        self.before.changes(&own::numbers())
    }

    /// What the branch has changed in memory so far.
    ///
    /// # Panics
    /// If the caller is not the branch.
    pub fn memory_changes(&mut self) -> MemoryChanges {
        self.inner.measure().into()
    }

    /// How far the branch is contained.
    #[must_use]
    pub fn containment(&self) -> &Containment {
        &self.after.containment
    }
}

impl Frozen {
    /// Sees that no other thread runs in the origin, whose code has run meanwhile: a commit would take its memory from
    /// under it, and the wait for a branch that goes on would not see what it asks for. Pools that fork handlers end are ended.
    ///
    /// # Errors
    /// Other threads run; the branch can be rolled back only.
    pub fn may_commit(&self) -> Result<(), CommitRefused> {
        match quiesce() {
            Ok(1) => Ok(()),
            _ => Err(CommitRefused { reasons: vec![Refusal::OriginThreads] }),
        }
    }

    /// Commits; returns only when that is refused and the branch has gone on to something else. The caller is the only
    /// thread, see [`Frozen::may_commit`].
    #[must_use]
    pub fn commit(self) -> Begun {
        match self.inner.commit() {
            transplant::Begun::Frozen(inner) => {
                Begun::Frozen(Frozen { inner, after: self.after, needed: self.needed })
            }
            transplant::Begun::Ended(ended) => Begun::Ended(self.after.ended(ended)),
            transplant::Begun::Inside(_) => unreachable!("only begin returns in the branch"),
        }
    }

    /// Rolls back.
    #[must_use]
    pub fn rollback(self) -> Ended {
        let report = self.report();
        let mut ended = self.after.ended(self.inner.rollback());
        ended.report = report;
        ended
    }

    /// What the frozen branch did.
    #[must_use]
    pub fn report(&self) -> Box<Report> {
        self.after.report(MemoryChanges::default())
    }

    /// How long it has run.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.after.started.elapsed()
    }
}

impl Files {
    /// Keeps them as a pending transaction; returns its id.
    ///
    /// # Errors
    /// Why not, in words: there are none, or the monitor is gone.
    pub fn keep(&self) -> Result<String, String> {
        let session = self.session.as_ref().ok_or_else(|| "there are no files to keep".to_owned())?;
        session.keep(&self.shown)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.session = None;
        link::after_transaction();
    }
}

impl Afterwards {
    fn report(&self, memory: MemoryChanges) -> Box<Report> {
        self.report_with(Session::findings, memory)
    }

    fn report_of_commit(&self, memory: MemoryChanges) -> Box<Report> {
        self.report_with(Session::awaited_findings, memory)
    }

    fn report_with(
        &self,
        ask: impl FnOnce(&Session) -> Option<Findings>,
        memory: MemoryChanges,
    ) -> Box<Report> {
        let mut findings = match &self.session {
            Some(session) => ask(session).unwrap_or_else(|| session.after_death()),
            None => Findings::default(),
        };
        put_first(&self.shown, &mut findings.effects);
        let (stdout, stderr) = self.capture.as_ref().map(Capture::read).unwrap_or_default();
        Box::new(Report::new(self.containment.clone(), memory, findings, (stdout, stderr)))
    }

    /// The session ends with its socket; held output is delivered.
    fn close(&mut self) {
        self.session = None;
        self.copies.clear();
        link::after_transaction();
        if let Some(capture) = self.capture.take()
            && self.output == Output::Hold
        {
            capture.deliver();
        }
    }

    fn ended(self, ended: transplant::Ended) -> Ended {
        self.offsets.restore();
        self.terminals.restore();
        Ended {
            cause: Cause::of(ended.ending),
            payload: ended.payload,
            report: self.report(MemoryChanges::default()),
            duration: self.started.elapsed(),
            files: Files { session: self.session, shown: self.shown },
        }
    }
}

//! The files of a session's transaction, from the empty covers to the commit: one state after the other.

use std::{
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::protocol::Findings;
use crate::{
    change::{Change, ChangeKind},
    containment::{Containment, Gap},
    files::{
        apply::Published,
        basis::Basis,
        changes::changes,
        conflict::{Conflict, ConflictKind, conflicts},
        links::Links,
        moment::Moment,
        plan::{CoverKind, Plan, PlanError, Privilege},
        seal::{self, Sealed},
        stage::{StageError, StageOptions, Staged, stage},
    },
    record::{FORMAT, Record, State},
    sandbox::make_point,
    store::{Store, StoreError, Transaction},
    verdict::Verdict,
};

/// Why there is nothing to build a sandbox on.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    #[error("the file systems cannot be covered")]
    Plan(#[from] PlanError),
    #[error("cannot make a directory in {}", path.display())]
    Point {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Why a commit cannot go on; the branch does.
#[derive(Debug)]
pub(super) enum Refused {
    /// In words, a line each.
    Words(Vec<String>),
    /// Others changed what it would change.
    Conflicts(Vec<Conflict>),
}

impl Refused {
    fn by(error: &dyn std::error::Error) -> Refused {
        Refused::Words(vec![in_words(error)])
    }
}

/// Where the files are in their life.
#[derive(Debug)]
enum Stage {
    /// The code runs, or could run again.
    Open(Transaction),
    /// Nothing was written: a commit has nothing to do.
    Untouched(Transaction),
    Staged(Staged),
    Published(Published),
    /// Committed or kept: nothing is left to clean up here.
    Settled,
}

/// How old a sandbox may be to be used again: others go on changing what is below its overlays.
const USED_AGAIN_FOR: Duration = Duration::from_secs(10);

/// The files of one transaction; without the layer only the place in the store is used.
#[derive(Debug)]
pub(super) struct Files {
    stage: Stage,
    plan: Option<Plan>,
    /// What the plan was made from.
    basis: Option<Basis>,
    id: String,
    directory: PathBuf,
    point: PathBuf,
    made: Instant,
    /// How the covers were when the sandbox was ready.
    seal: Option<Vec<Sealed>>,
}

impl Files {
    pub(super) fn make(covered: bool, privilege: Privilege) -> Result<Files, FilesError> {
        let transaction = Store::open_default()?.create()?;
        let (plan, basis) = if covered {
            match Plan::make_ahead(&transaction, privilege) {
                Ok((plan, basis)) => (Some(plan), Some(basis)),
                Err(error) => {
                    // The plan's error is the one to tell; recover removes what is left.
                    let _removed_by_recover = transaction.discard();
                    return Err(error.into());
                }
            }
        } else {
            (None, None)
        };
        let directory = transaction.dir().to_owned();
        let point = match make_point(plan.as_ref(), &directory) {
            Ok(point) => point,
            Err(source) => {
                let _removed_by_recover = transaction.discard();
                return Err(FilesError::Point { path: directory, source });
            }
        };
        Ok(Files {
            id: transaction.id().to_string(),
            stage: Stage::Open(transaction),
            plan,
            basis,
            directory,
            point,
            made: Instant::now(),
            seal: None,
        })
    }

    /// The sandbox is up: notes how the covers are. This process's monitor is going to keep links.
    pub(super) fn seal(&mut self) {
        let announced = self.plan.as_ref().is_some_and(|plan| Links::announce(plan).is_ok());
        self.seal = announced.then(|| self.sealed()).flatten();
    }

    /// Whether the plan is still that of what is outside.
    pub(super) fn is_current(&self) -> bool {
        self.plan.iter().zip(&self.basis).all(|(plan, basis)| basis.holds(plan))
    }

    /// Whether all is as it was then, and it is young enough to be used for another transaction.
    pub(super) fn is_as_new(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
            && self.made.elapsed() < USED_AGAIN_FOR
            && self.seal.is_some()
            && self.sealed() == self.seal
    }

    fn sealed(&self) -> Option<Vec<Sealed>> {
        let mut seal = self.plan.as_ref()?.seal().ok()??;
        // What the transaction has of its own besides, in the store.
        seal.push(seal::directory(&self.directory).ok()?);
        Some(seal)
    }

    pub(super) fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    pub(super) fn point(&self) -> &Path {
        &self.point
    }

    pub(super) fn id(&self) -> String {
        self.id.clone()
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.directory.clone()
    }

    pub(super) fn gaps(&self) -> Vec<Gap> {
        self.plan.as_ref().map(|plan| plan.gaps.clone()).unwrap_or_default()
    }

    /// Directories whose files are copies inside, and single files that are.
    pub(super) fn copied(&self) -> Vec<PathBuf> {
        let covers = self.plan.iter().flat_map(|plan| &plan.covers);
        let copied = covers.filter(|cover| match &cover.kind {
            CoverKind::Overlay { lower, .. } => *lower != cover.path,
            CoverKind::Copy { .. } => true,
            CoverKind::ReadOnly | CoverKind::Masked | CoverKind::Hidden => false,
        });
        copied.map(|cover| cover.path.clone()).collect()
    }

    /// The sandbox was built ahead; only what others change from now on is a conflict.
    pub(super) fn begin_now(&mut self) {
        if let (Some(plan), Ok(now)) = (&mut self.plan, Moment::now(&self.directory)) {
            plan.begun = now;
        }
    }

    /// Changes so far, and what others have changed meanwhile, in words.
    pub(super) fn look(&self, origin: i32) -> (Vec<Change>, Vec<String>) {
        let Some(plan) = &self.plan else { return Default::default() };
        if plan.is_untouched().unwrap_or(false) {
            return Default::default();
        }
        let changes = changes(plan).map(|all| all.iter().map(|change| change.to_change()).collect());
        let mut changes: Vec<Change> = changes.unwrap_or_default();
        let conflicts = match conflicts(plan, Some(origin)) {
            Ok(found) => {
                made_by_us(&mut changes, &found);
                found.iter().map(ToString::to_string).collect()
            }
            Err(error) => vec![format!("the changes cannot be compared: {error}")],
        };
        (changes, conflicts)
    }

    /// Stages, or says why not; the branch goes on then.
    pub(super) fn stage(&mut self, origin: i32) -> Result<(), Refused> {
        let Stage::Open(transaction) = std::mem::replace(&mut self.stage, Stage::Settled) else {
            return Err(Refused::Words(vec!["the transaction is over".to_owned()]));
        };
        let untouched = self.plan.as_ref().is_none_or(|plan| plan.is_untouched().unwrap_or(false));
        if untouched {
            self.stage = Stage::Untouched(transaction);
            return Ok(());
        }
        if let Some(plan) = &self.plan
            && let Err(error) = transaction.save_plan(plan)
        {
            self.stage = Stage::Open(transaction);
            return Err(Refused::by(&error));
        }
        match stage(transaction, StageOptions { origin: Some(origin) }) {
            Ok(staged) => {
                self.stage = Stage::Staged(staged);
                Ok(())
            }
            Err((transaction, error)) => {
                self.stage = Stage::Open(transaction);
                Err(match error {
                    StageError::Conflicts(conflicts) => Refused::Conflicts(conflicts),
                    other => Refused::by(&other),
                })
            }
        }
    }

    pub(super) fn abandon(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Settled) {
            Stage::Staged(staged) => match staged.abandon() {
                Ok(transaction) => Stage::Open(transaction),
                // Its directory stays for recover, which discards it.
                Err(_) => Stage::Settled,
            },
            Stage::Untouched(transaction) => Stage::Open(transaction),
            other => other,
        };
    }

    /// Opens what a path will name after the commit.
    pub(super) fn open(&self, path: &[u8], flags: i32) -> io::Result<OwnedFd> {
        let path = Path::new(OsStr::from_bytes(path));
        let flags = OFlags::from_bits_retain(flags as u32);
        match &self.stage {
            Stage::Staged(staged) => staged.open_committed(path, flags),
            _ => Ok(openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?),
        }
    }

    /// The commit point.
    pub(super) fn publish(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.stage, Stage::Settled) {
            Stage::Staged(staged) => {
                let published = staged.publish().map_err(|error| in_words(&error))?;
                self.stage = Stage::Published(published);
            }
            other => self.stage = other,
        }
        Ok(())
    }

    /// Whether a commit has no file to publish.
    pub(super) fn is_untouched(&self) -> bool {
        matches!(self.stage, Stage::Untouched(_))
    }

    /// Whether applying will touch a file.
    pub(super) fn has_work(&self) -> bool {
        matches!(self.stage, Stage::Published(_))
    }

    pub(super) fn is_decided(&self) -> bool {
        matches!(self.stage, Stage::Published(_) | Stage::Settled)
    }

    /// Puts the files in place; after the commit point an error is left to `recover`.
    pub(super) fn apply(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.stage, Stage::Settled) {
            Stage::Published(published) => {
                let applied = published.apply().map_err(|error| in_words(&error))?;
                let kept = applied.kept().to_vec();
                applied.finish().map_err(|error| in_words(&error))?;
                if kept.is_empty() { Ok(()) } else { Err(kept_in_words(&kept)) }
            }
            other => {
                self.stage = other;
                Ok(())
            }
        }
    }

    /// Makes the files a pending transaction of the store, if any was changed.
    pub(super) fn keep(
        &mut self,
        program: &[String],
        (started_ns, duration_ns): (u64, u64),
        findings: &Findings,
        gaps: Vec<Gap>,
    ) -> Result<(), String> {
        self.abandon();
        let (Stage::Open(transaction), Some(plan)) = (&mut self.stage, &self.plan) else {
            return Err("there are no files to keep".to_owned());
        };
        // What could not be looked at is kept.
        if findings.changes.is_empty() && changes(plan).is_ok_and(|all| all.is_empty()) {
            return Err("no file was changed".to_owned());
        }
        let containment = Containment::from_gaps(gaps);
        let record = Record {
            format: FORMAT.to_owned(),
            id: self.id.clone(),
            state: State::Pending,
            program: program.to_vec(),
            exit_status: None,
            started_ns,
            duration_ns,
            changes: findings.changes.clone(),
            effects: findings.effects.clone(),
            verdict: Verdict::judge(&findings.effects, &containment, &findings.conflicts),
            containment,
        };
        let kept = transaction
            .save_plan(plan)
            .and_then(|()| transaction.save_record(&record))
            .and_then(|()| transaction.add_effects(&findings.effects))
            .and_then(|()| transaction.keep());
        kept.map_err(|error| in_words(&error))?;
        self.stage = Stage::Settled;
        Ok(())
    }

    /// Removes what was not committed or kept; `recover` removes what cannot be removed now.
    pub(super) fn discard(self) {
        if let Stage::Staged(staged) = self.stage {
            if let Ok(transaction) = staged.abandon() {
                let _removed_by_recover = transaction.discard();
            }
        } else if let Stage::Open(transaction) | Stage::Untouched(transaction) = self.stage {
            let _removed_by_recover = transaction.discard();
        }
    }
}

/// What others made meanwhile looks as if the branch had changed it, but it made it too: when theirs is removed, ours
/// can be committed.
fn made_by_us(changes: &mut [Change], conflicts: &[Conflict]) {
    for conflict in conflicts.iter().filter(|conflict| conflict.kind == ConflictKind::Appeared) {
        for change in changes.iter_mut().filter(|change| change.path().as_ref() == Some(&conflict.path)) {
            change.kind = ChangeKind::Created;
            change.before = None;
            change.before_hex = None;
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    words
}

/// What others made or wrote after the commit point is not lost, and whoever committed is told where it is.
fn kept_in_words(kept: &[PathBuf]) -> String {
    let paths: Vec<String> = kept.iter().map(|path| path.display().to_string()).collect();
    format!("all is in place; what others made there meanwhile is kept as {}", paths.join(", "))
}

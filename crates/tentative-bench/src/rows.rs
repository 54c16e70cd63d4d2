//! The rows about whole commands: what each runs, and against what.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    fixture::{Fixture, MODULES},
    pairs::{Row, print, timed},
    worker::Worker,
};

/// Measures every row, or the one whose name is given, and prints it.
///
/// # Errors
///
/// When something that should be measured fails.
pub fn measure(tentative: &Path, pairs: usize, only: Option<&str>) -> Result<()> {
    let fixture = Fixture::new()?;
    let bench = Bench { tentative: tentative.to_owned(), pairs, fixture };
    let rows: [(&str, Measure); 4] = [
        ("true", Bench::start_and_end),
        ("import", Bench::python_imports),
        ("status", Bench::git_status),
        ("unpack", Bench::unpack_and_delete),
    ];
    if let Some(unknown) = only.filter(|only| rows.iter().all(|(name, _)| name != only)) {
        let known: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("no row {unknown:?}; there are {}", known.join(", "));
    }
    for (_, row) in rows.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        row(&bench)?;
    }
    Ok(())
}

/// Measures and prints one row.
type Measure = fn(&Bench) -> Result<()>;

/// What all rows share.
struct Bench {
    tentative: PathBuf,
    pairs: usize,
    fixture: Fixture,
}

impl Bench {
    /// `tentative run --rollback -- …` in the fixture's store.
    fn tentative(&self) -> Command {
        let mut command = Command::new(&self.tentative);
        command.args(["run", "--rollback", "--"]).env("TENTATIVE_HOME", self.fixture.store());
        command.stderr(Stdio::null());
        command
    }

    /// A worker inside a transaction, or wherever else a command puts it.
    fn worker(&self, command: &mut Command, at: &Path) -> Result<Worker> {
        Worker::start(command.arg(env::current_exe()?).arg("worker").current_dir(at))
    }

    /// The cost of a whole transaction around a program that does nothing.
    fn start_and_end(&self) -> Result<()> {
        let row = Row {
            what: "tentative run --rollback -- /bin/true",
            against: "bwrap --unshare-all --dev-bind / / /bin/true",
            at_most: 2.0,
        };
        let succeed = |command: &mut Command| -> Result<()> {
            let status = command.stdin(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
            ensure!(status.success(), "{command:?} ended with {status}");
            Ok(())
        };
        let bubblewrap = ["--unshare-all", "--dev-bind", "/", "/", "/bin/true"];
        print(
            row,
            self.pairs,
            || timed(|| succeed(self.tentative().arg("/bin/true"))),
            || timed(|| succeed(Command::new("bwrap").args(bubblewrap))),
        )
    }

    /// Starting Python and importing 30 modules: reading many small files.
    fn python_imports(&self) -> Result<()> {
        let row = Row { what: "start Python, import 30 modules, inside", against: "outside", at_most: 1.1 };
        let python = env::var_os("BENCH_PYTHON").unwrap_or_else(|| OsStr::new("python3").to_owned());
        let command = format!("'{}' -B -c 'import {}'", python.to_string_lossy(), MODULES.join(", "));
        let mut inside = self.worker(&mut self.tentative(), self.fixture.path())?;
        let mut outside = Worker::start(Command::new(env::current_exe()?).arg("worker"))?;
        print(row, self.pairs, || inside.time(&command), || outside.time(&command))
    }

    /// Looking at 50,000 files.
    fn git_status(&self) -> Result<()> {
        let row = Row { what: "git status in 50,000 files", against: "a bare overlay mount", at_most: 1.1 };
        let tree = self.fixture.repository()?;
        let command = format!("cd '{}' && git status", tree.display());
        self.inside_against_overlay(row, &tree, &command)
    }

    /// Making and deleting 5,000 files.
    fn unpack_and_delete(&self) -> Result<()> {
        let row =
            Row { what: "unpack and delete 5,000 files", against: "a bare overlay mount", at_most: 1.1 };
        let place = self.fixture.archive()?;
        // The bare overlay's user is root of his own namespace there, where tar would give files to nobody.
        let command = format!(
            "cd '{}' && mkdir new && tar --no-same-owner -xf files.tar -C new && rm -r new",
            place.display()
        );
        self.inside_against_overlay(row, &place, &command)
    }

    /// The same command in a transaction and over a bare overlay.
    fn inside_against_overlay(&self, row: Row, tree: &Path, command: &str) -> Result<()> {
        let mut inside = self.worker(&mut self.tentative(), tree)?;
        let mut bare = self.worker(&mut self.fixture.over_bare_overlay(tree)?, tree)?;
        print(row, self.pairs, || inside.time(command), || bare.time(command))
    }
}

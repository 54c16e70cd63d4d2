//! The trees that the rows work on, and a bare overlay mount to compare with.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// How many files the repository has.
const REPOSITORY_FILES: usize = 50_000;
/// How many files the archive has.
const ARCHIVE_FILES: usize = 5_000;

/// Modules of Python's own library that one start imports.
pub const MODULES: [&str; 30] = [
    "argparse",
    "ast",
    "asyncio",
    "base64",
    "bz2",
    "calendar",
    "concurrent.futures",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "email.message",
    "fractions",
    "http.client",
    "inspect",
    "json",
    "logging",
    "lzma",
    "multiprocessing",
    "pickle",
    "pydoc",
    "random",
    "sqlite3",
    "statistics",
    "subprocess",
    "tarfile",
    "unittest",
    "xml.dom.minidom",
];

/// A directory with what the rows need, removed at the end.
#[derive(Debug)]
pub struct Fixture {
    directory: TempDir,
}

impl Fixture {
    /// Makes an empty one on the file system of /var/tmp, which is a disk where /tmp may be memory.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made.
    pub fn new() -> Result<Fixture> {
        let directory = tempfile::Builder::new().prefix("tentative-bench-").tempdir_in("/var/tmp")?;
        Ok(Fixture { directory })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A store for the transactions of this run.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Makes a committed git repository of 50,000 files; returns where it is.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or there is no git.
    pub fn repository(&self) -> Result<PathBuf> {
        let tree = self.path().join("tree");
        write_files(&tree, REPOSITORY_FILES)?;
        let identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"];
        for step in [&["init", "-q"][..], &["add", "-A"], &["commit", "-q", "-m", "files"], &["status"]] {
            run(Command::new("git").args(identity).args(step).current_dir(&tree))?;
        }
        Ok(tree)
    }

    /// Makes an archive of 5,000 files in a directory of its own; returns the directory.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn archive(&self) -> Result<PathBuf> {
        let place = self.path().join("place");
        let packed = self.path().join("packed");
        write_files(&packed, ARCHIVE_FILES)?;
        fs::create_dir(&place)?;
        run(Command::new("tar").args(["-cf"]).arg(place.join("files.tar")).arg(".").current_dir(&packed))?;
        fs::remove_dir_all(&packed)?;
        Ok(place)
    }

    /// A command that runs a program with one bare overlay mounted over a directory, which the program starts in.
    ///
    /// # Errors
    ///
    /// When the directories of the overlay cannot be made.
    pub fn over_bare_overlay(&self, lower: &Path) -> Result<Command> {
        const SCRIPT: &str =
            "mount -t overlay -o $OPTIONS overlay \"$LOWER\" && cd \"$LOWER\" && exec \"$@\"";
        let upper = tempfile::tempdir_in(self.path())?.keep();
        let (data, work) = (upper.join("data"), upper.join("work"));
        fs::create_dir(&data)?;
        fs::create_dir(&work)?;
        let root = rustix::process::geteuid().is_root();
        let mut options = format!("lowerdir={},upperdir={},workdir=", lower.display(), data.display());
        write!(options, "{}{}", work.display(), if root { "" } else { ",userxattr" })?;
        let mut command = Command::new("unshare");
        command.arg(if root { "-m" } else { "-Urm" }).args(["--", "sh", "-c", SCRIPT, "sh"]);
        command.env("OPTIONS", options).env("LOWER", lower);
        Ok(command)
    }
}

impl Drop for Fixture {
    /// An overlay leaves a closed directory in its work directory, which keeps an ordinary user from removing the rest.
    fn drop(&mut self) {
        for bare in fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let closed = bare.path().join("work/work");
            let _none_there = fs::set_permissions(closed, fs::Permissions::from_mode(0o700));
        }
    }
}

/// Writes small files, a hundred in a directory.
fn write_files(below: &Path, count: usize) -> Result<()> {
    for number in 0..count {
        let directory = below.join(format!("d{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory)?;
        }
        fs::write(directory.join(format!("f{number:05}.txt")), format!("file {number}\n").repeat(8))?;
    }
    Ok(())
}

/// Runs a step of the set-up.
fn run(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

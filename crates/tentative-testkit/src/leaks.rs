//! Finds what was left behind: descriptors, mounts, children, processes that belong to a test's store, directories.
//!
//! Processes are this test's own: those that its thread or its tool has started. Descriptors and mounts are those of the
//! whole test binary, so a test that looks at them is alone in its file.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::Environment;

/// How long something may take to go away: a killed process is reaped by somebody else.
const PATIENCE: Duration = Duration::from_secs(5);

/// What there was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    store: PathBuf,
    descriptors: BTreeSet<(String, PathBuf)>,
    mounts: BTreeSet<String>,
    processes: BTreeSet<i32>,
    files: BTreeSet<PathBuf>,
}

/// What there is now and was not before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Open descriptors of this process with what they refer to.
    pub descriptors: Vec<(String, PathBuf)>,
    /// Lines of this mount namespace's `mountinfo`.
    pub mounts: Vec<String>,
    /// Children of this thread, and processes whose `TENTATIVE_HOME` is the test's store.
    pub processes: Vec<i32>,
    /// Paths below the store.
    pub files: Vec<PathBuf>,
}

impl Baseline {
    /// Notes what there is.
    #[must_use]
    pub fn take(environment: &Environment) -> Baseline {
        Baseline::of_store(&environment.store())
    }

    fn of_store(store: &Path) -> Baseline {
        Baseline {
            store: store.to_owned(),
            descriptors: descriptors(),
            mounts: mounts(),
            processes: processes(store),
            files: files_below(store),
        }
    }

    /// What has been added since; waits some seconds for processes on their way out.
    #[must_use]
    pub fn leaks(&self) -> Leaks {
        self.leaks_after(PATIENCE)
    }

    /// What has been added since and does not go away for some time.
    fn leaks_after(&self, patience: Duration) -> Leaks {
        let deadline = Instant::now() + patience;
        loop {
            let now = Baseline::of_store(&self.store);
            let leaks = Leaks {
                descriptors: now.descriptors.difference(&self.descriptors).cloned().collect(),
                mounts: now.mounts.difference(&self.mounts).cloned().collect(),
                processes: now.processes.difference(&self.processes).copied().collect(),
                files: now.files.difference(&self.files).cloned().collect(),
            };
            if leaks == Leaks::default() || Instant::now() > deadline {
                return leaks;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The processes that have been added since, after some seconds for those on their way out. Tests beside this one do
    /// not disturb it.
    #[must_use]
    pub fn processes_left(&self) -> Leaks {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left: Vec<i32> = processes(&self.store).difference(&self.processes).copied().collect();
            if left.is_empty() || Instant::now() > deadline {
                return Leaks { processes: left, ..Leaks::default() };
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fails the test if anything was left behind.
    ///
    /// # Panics
    ///
    /// With the list of what is there and should not be.
    pub fn assert_nothing_left(&self) {
        let leaks = self.leaks();
        assert!(leaks == Leaks::default(), "left behind:\n{leaks}");
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, target) in &self.descriptors {
            writeln!(out, "  descriptor {number}: {}", target.display())?;
        }
        for mount in &self.mounts {
            writeln!(out, "  mount {mount}")?;
        }
        for pid in &self.processes {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            writeln!(out, "  process {pid}: {}", command.replace('\0', " "))?;
        }
        for path in &self.files {
            writeln!(out, "  {}", path.display())?;
        }
        Ok(())
    }
}

/// The open descriptors of this process, less the one that lists them.
fn descriptors() -> BTreeSet<(String, PathBuf)> {
    let listed = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    listed
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read_link(entry.path()).ok()?)))
        .filter(|(_, target)| !target.ends_with("fd") || !target.starts_with("/proc"))
        .collect()
}

/// The mounts of this mount namespace.
fn mounts() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Children of this thread, and every process that was started with this store.
fn processes(store: &Path) -> BTreeSet<i32> {
    let marker = format!("TENTATIVE_HOME={}", store.display());
    let myself = rustix::process::getpid().as_raw_nonzero().get();
    // The kernel lists them by the thread that started them.
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_store = listed
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid: &i32| pid != myself && was_started_with(pid, &marker));
    of_store.chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
}

/// Whether a process was started with a variable in its environment.
fn was_started_with(pid: i32, marker: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|entry| entry == marker.as_bytes()))
}

/// Every path below a directory.
fn files_below(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn every_kind_of_leak_is_found_and_nothing_else() {
        let environment = Environment::new();
        let baseline = Baseline::take(&environment);
        baseline.assert_nothing_left();

        let file = File::create(environment.store().join("left")).unwrap();
        let mut child = environment.command("sleep").arg("600").spawn().unwrap();
        let leaks = baseline.leaks_after(Duration::from_millis(200));
        child.kill().unwrap();
        child.wait().unwrap();

        assert_eq!(leaks.files, [environment.store().join("left")]);
        let is_it = |(_, target): &&(String, PathBuf)| *target == environment.store().join("left");
        assert_eq!(leaks.descriptors.iter().filter(is_it).count(), 1, "{leaks}");
        assert_eq!(leaks.processes, [child.id().cast_signed()]);
        drop(file);
        let beside = thread::spawn(|| std::process::Command::new("sleep").arg("1").status().unwrap());
        thread::sleep(Duration::from_millis(200));
        assert!(baseline.processes_left().processes.is_empty(), "what a test beside this one has started");
        assert!(!beside.is_finished());
        beside.join().unwrap();
        fs::remove_file(environment.store().join("left")).unwrap();
        baseline.assert_nothing_left();
    }
}

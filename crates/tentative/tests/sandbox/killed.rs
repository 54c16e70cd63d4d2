//! Whatever process is killed, nothing of the others is left.

use std::{
    ffi::OsString,
    fs, thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;
use tentative::{
    program::{How, ProgramOptions, run},
    store::Store,
};
use tentative_sys::kin::{Cloned, Namespaces, clone_into, exit_now};

use crate::runner::Test;

pub(crate) const TESTS: &[Test] = &[
    ("runner", the_runner),
    ("init", || killed_inside(|inside| inside.init)),
    ("program", || killed_inside(|inside| inside.program)),
];

/// How long something may take to go away.
const PATIENCE: Duration = Duration::from_secs(10);

/// A runner in a process of its own, with a program of which every process has a word of its own in its arguments.
struct Inside {
    directory: TempDir,
    runner: Pid,
    word: String,
    program: Pid,
    init: Pid,
}

impl Inside {
    fn start() -> Inside {
        let directory = TempDir::new_in("/var/tmp").unwrap();
        let word = format!("{}.{}", 300, std::process::id());
        let text = format!("sleep {word} & setsid sleep {word} & sleep {word}; true");
        let argv = ["/bin/sh", "-c", &text].iter().map(OsString::from).collect();
        let store = directory.path().join("store");
        let runner = match clone_into(Namespaces::NONE).unwrap() {
            Cloned::Child => exit_now(runner(&store, &ProgramOptions { argv, ..ProgramOptions::default() })),
            Cloned::Parent { pid, .. } => pid,
        };
        let shell = until(|| with_word(&word).into_iter().find(|pid| command(*pid).starts_with("/bin/sh")));
        until(|| (with_word(&word).len() == 4).then_some(()));
        let init = until(|| children(runner).into_iter().find(|pid| *pid != shell));
        Inside { directory, runner, word, program: shell, init }
    }

    fn nothing_is_left(self) {
        until(|| with_word(&self.word).is_empty().then_some(()));
        until(|| (!std::path::Path::new(&format!("/proc/{}", self.init)).exists()).then_some(()));
        let store = Store::open(&self.directory.path().join("store")).unwrap();
        store.recover().unwrap();
        assert!(store.list().unwrap().is_empty());
    }
}

fn runner(store: &std::path::Path, options: &ProgramOptions) -> i32 {
    let mut transaction = Store::open(store).unwrap().create().unwrap();
    let ended = run(options, &mut transaction).unwrap();
    transaction.discard().unwrap();
    if ended.how == How::Signalled(9) { 9 } else { 0 }
}

fn the_runner() {
    let inside = Inside::start();
    kill_process(inside.runner, Signal::KILL).unwrap();
    waitpid(Some(inside.runner), WaitOptions::empty()).unwrap();
    inside.nothing_is_left();
}

fn killed_inside(which: impl Fn(&Inside) -> Pid) {
    let inside = Inside::start();
    kill_process(which(&inside), Signal::KILL).unwrap();
    let (_, status) = waitpid(Some(inside.runner), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(9));
    inside.nothing_is_left();
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "it did not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Processes other than this one with a word in their arguments.
fn with_word(word: &str) -> Vec<Pid> {
    processes().into_iter().filter(|pid| command(*pid).contains(word)).collect()
}

fn children(of: Pid) -> Vec<Pid> {
    let parent = |pid: &Pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok())
    };
    processes().into_iter().filter(|pid| parent(pid) == Some(of.as_raw_nonzero().get())).collect()
}

fn processes() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| *pid != std::process::id() as i32).filter_map(Pid::from_raw).collect()
}

fn command(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

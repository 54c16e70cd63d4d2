//! Attempts to reach outside: inside nothing outside changes and each is in the record; the same attempt made outside
//! succeeds, which shows that it was one.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use tentative::{
    effect::Class,
    program::{Ended, ProgramOptions},
};

use crate::{
    program::{crossings, run_and_roll_back},
    runner::Test,
};

pub(crate) const TESTS: &[Test] = &[
    ("files", || attempt(FILES, Expected::Change)),
    ("kin", || attempt(KIN, Expected::Effect)),
    ("world", || attempt(WORLD, Expected::Effect)),
    ("root", root),
];

/// Attempts by name, with the operation that the record shows.
type Attempts = &'static [(&'static str, &'static str)];

const FILES: Attempts = &[
    ("create", ""),
    ("append", ""),
    ("remove", ""),
    ("mode", ""),
    ("times", ""),
    ("attribute", ""),
    ("symbolic_link", ""),
    ("hard_link", ""),
    ("fifo", ""),
    ("shared_mapping", ""),
    ("rename_directory", ""),
];

const KIN: Attempts = &[
    ("signal", "kill"),
    ("signal_group", "kill"),
    ("signal_thread", "tgkill"),
    ("queue_signal", "rt_sigqueueinfo"),
    ("process_descriptor", "pidfd_open"),
    ("trace", "ptrace"),
    ("write_memory", "process_vm_writev"),
    ("priority", "setpriority"),
    ("limit", "prlimit64"),
    ("affinity", "sched_setaffinity"),
    ("shared_memory", "shmget"),
    ("key", "add_key"),
];

const WORLD: Attempts = &[
    ("tcp", "connect"),
    ("tcp6", "connect"),
    ("udp_sendto", "sendto"),
    ("udp_sendmsg", "sendmsg"),
    ("udp_sendmmsg", "sendmmsg"),
    ("udp_connect", "connect"),
    ("unix_path", "connect"),
    ("unix_name", "connect"),
    ("unix_datagram", "sendto"),
    ("io_uring", "io_uring_setup"),
    ("vsock", "socket"),
];

const ROOT: Attempts = &[
    ("packet", "socket"),
    ("clock", "clock_settime"),
    ("host_name", "sethostname"),
    ("device", "mknodat"),
    ("mount", "mount"),
    ("kernel_log", "syslog"),
    ("performance", "perf_event_open"),
    ("programs_in_kernel", "bpf"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A change of files.
    Change,
    /// An effect with the operation.
    Effect,
}

pub(crate) fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/programs").canonicalize().unwrap()
}

/// The outside, as a process that answers with its state.
pub(crate) struct Outside {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) parameters: String,
}

impl Outside {
    pub(crate) fn start() -> Outside {
        let mut child = Command::new(PYTHON)
            .arg(programs().join("outside.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut parameters = String::new();
        output.read_line(&mut parameters).unwrap();
        assert!(parameters.starts_with('{'), "the outside did not come up");
        Outside { child, input, output, parameters: parameters.trim().to_owned() }
    }

    pub(crate) fn state(&mut self) -> String {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut state = String::new();
        self.output.read_line(&mut state).unwrap();
        assert!(state.starts_with('{'), "the outside is gone");
        state
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ended = self.child.wait();
    }
}

/// Not a shim that searches for versions.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

pub(crate) fn options(name: &str, parameters: &str) -> ProgramOptions {
    let script = programs().join("reach.py");
    let words = [PYTHON, script.to_str().unwrap(), name, parameters];
    ProgramOptions { argv: words.iter().map(OsString::from).collect(), ..ProgramOptions::default() }
}

fn outside_status(name: &str, parameters: &str) -> i32 {
    let status =
        Command::new(PYTHON).arg(programs().join("reach.py")).args([name, parameters]).status().unwrap();
    status.code().unwrap_or(-1)
}

fn root() {
    if !rustix::process::geteuid().is_root() {
        return tentative_testkit::skip::record("sandbox::reach_root", "needs root");
    }
    attempt(ROOT, Expected::Effect);
}

fn attempt(attempts: Attempts, expected: Expected) {
    let mut failures = Vec::new();
    for (name, operation) in attempts {
        // First that it can be done at all: what cannot proves nothing inside.
        let control = outside_status(name, &Outside::start().parameters);
        if control == 77 {
            tentative_testkit::skip::record(
                &format!("sandbox::reach_{name}"),
                "this machine has no such thing",
            );
            continue;
        }
        if control != 0 {
            failures.push(format!("{name}: does not succeed outside ({control})"));
        }
        // A fresh one: what succeeded outside has changed the other.
        let mut outside = Outside::start();
        let before = outside.state();
        let ended = run_and_roll_back(&options(name, &outside.parameters)).unwrap();
        if outside.state() != before {
            failures.push(format!("{name}: something outside changed"));
        }
        if !recorded(&ended, operation, expected) {
            failures.push(format!("{name}: not in the record: {:?}", crossings(&ended)));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

fn recorded(ended: &Ended, operation: &str, expected: Expected) -> bool {
    match expected {
        Expected::Change => !ended.record.changes.is_empty(),
        Expected::Effect => crossings(ended).iter().any(|effect| {
            effect.operation == operation && matches!(effect.class, Class::Blocked | Class::Contained)
        }),
    }
}

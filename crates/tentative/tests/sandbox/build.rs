//! Building and destroying sandboxes.

use std::{fs, path::Path, time::Instant};

use rustix::process::{Pid, WaitOptions, waitpid};
use tempfile::TempDir;
use tentative::{
    files::plan::{Plan, Privilege},
    layer::LayerSet,
    sandbox::{Blueprint, Sandbox, make_point},
    store::{Store, Transaction},
};
use tentative_sys::kin::drop_capabilities_raw;

use crate::runner::Test;

pub(crate) const TESTS: &[Test] = &[
    ("comes_up_and_goes_away", comes_up_and_goes_away),
    ("a_file_made_inside_is_not_outside", a_file_made_inside_is_not_outside),
    ("a_thousand_leave_nothing", a_thousand_leave_nothing),
];

/// A transaction in a store of its own with a sandbox around it.
pub(crate) struct Fixture {
    _directory: TempDir,
    pub(crate) transaction: Transaction,
    pub(crate) sandbox: Sandbox,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let directory = TempDir::new_in("/var/tmp").unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let transaction = store.create().unwrap();
        let sandbox = build(&transaction);
        Fixture { _directory: directory, transaction, sandbox }
    }

    pub(crate) fn end(self) {
        self.sandbox.destroy().unwrap();
        self.transaction.discard().unwrap();
    }
}

fn build(transaction: &Transaction) -> Sandbox {
    let privilege = Privilege::detect();
    let plan = Plan::make(transaction, privilege).unwrap();
    let point = make_point(Some(&plan), transaction.dir()).unwrap();
    let blueprint = Blueprint {
        plan: Some(&plan),
        point: &point,
        without: LayerSet::EMPTY,
        privilege,
        devices: &[],
        renewable: false,
    };
    Sandbox::build(&blueprint).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `act` in a child of ours inside the sandbox and returns its exit status.
pub(crate) fn inside(sandbox: &Sandbox, act: impl FnOnce() -> i32) -> i32 {
    let keep = sandbox.capabilities();
    let spawned = sandbox
        .spawn(|| {
            drop_capabilities_raw(keep).unwrap();
            act()
        })
        .unwrap();
    wait(spawned.pid)
}

fn wait(pid: Pid) -> i32 {
    let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
    status.exit_status().unwrap_or(-1)
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn comes_up_and_goes_away() {
    let (mounts_before, descriptors_before) = (mounts(), descriptors());
    let began = Instant::now();
    let fixture = Fixture::new();
    println!("built in {:?}", began.elapsed());
    assert!(fixture.sandbox.processes().unwrap().is_empty());
    let status = inside(&fixture.sandbox, || {
        let pid = std::process::id();
        let init = fs::read_to_string("/proc/1/comm").is_ok();
        let null = fs::write("/dev/null", b"x").is_ok();
        let settings = fs::write("/proc/sys/kernel/domainname", b"x").is_err();
        let sys = fs::create_dir("/sys/kernel/x").is_err();
        let loopback = std::net::TcpListener::bind("127.0.0.1:0").is_ok();
        let seen = [pid < 10, init, null, settings, sys, loopback];
        println!("{seen:?}");
        i32::from(seen != [true; 6])
    });
    assert_eq!(status, 0);
    let began = Instant::now();
    fixture.end();
    println!("gone in {:?}", began.elapsed());
    assert_eq!(mounts(), mounts_before);
    assert_eq!(descriptors(), descriptors_before);
}

fn a_file_made_inside_is_not_outside() {
    let fixture = Fixture::new();
    let file = Path::new("/var/tmp").join(format!("tentative-test-{}", std::process::id()));
    let status =
        inside(&fixture.sandbox, || i32::from(fs::write(&file, b"inside").is_err() || !file.exists()));
    assert_eq!(status, 0);
    assert!(!file.exists());
    fixture.end();
}

fn a_thousand_leave_nothing() {
    let (mounts_before, descriptors_before) = (mounts(), descriptors());
    for _ in 0..1000 {
        Fixture::new().end();
    }
    assert_eq!(mounts(), mounts_before);
    assert_eq!(descriptors(), descriptors_before);
    assert!(waitpid(None, WaitOptions::NOHANG).is_err(), "a child is left");
}

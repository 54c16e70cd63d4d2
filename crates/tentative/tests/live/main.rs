//! Contained transactions of a live process. Each case runs in a process of its own with one thread. The executable is
//! this one: it serves as its own monitor.

#![expect(clippy::print_stdout, reason = "the harness's protocol is spoken on standard output")]

mod again;
mod ahead;
mod descriptors;
mod held;
mod named;

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use tentative::{
    effect::Class,
    transaction::{Begun, Branch, Cause, Committed, Elsewhere, Ended, Options, Output, Refusal, begin},
};
use tentative_testkit::cases::{self, Case};

const CASES: &[Case] = &[
    ("commit_brings_files_and_memory", commit_brings_files_and_memory),
    ("rollback_leaves_nothing", rollback_leaves_nothing),
    ("the_pid_is_the_origins", the_pid_is_the_origins),
    ("crossings_are_blocked_and_recorded", crossings_are_blocked_and_recorded),
    ("children_inside_are_contained", children_inside_are_contained),
    ("left_over_processes_refuse_the_commit", left_over_processes_refuse_the_commit),
    ("conflicts_refuse_the_commit", conflicts_refuse_the_commit),
    ("refused_files_can_be_kept", refused_files_can_be_kept),
    ("output_is_captured", output_is_captured),
    ("a_hundred_leave_nothing", a_hundred_leave_nothing),
    ("a_branch_sees_its_changes", a_branch_sees_its_changes),
    ("transactions_nest_in_memory", transactions_nest_in_memory),
    ("an_outer_one_is_not_ended_from_inside", an_outer_one_is_not_ended_from_inside),
    ("killed_at_every_step_it_is_old_or_new", killed_at_every_step_it_is_old_or_new),
];

/// Every step of begin, stage, commit and rollback of a live process, in origin, branch, keeper and session.
const STEPS: &[&str] = &[
    "begin.before-clone",
    "begin.after-clone",
    "branch.start",
    "branch.started",
    "branch.frozen",
    "branch.rollback",
    "rollback.branch-ended",
    "stage.begin",
    "stage.files",
    "stage.looked",
    "stage.mapped",
    "stage.second-task",
    "stage.fetched",
    "stage.ready",
    "session.built",
    "session.stage",
    "session.staged",
    "session.apply",
    "journal-intended",
    "journal-before-commit",
    "journal-committed",
    "apply-begin",
    "apply-step",
    "apply-synced",
    "journal-applied",
    "apply-done",
    "discard-begin",
    "discard-place",
    "discard-done",
    "apply.begin",
    "apply.mapped",
    "apply.copied",
    "apply.state",
    "apply.end",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|verb| verb == "monitor") {
        let socket = tentative_sys::process::detached::take_socket(3).expect("the link");
        tentative::live::serve(socket);
        return ExitCode::SUCCESS;
    }
    if let Ok(ending) = std::env::var("LIVE_VICTIM") {
        return victim(&ending);
    }
    cases::main(
        &[CASES, again::CASES, ahead::CASES, descriptors::CASES, held::CASES, named::CASES].concat(),
        |name, command| {
            let home = scratch(name);
            let status = command
                .env("TENTATIVE_HOME", home.join("store"))
                .env("LIVE_SCRATCH", home.join("work"))
                .status()
                .expect("spawn");
            status.success() && is_left_clean(&home)
        },
    )
}

/// The last session ends a moment after its origin; then the store holds nothing but its format.
fn is_left_clean(home: &std::path::Path) -> bool {
    let store = home.join("store");
    let left = || {
        // A case whose processes have stores of their own made none here.
        let names = fs::read_dir(&store).into_iter().flatten().map(|entry| entry.expect("entry").file_name());
        names.filter(|name| name != "format" && name != "gate").collect::<Vec<_>>()
    };
    for _ in 0..300 {
        if left().is_empty() {
            return fs::remove_dir_all(home).is_ok();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    println!("left behind: {:?}", left());
    false
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("live-{name}-{}", std::process::id()));
    fs::create_dir_all(path.join("work")).expect("create");
    path.canonicalize().expect("canonical")
}

fn work() -> PathBuf {
    PathBuf::from(std::env::var_os("LIVE_SCRATCH").expect("set by the runner"))
}

fn options() -> Options {
    Options {
        executable: std::env::current_exe().ok(),
        program: vec!["live test".to_owned()],
        ..Options::default()
    }
}

fn committed(inside: impl FnOnce()) -> Committed {
    match begin(&options()).expect("begin") {
        Begun::Inside(mut branch) => {
            inside();
            branch.commit().expect("commit")
        }
        other => panic!("{other:?}"),
    }
}

fn ended(options: &Options, inside: impl FnOnce(&mut Branch)) -> Ended {
    match begin(options).expect("begin") {
        Begun::Inside(mut branch) => {
            inside(&mut branch);
            branch.rollback(b"")
        }
        Begun::Ended(ended) => ended,
        Begun::Frozen(_) => panic!("nobody asked to decide"),
    }
}

fn commit_brings_files_and_memory() {
    let work = work();
    fs::write(work.join("old"), "old").expect("write");
    fs::write(work.join("gone"), "gone").expect("write");
    let mut list = vec![1];
    let done = committed(|| {
        list.push(2);
        fs::write(work.join("new"), "new").expect("write inside");
        fs::write(work.join("old"), "changed").expect("write inside");
        fs::remove_file(work.join("gone")).expect("remove inside");
        fs::create_dir(work.join("directory")).expect("mkdir inside");
        fs::write(work.join("directory/file"), "deep").expect("write inside");
    });
    assert_eq!(list, [1, 2]);
    assert_eq!(done.report.unfinished, None);
    assert_eq!(fs::read_to_string(work.join("new")).expect("new"), "new");
    assert_eq!(fs::read_to_string(work.join("old")).expect("old"), "changed");
    assert_eq!(fs::read_to_string(work.join("directory/file")).expect("deep"), "deep");
    assert!(!work.join("gone").exists());
    assert!(done.report.changes.len() >= 4, "{:?}", done.report.changes);
}

fn rollback_leaves_nothing() {
    let work = work();
    fs::write(work.join("old"), "old").expect("write");
    let end = ended(&options(), |_| {
        fs::write(work.join("old"), "changed").expect("write inside");
        fs::write(work.join("new"), "new").expect("write inside");
        std::env::set_current_dir("/").expect("chdir inside");
    });
    assert_eq!(end.cause, Cause::Asked);
    assert_eq!(fs::read_to_string(work.join("old")).expect("old"), "old");
    assert!(!work.join("new").exists());
    assert_eq!(end.report.changes.len(), 2, "{:?}", end.report.changes);
    assert!(end.report.verdict.rollback.safe);
}

fn the_pid_is_the_origins() {
    let (pid, parent) = (std::process::id(), std::os::unix::process::parent_id());
    let mut seen = (0, 0, PathBuf::new());
    let own = fs::read_link("/proc/self").expect("self");
    committed(|| {
        let inside = fs::read_link("/proc/self").expect("self inside");
        seen = (std::process::id(), std::os::unix::process::parent_id(), inside);
    });
    assert_eq!(seen, (pid, parent, own));
}

fn crossings_are_blocked_and_recorded() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind outside");
    let address = listener.local_addr().expect("address");
    let mut victim = Command::new("/bin/sleep").arg("60").spawn().expect("spawn");
    drop(listener);
    let listener = std::net::TcpListener::bind(address).expect("bind again, for the inside to miss");
    let number = victim.id();
    // The listener is a socket, which the branch gets a stand-in for.
    let end = ended(&options(), |_| {
        assert!(std::net::TcpStream::connect(address).is_err());
        let _status = Command::new("/bin/kill").arg(number.to_string()).status();
    });
    assert!(victim.try_wait().expect("wait").is_none(), "the victim lives");
    victim.kill().expect("kill");
    victim.wait().expect("wait");
    drop(listener);
    let blocked: Vec<_> = end.report.effects.iter().filter(|effect| effect.class == Class::Blocked).collect();
    assert!(blocked.iter().any(|effect| effect.operation == "connect"), "{:?}", end.report.effects);
    assert!(end.report.verdict.rollback.safe);
}

fn children_inside_are_contained() {
    let path = work().join("by-a-child");
    committed(|| {
        let status = Command::new("/bin/sh")
            .args(["-c", "echo child > \"$0\"; exit 3"])
            .arg(&path)
            .status()
            .expect("spawn inside");
        assert_eq!(status.code(), Some(3));
    });
    assert_eq!(fs::read_to_string(&path).expect("read"), "child\n");
}

fn left_over_processes_refuse_the_commit() {
    match begin(&options()).expect("begin") {
        Begun::Inside(mut branch) => {
            let daemon = Command::new("/bin/sh")
                .args(["-c", "sleep 60 >/dev/null 2>&1 & echo $!"])
                .output()
                .expect("spawn");
            let refused = branch.commit().expect_err("a daemon runs");
            assert!(refused.to_string().contains("sleep"), "{refused}");
            let pid = String::from_utf8(daemon.stdout).expect("a number");
            Command::new("/bin/kill").args(["-9", pid.trim()]).status().expect("kill");
            while PathBuf::from(format!("/proc/{}", pid.trim())).exists() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            branch.commit().expect("nothing runs any more");
        }
        other => panic!("{other:?}"),
    }
}

fn conflicts_refuse_the_commit() {
    let path = work().join("contested");
    fs::write(&path, "base").expect("write");
    let mut somebody = change_while_a_branch_runs(&path);
    match begin(&options()).expect("begin") {
        Begun::Inside(mut branch) => {
            fs::write(&path, "ours").expect("write inside");
            std::thread::sleep(std::time::Duration::from_millis(2500));
            let refused = branch.commit().expect_err("somebody else changed it");
            assert!(refused.to_string().contains("contested was changed by others"), "{refused}");
            let conflicts: Vec<_> = refused.conflicts().map(|conflict| conflict.path.clone()).collect();
            assert_eq!(conflicts, [path]);
            branch.rollback(b"")
        }
        Begun::Ended(end) => assert_eq!(end.cause, Cause::Asked),
        Begun::Frozen(_) => panic!("frozen"),
    }
    somebody.wait().expect("wait");
    assert_eq!(fs::read_to_string(&path).expect("read"), "theirs\n");
}

/// Somebody else, who changes the file when this process has had a second child for a while: that is the branch, and no
/// task on the way to it.
fn change_while_a_branch_runs(path: &std::path::Path) -> std::process::Child {
    let script = "n=0; for i in $(seq 900); do [ $(wc -w <\"$1\") -ge 2 ] && n=$((n+1)) || n=0; \
                  [ $n -ge 20 ] && break; sleep 0.02; done; echo theirs >\"$0\"";
    let children = format!("/proc/{0}/task/{0}/children", std::process::id());
    Command::new("/bin/sh").args(["-c", script]).arg(path).arg(children).spawn().expect("spawn")
}

fn refused_files_can_be_kept() {
    let path = work().join("kept");
    let end = ended(&options(), |_| fs::write(&path, "kept").expect("write inside"));
    let id = end.files.keep().expect("kept");
    drop(end);
    assert!(!path.exists());
    let store = tentative::store::Store::open_default().expect("store");
    let id = store.resolve(&id).expect("the id");
    wait_until_free(&store, &id);
    let transaction = store.load(&id).expect("load");
    let staged =
        tentative::files::stage::stage(transaction, tentative::files::stage::StageOptions::default());
    let applied = staged.expect("stage").publish().expect("publish").apply().expect("apply");
    applied.finish().expect("finish");
    assert_eq!(fs::read_to_string(&path).expect("read"), "kept");
}

/// The session lets go of a kept transaction when it ends.
fn wait_until_free(store: &tentative::store::Store, id: &tentative::store::Id) {
    for _ in 0..200 {
        if store.load(id).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn output_is_captured() {
    let options = Options { output: Output::Capture, ..options() };
    let end = ended(&options, |_| {
        println!("to standard output");
        std::io::stdout().flush().expect("flush");
        Command::new("/bin/sh").args(["-c", "echo from a child >&2"]).status().expect("spawn");
    });
    assert_eq!(end.report.stdout, b"to standard output\n");
    assert_eq!(end.report.stderr, b"from a child\n");
}

fn a_hundred_leave_nothing() {
    let count = |path: &str| fs::read_dir(path).expect("list").count();
    let maps = || fs::read_to_string("/proc/self/maps").expect("maps").lines().count();
    let mut number = 0;
    committed(|| number += 1);
    let before = (count("/proc/self/fd"), maps());
    for round in 0..50 {
        committed(|| number += 1);
        let end = ended(&options(), |_| number += 1000);
        assert_eq!((end.cause, number), (Cause::Asked, round + 2));
    }
    assert_eq!((count("/proc/self/fd"), maps()), before);
    let children = format!("/proc/self/task/{}/children", std::process::id());
    assert_eq!(fs::read_to_string(children).expect("children"), "");
}

fn a_branch_sees_its_changes() {
    let path = work().join("seen");
    let seen = match begin(&options()).expect("begin") {
        Begun::Inside(mut branch) => {
            fs::write(&path, "seen").expect("write inside");
            std::env::set_current_dir("/").expect("chdir");
            let report = branch.report();
            branch.commit().expect("commit");
            report
        }
        other => panic!("{other:?}"),
    };
    let subjects: Vec<String> = seen.changes.iter().map(|change| format!("{:?}", change.subject)).collect();
    assert!(subjects.iter().any(|subject| subject.contains("seen")), "{subjects:?}");
    assert!(subjects.iter().any(|subject| subject.contains("cwd")), "{subjects:?}");
}

/// Ends with 0 when it is committed, 4 when it is rolled back, 3 when it did not begin.
fn victim(ending: &str) -> ExitCode {
    let work = work();
    let read = |name: &str| fs::read_to_string(work.join(name)).expect("read");
    let mut memory = "old".to_owned();
    match begin(&options()) {
        Ok(Begun::Inside(mut branch)) => {
            memory = "new".to_owned();
            // So much that two tasks bring it.
            let large: Vec<u64> = (0..2 << 20).collect();
            let files = if ending == "untouched" { "old" } else { "new" };
            if files == "new" {
                fs::write(work.join("a"), files).expect("write inside");
                fs::write(work.join("b"), files).expect("write inside");
            }
            if ending == "rollback" || branch.commit().is_err() {
                branch.rollback(b"not empty")
            }
            assert_eq!(memory, "new");
            assert!((0..2 << 20).eq(large));
            // When the monitor died after the commit point, the origin has put the files in place itself.
            assert_eq!((read("a"), read("b")), (files.to_owned(), files.to_owned()));
            ExitCode::SUCCESS
        }
        Ok(_) => {
            assert_eq!(memory, "old");
            ExitCode::from(4)
        }
        Err(_) => ExitCode::from(3),
    }
}

fn killed_at_every_step_it_is_old_or_new() {
    if !cfg!(feature = "crash-points") {
        let reason = "crash points are not compiled in (make test and make crash do)";
        return tentative_testkit::skip::record("live::killed_at_every_step_it_is_old_or_new", reason);
    }
    for ending in ["commit", "untouched", "rollback"] {
        for step in STEPS {
            kill_at(step, ending);
        }
    }
}

fn kill_at(step: &str, ending: &str) {
    let ground = work().join(format!("{ending}-{step}"));
    let store = ground.join("store");
    fs::create_dir(&ground).expect("create");
    for name in ["a", "b"] {
        fs::write(ground.join(name), "old").expect("write");
    }
    let mut victim = Command::new(std::env::current_exe().expect("own path"))
        .env_remove(cases::CASE)
        .env("LIVE_VICTIM", ending)
        .env("LIVE_SCRATCH", &ground)
        .env("TENTATIVE_HOME", &store)
        .env("TENTATIVE_CRASH_AT", format!("{step}:1"))
        .spawn()
        .expect("spawn");
    let mut status = None;
    for _ in 0..2000 {
        status = victim.try_wait().expect("wait");
        if status.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let Some(status) = status else {
        victim.kill().expect("kill");
        panic!("{ending}, killed at {step}: the origin hangs");
    };
    let left = wait_for_the_end_of(&store);
    assert!(left.is_empty(), "{ending}, killed at {step}: processes {left:?} are left");
    let opened = tentative::store::Store::open(&store).expect("store");
    opened.recover().expect("recover");
    let read = |name: &str| fs::read_to_string(ground.join(name)).expect("read");
    let (a, b) = (read("a"), read("b"));
    assert_eq!(a, b, "{ending}, killed at {step}: half of each");
    match status.code() {
        Some(0) if ending == "untouched" => assert_eq!(a, "old", "{ending}, killed at {step}: committed"),
        Some(0) => assert_eq!(a, "new", "{ending}, killed at {step}: committed"),
        Some(3 | 4) => assert_eq!(a, "old", "{ending}, killed at {step}: rolled back"),
        Some(other) => panic!("{ending}, killed at {step}: exit status {other}"),
        None => assert!(ending == "commit" || a == "old", "{ending}, killed at {step}"),
    }
    let names = fs::read_dir(&store).expect("store").map(|entry| entry.expect("entry").file_name());
    let names: Vec<_> = names.filter(|name| name != "format" && name != "gate").collect();
    assert!(names.is_empty(), "{ending}, killed at {step}: {names:?} left in the store");
    fs::remove_dir_all(&ground).expect("clean up");
}

/// Waits until no process has this store in its environment; returns those that stay.
fn wait_for_the_end_of(store: &std::path::Path) -> Vec<String> {
    let needle = format!("TENTATIVE_HOME={}", store.display());
    let mut left = Vec::new();
    for _ in 0..500 {
        left.clear();
        for entry in fs::read_dir("/proc").expect("list").flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == needle.as_bytes()) {
                left.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        if left.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    left
}

fn transactions_nest_in_memory() {
    let outer = options();
    let inner =
        Options { without: tentative::layer::LayerSet::from_iter(tentative::layer::Layer::ALL), ..options() };
    let mut trail = Vec::new();
    match begin(&outer).expect("begin") {
        Begun::Inside(mut branch) => {
            trail.push("outer");
            match begin(&inner).expect("begin inside") {
                Begun::Inside(mut within) => {
                    trail.push("inner");
                    within.commit().expect("commit inside");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(ended(&inner, |_| trail.push("never")).cause, Cause::Asked);
            branch.commit().expect("commit");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(trail, ["outer", "inner"]);
}

fn an_outer_one_is_not_ended_from_inside() {
    let inner =
        Options { without: tentative::layer::LayerSet::from_iter(tentative::layer::Layer::ALL), ..options() };
    let mut found = Vec::new();
    match begin(&options()).expect("begin") {
        Begun::Inside(mut branch) => {
            match begin(&inner).expect("begin inside") {
                Begun::Inside(mut within) => {
                    found.push(branch.commit().expect_err("the inner one is not ended").reasons);
                    found.push(vec![Refusal::Elsewhere(branch.try_rollback(b""))]);
                    within.commit().expect("commit inside");
                }
                other => panic!("{other:?}"),
            }
            branch.commit().expect("commit");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(found, vec![vec![Refusal::Elsewhere(Elsewhere::Inner)]; 2]);
}

//! The command is killed at every step of `run`, `commit` and `rollback`: afterwards everything is old or everything is
//! new, and `recover` leaves nothing behind. Needs the crash points compiled in, which `make test` does.

#![cfg(feature = "crash-points")]
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::Command,
};

use tentative_testkit::{
    Environment,
    crash::{Crashed, at_every_step},
    leaks::Baseline,
};

/// The files of a directory with what is in them.
type Tree = BTreeMap<String, String>;

/// What the program does: every kind of change that a commit applies in its own way.
const PROGRAM: &str = "echo new > modified && rm deleted && mkdir -p made/deep && echo new > made/deep/file && \
                       mv renamed other && ln -s modified link && chmod 600 mode && echo more >> linked && \
                       echo more >> closed/file && chmod 555 closed && mkdir shut && echo new > shut/file && chmod 555 shut";

fn tentative(environment: &Environment) -> Command {
    environment.command(env!("CARGO_BIN_EXE_tentative"))
}

fn lay_out() -> Environment {
    let environment = Environment::new();
    for name in ["modified", "deleted", "renamed", "mode", "linked", "closed/file"] {
        environment.write(name, format!("{name} as it was\n"));
    }
    fs::hard_link(environment.work().join("linked"), environment.work().join("linked-too")).unwrap();
    environment
}

fn tree_below(directory: &Path) -> Tree {
    let mut found = Tree::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let mode = PermissionsExt::mode(&entry.metadata().unwrap().permissions());
            let content = if kind.is_dir() {
                waiting.push(path.clone());
                format!("{mode:o} directory")
            } else if kind.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else {
                format!("{mode:o} {}", fs::read_to_string(&path).unwrap())
            };
            found.insert(path.strip_prefix(directory).unwrap().display().to_string(), content);
        }
    }
    found
}

/// What the files look like after a commit that nobody disturbed.
fn committed() -> Tree {
    let environment = lay_out();
    let status =
        tentative(&environment).args(["run", "--commit", "--", "sh", "-c", PROGRAM]).status().unwrap();
    assert!(status.success(), "{status}");
    tree_below(&environment.work())
}

fn recover(environment: &Environment) {
    let output = tentative(environment).arg("recover").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn was_killed(crashed: Crashed) {
    assert_eq!(crashed.status.signal(), Some(9), "step {}: {}", crashed.step, crashed.status);
}

#[test]
fn a_commit_killed_at_any_step_is_old_or_new() {
    let (old, new) = (tree_below(&lay_out().work()), committed());
    assert_ne!(old, new);
    let environment = std::cell::RefCell::new(lay_out());
    let mut outcomes = [0_usize; 2];
    let steps = at_every_step(
        || {
            let fresh = lay_out();
            let kept = tentative(&fresh).args(["run", "--keep", "--", "sh", "-c", PROGRAM]).output().unwrap();
            assert!(kept.status.success(), "{}", String::from_utf8_lossy(&kept.stderr));
            let mut command = tentative(&fresh);
            command.arg("commit");
            environment.replace(fresh);
            command
        },
        |status| status.success(),
        |crashed| {
            was_killed(crashed);
            let environment = environment.borrow();
            recover(&environment);
            let now = tree_below(&environment.work());
            assert!(now == old || now == new, "step {}: {now:#?}", crashed.step);
            outcomes[usize::from(now == new)] += 1;
            if now == old {
                let again = tentative(&environment).arg("commit").output().unwrap();
                assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
                assert_eq!(tree_below(&environment.work()), new);
            }
        },
    );
    assert!(steps >= 5, "only {steps} steps: are the crash points compiled in?");
    assert!(outcomes.iter().all(|&count| count > 0), "old and new: {outcomes:?}");
}

#[test]
fn a_run_killed_at_any_step_changes_nothing() {
    let old = tree_below(&lay_out().work());
    let environment = lay_out();
    let baseline = Baseline::take(&environment);
    let steps = at_every_step(
        || {
            let mut command = tentative(&environment);
            command.args(["run", "--rollback", "--", "sh", "-c", PROGRAM]);
            command
        },
        |status| status.success(),
        |crashed| {
            was_killed(crashed);
            recover(&environment);
            assert_eq!(tree_below(&environment.work()), old, "step {}", crashed.step);
            let leaks = baseline.processes_left();
            assert!(leaks.processes.is_empty(), "step {}:\n{leaks}", crashed.step);
        },
    );
    assert!(steps >= 1, "no steps: are the crash points compiled in?");
}

//! Killed at every step of commit, keep, discard and recovery: afterwards old or new as a whole, and no work is lost.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use tentative::{
    files::stage::{StageOptions, stage},
    store::{Store, Transaction},
};
use tentative_testkit::crash::at_every_step;

use crate::{
    inside::{Place, run},
    tree,
};

const STORE: &str = "TENTATIVE_TEST_STORE";
const GROUND: &str = "TENTATIVE_TEST_GROUND";
const ACT: &str = "TENTATIVE_TEST_ACT";

const SETUP: &str = "
echo one > a; echo two > b; ln b b2; echo three > c; mkdir -p d/e; echo d1 > d/1; echo g > d/e/g; echo l > l; ln l l2
";
/// Has every kind of step in it.
const SCRIPT: &str = "set -e
echo more >> a; echo more >> b; rm c; mkdir -p n/m; echo new > n/m/f; ln n/m/f n/k; mv l moved; ln a a2
rm -r d; mkdir d; echo again > d/1; chmod 600 a
";

fn commit(transaction: Transaction) {
    let staged = stage(transaction, StageOptions::default()).map_err(|(_, error)| error).unwrap();
    staged.publish().unwrap().apply().unwrap().finish().unwrap();
}

#[test]
#[ignore = "is killed by the tests of this file"]
fn victim() {
    let store = Store::open(Path::new(&env::var_os(STORE).unwrap())).unwrap();
    let ground = PathBuf::from(env::var_os(GROUND).unwrap());
    let pending = || store.load(&store.list().unwrap()[0].id).unwrap();
    let running = || {
        let transaction = store.create().unwrap();
        let plan =
            tentative::files::plan::Plan::make(&transaction, tentative::files::plan::Privilege::detect())
                .unwrap();
        transaction.save_plan(&plan).unwrap();
        assert!(run(&transaction, &ground, SCRIPT).status.success());
        transaction
    };
    match env::var(ACT).unwrap().as_str() {
        "commit" => commit(pending()),
        "run and commit" => commit(running()),
        "run and keep" => running().keep().unwrap(),
        "discard" => pending().discard().unwrap(),
        "abandon" => drop(
            stage(pending(), StageOptions::default()).map_err(|(_, error)| error).unwrap().abandon().unwrap(),
        ),
        "recover" => drop(store.recover().unwrap()),
        other => panic!("{other}"),
    }
}

fn victim_of(place: &Place, act: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "crash::victim", "--ignored", "--test-threads=1"])
        .env(STORE, place.store.root())
        .env(GROUND, &place.ground)
        .env(ACT, act)
        .stdout(std::process::Stdio::null());
    command
}

fn ended(status: ExitStatus) -> bool {
    assert!(status.success() || status.signal() == Some(9), "{status:?}");
    status.success()
}

struct Before {
    place: Place,
    old: tree::Look,
}

fn fresh() -> Before {
    let place = Place::new();
    assert!(Command::new("sh").arg("-ec").arg(SETUP).current_dir(&place.ground).status().unwrap().success());
    let old = tree::look(&place.ground);
    Before { place, old }
}

fn pending() -> Before {
    let before = fresh();
    let (mut transaction, _) = before.place.after(SCRIPT);
    transaction.keep().unwrap();
    before
}

fn new() -> tree::Look {
    let before = fresh();
    assert!(
        Command::new("sh")
            .arg("-ec")
            .arg(SCRIPT)
            .current_dir(&before.place.ground)
            .status()
            .unwrap()
            .success()
    );
    tree::look(&before.place.ground)
}

impl Before {
    /// Recovers, and says whether the changes are in place.
    fn recovered(&self, new: &tree::Look, step: usize) -> bool {
        self.place.store.recover().unwrap();
        let now = tree::look(&self.place.ground);
        let (to_old, to_new) = (tree::differences(&now, &self.old), tree::differences(&now, new));
        assert!(to_old.is_empty() || to_new.is_empty(), "step {step}: {to_old:#?} {to_new:#?}");
        assert_eq!(fs::read_dir(self.place.ground.parent().unwrap()).unwrap().count(), 2, "step {step}");
        to_new.is_empty()
    }

    fn pending(&self) -> usize {
        self.place.store.list().unwrap().len()
    }

    /// Commits what is pending, if anything is.
    fn commit_pending(&self, new: &tree::Look, step: usize) {
        for summary in self.place.store.list().unwrap() {
            commit(self.place.store.load(&summary.id).unwrap());
            let differences = tree::differences(&tree::look(&self.place.ground), new);
            assert!(differences.is_empty(), "step {step}: {differences:#?}");
        }
        assert_eq!(self.pending(), 0, "step {step}");
    }
}

/// Kills an act at every step; `check` gets whether the new state is in place.
fn kill(make: impl Fn() -> Before, act: &str, least: usize, check: impl Fn(&Before, bool, usize)) {
    let new = new();
    let current = std::cell::RefCell::new(make());
    let steps = at_every_step(
        || {
            *current.borrow_mut() = make();
            victim_of(&current.borrow().place, act)
        },
        ended,
        |crashed| {
            let before = current.borrow();
            let done = before.recovered(&new, crashed.step);
            check(&before, done, crashed.step);
            before.commit_pending(&new, crashed.step);
        },
    );
    assert!(steps >= least, "{act}: only {steps} steps");
}

#[test]
fn committing_what_is_pending() {
    kill(pending, "commit", 25, |before, done, step| {
        assert_eq!(
            before.pending(),
            usize::from(!done),
            "step {step}: the work is in place or still pending"
        );
    });
}

#[test]
fn committing_what_ran() {
    kill(fresh, "run and commit", 25, |before, _, step| assert_eq!(before.pending(), 0, "step {step}"));
}

#[test]
fn keeping() {
    kill(fresh, "run and keep", 4, |before, done, step| {
        assert!(!done && before.pending() <= 1, "step {step}")
    });
}

#[test]
fn discarding() {
    kill(pending, "discard", 2, |_, done, step| assert!(!done, "step {step}"));
}

#[test]
fn abandoning() {
    kill(pending, "abandon", 8, |before, done, step| {
        assert!(!done, "step {step}");
        assert_eq!(before.pending(), 1, "step {step}: the work is still pending");
    });
}

#[test]
fn recovering_a_commit() {
    let decided = || {
        let before = pending();
        let mut command = victim_of(&before.place, "commit");
        assert!(!ended(command.env("TENTATIVE_CRASH_AT", "journal-committed:1").status().unwrap()));
        before
    };
    kill(decided, "recover", 15, |before, done, step| {
        assert!(done, "step {step}: what was decided is carried out");
        assert_eq!(before.pending(), 0, "step {step}");
    });
}

#[test]
fn recovering_a_recovery() {
    let before = pending();
    let new = new();
    let mut command = victim_of(&before.place, "commit");
    assert!(!ended(command.env("TENTATIVE_CRASH_AT", "journal-committed:1").status().unwrap()));
    for number in 1..1000 {
        let mut command = victim_of(&before.place, "recover");
        // Each recovery comes a little further than the one before.
        if ended(command.env("TENTATIVE_CRASH_AT", format!("*:{number}")).status().unwrap()) {
            assert!(before.recovered(&new, number));
            return;
        }
    }
    panic!("never came to its end");
}

//! Killed at every step of commit, keep, discard and recovery: afterwards old or new as a whole, and no work is lost.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use tentative::{
    files::stage::{StageOptions, stage},
    store::{Outcome, Store, Transaction},
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

/// A commit that was killed right after the commit point, and what others did before it is recovered.
struct Decided {
    place: Place,
    id: String,
}

impl Decided {
    fn new(setup: &str, ours: &str, theirs: &str) -> Decided {
        let place = Place::new();
        let decided = Decided { id: String::new(), place };
        decided.others(setup);
        let (mut transaction, _) = decided.place.after(&format!("set -e\n{ours}"));
        transaction.keep().unwrap();
        let id = transaction.id().to_string();
        drop(transaction);
        let mut command = victim_of(&decided.place, "commit");
        assert!(!ended(command.env("TENTATIVE_CRASH_AT", "journal-committed:1").status().unwrap()));
        decided.others(theirs);
        Decided { id, ..decided }
    }

    fn others(&self, script: &str) {
        let status = Command::new("sh").arg("-ec").arg(script).current_dir(&self.place.ground).status();
        assert!(status.unwrap().success(), "{script}");
    }

    /// What is kept of others, by name, or why it cannot be finished.
    fn recover(&self) -> Result<Vec<String>, String> {
        let mut recovered = self.place.store.recover().unwrap();
        assert_eq!(recovered.len(), 1);
        match recovered.remove(0).outcome {
            Outcome::RolledForward { kept } => {
                let name = |path: &PathBuf| {
                    let below = path.strip_prefix(&self.place.ground).unwrap().display().to_string();
                    below.replace(&self.id, "ID")
                };
                Ok(kept.iter().map(name).collect())
            }
            Outcome::Stuck { reason, .. } => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.ground.join(name.replace("ID", &self.id))).unwrap_or_default()
    }
}

const IN_A_DIRECTORY: &str = "mkdir a victim; echo A > a/f; echo L > a/l; ln a/l a/l2; echo D > a/d
echo V > victim/f; echo V > victim/d; echo V > victim/l";
const CHANGES_IN_IT: &str =
    "echo new >> a/f; echo n > a/n; echo new >> a/l; rm a/d; mkdir a/m; echo m > a/m/m";

impl Decided {
    fn is_in_place(&self) {
        let found = ["f", "n", "l", "d", "m/m"].map(|name| self.read(&format!("a/{name}")));
        assert_eq!(found, ["A\nnew\n", "n\n", "L\nnew\n", "", "m\n"]);
    }
}

#[test]
fn a_directory_that_is_another_one_by_then_is_not_written_to() {
    for theirs in ["mv a a_old; ln -s victim a", "mv a a_old; mv victim a", "mv a a_old"] {
        let decided = Decided::new(IN_A_DIRECTORY, CHANGES_IN_IT, theirs);
        let before = tree::look(&decided.place.ground);
        for _ in 0..2 {
            let reason = decided.recover().unwrap_err();
            let directory = decided.place.ground.join("a");
            assert!(reason.contains(&format!("{} is not the directory", directory.display())), "{reason}");
            assert_eq!(tree::differences(&tree::look(&decided.place.ground), &before), [""; 0], "{theirs}");
            assert!(decided.place.store.load(&decided.id.parse().unwrap()).is_err());
        }
        decided.others("test ! -e a || mv a victim; rm -f a; mv a_old a");
        assert_eq!(decided.recover(), Ok(vec![]), "{theirs}");
        decided.is_in_place();
    }
}

#[test]
fn a_directory_that_was_removed_can_be_made_anew() {
    let decided = Decided::new(IN_A_DIRECTORY, CHANGES_IN_IT, "rm -r a");
    assert!(decided.recover().is_err());
    decided.others("mkdir a; echo others > a/others");
    // Unless the file system gave it the number of the old one: then it is filled as it is.
    if decided.recover().is_err() {
        decided.others("rm a/others");
        assert_eq!(decided.recover(), Ok(vec![]));
    } else {
        assert_eq!(decided.read("a/others"), "others\n");
    }
    decided.is_in_place();
}

#[test]
fn what_others_made_after_the_commit_point_is_kept_beside() {
    for (theirs, kept) in [
        ("echo theirs >> a/f", vec![("a/f.tentative-ID-theirs", "A\ntheirs\n")]),
        ("echo theirs > t; mv t a/f", vec![("a/f.tentative-ID-theirs", "theirs\n")]),
        ("echo theirs > a/n", vec![("a/n.tentative-ID-theirs", "theirs\n")]),
        ("echo theirs >> a/d", vec![("a/d.tentative-ID-theirs", "D\ntheirs\n")]),
        ("echo theirs >> a/l", vec![("a/l.tentative-ID-theirs", "L\ntheirs\n")]),
        ("echo theirs > t; mv t a/l", vec![("a/l.tentative-ID-theirs", "theirs\n")]),
        ("mkdir a/m; echo theirs > a/m/t", vec![("a/m.tentative-ID-theirs/t", "theirs\n")]),
        ("rm a/l a/f", vec![]),
        ("echo theirs > a/other", vec![]),
    ] {
        let decided = Decided::new(IN_A_DIRECTORY, CHANGES_IN_IT, theirs);
        let told = decided.recover().unwrap();
        assert_eq!(told.len(), kept.len(), "{theirs}: {told:?}");
        for (name, content) in kept {
            assert!(name.starts_with(&told[0]), "{theirs}: {told:?}");
            assert_eq!(decided.read(name), content, "{theirs}");
        }
        decided.is_in_place();
    }
}

#[test]
fn what_others_made_in_a_directory_that_is_replaced_is_kept_beside() {
    let setup = "mkdir -p d/e; echo old > d/e/old";
    for theirs in ["echo theirs > d/e/t", "echo theirs > t; mv t d/t", "echo theirs >> d/e/old"] {
        for ours in ["rm -r d", "rm -r d; mkdir d; echo again > d/1"] {
            let decided = Decided::new(setup, ours, theirs);
            assert_eq!(decided.recover(), Ok(vec!["d.tentative-ID-theirs".to_owned()]), "{theirs}");
            let kept =
                ["e/t", "t", "e/old"].map(|name| decided.read(&format!("d.tentative-ID-theirs/{name}")));
            assert!(kept.concat().contains("theirs"), "{theirs}: {kept:?}");
            assert_eq!(decided.read("d/e/old"), "");
        }
    }
}

/// One that others replaced is not theirs to lose when the recovery itself is killed.
#[test]
fn keeping_what_others_made_is_killed_at_every_step() {
    let theirs = "echo theirs >> a/f; echo theirs > a/n; echo theirs >> a/d; mkdir a/m; echo theirs > a/m/t";
    let current = std::cell::RefCell::new(None);
    let steps = at_every_step(
        || current.borrow_mut().insert(Decided::new(IN_A_DIRECTORY, CHANGES_IN_IT, theirs)).recovery(),
        ended,
        |crashed| {
            let borrowed = current.borrow();
            let decided = borrowed.as_ref().unwrap();
            decided.place.store.recover().unwrap();
            decided.is_in_place();
            let kept = ["f", "n", "d"].map(|name| decided.read(&format!("a/{name}.tentative-ID-theirs")));
            assert_eq!(kept, ["A\ntheirs\n", "theirs\n", "D\ntheirs\n"], "step {}", crashed.step);
            assert_eq!(decided.read("a/m.tentative-ID-theirs/t"), "theirs\n", "step {}", crashed.step);
        },
    );
    assert!(steps >= 20, "only {steps} steps");
}

impl Decided {
    fn recovery(&self) -> Command {
        victim_of(&self.place, "recover")
    }
}

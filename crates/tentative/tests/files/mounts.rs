//! Several file systems: a nested one, one that cannot hold an upper directory, one without a place for this user, a
//! read-only one, a file that is a mount point, a full one. Root only, in a mount namespace of the test's own.

use std::{env, fs, path::Path, process::Command};

use tentative::files::{
    changes::changes,
    plan::{CoverKind, Plan},
    stage::{StageError, StageOptions, stage},
};

use tentative_testkit::{Feature, require};

use crate::{
    inside::{Place, run},
    tree,
};

/// Runs one of the ignored tests below in a fresh mount namespace.
fn in_own_namespace(name: &str) {
    require!(Feature::Root);
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("mounts::{name}"), "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn sh(directory: &Path, script: &str) {
    let output = Command::new("sh").arg("-ec").arg(script).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

const MOUNT: &str = "
mkdir t r f ro; mount -t tmpfs t t; mount -t ramfs r r; mount -t tmpfs f f
echo under > ro/file; mount --bind ro ro; mount -o remount,bind,ro ro
mkdir -m 755 f/.tentative-0
echo one > mounted; echo one > source; mount --bind source mounted
for d in t r f; do echo a > $d/a; echo b > $d/b; ln $d/b $d/b2; mkdir $d/d; echo x > $d/d/x; done
# So that looking at a file changes its time of access once, and not again when the test looks a second time.
sleep 0.02
";
const SCRIPT: &str = "set -e
for d in t r f; do
  echo more >> $d/a; echo more >> $d/b; mkdir $d/n; echo n > $d/n/n; ln $d/n/n $d/n/m; rm -r $d/d; mkdir $d/d; ln -s a $d/s
done
echo more >> mounted
! echo no > ro/file 2>/dev/null
";

fn steps(place: &Place, run_plainly: bool) -> (tree::Look, Option<(tentative::store::Transaction, Plan)>) {
    sh(&place.ground, MOUNT);
    if run_plainly {
        sh(&place.ground, SCRIPT);
        return (tree::look(&place.ground), None);
    }
    let before = tree::look(&place.ground);
    let (transaction, plan) = place.begin();
    let output = run(&transaction, &place.ground, SCRIPT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let now: tree::Look = tree::look(&place.ground).into_iter().filter(|(path, _)| !is_ours(path)).collect();
    assert_eq!(
        tree::differences(&now, &before.into_iter().filter(|(path, _)| !is_ours(path)).collect()),
        [""; 0]
    );
    (now, Some((transaction, plan)))
}

/// What a transaction keeps on other file systems while it lives.
fn is_ours(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().starts_with(".tentative-"))
}

#[test]
fn commits_reach_every_file_system() {
    in_own_namespace("every_file_system");
}

#[test]
#[ignore = "runs in a mount namespace of its own"]
fn every_file_system() {
    let plain = Place::new();
    let (theirs, _) = steps(&plain, true);
    sh(&plain.ground, "umount t r f ro mounted");
    let place = Place::new();
    let (_, transaction) = steps(&place, false);
    let (transaction, plan) = transaction.unwrap();
    let near = |name: &str| match &plan.cover_of(&place.ground.join(name)).unwrap().kind {
        CoverKind::Overlay { upper, near, .. } => {
            (upper.starts_with(place.ground.join(name)), near.is_some())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(near("t"), (true, true), "the upper directory is on the file system itself");
    assert_eq!(near("r"), (false, true), "it cannot be, but there is a place to stage");
    assert_eq!(near("f"), (false, false), "there is no place at all");
    assert_eq!(plan.cover_of(&place.ground.join("ro")).unwrap().kind, CoverKind::ReadOnly);
    assert!(changes(&plan).unwrap().iter().any(|change| change.path.ends_with("mounted")));
    let staged = stage(transaction, StageOptions::default()).map_err(|(_, error)| error).unwrap();
    let transaction = staged.abandon().unwrap();
    assert!(!place.ground.join("f").join(format!(".tentative-{}-1", transaction.id())).exists());
    let staged = stage(transaction, StageOptions::default()).map_err(|(_, error)| error).unwrap();
    staged.publish().unwrap().apply().unwrap().finish().unwrap();
    assert_eq!(tree::differences(&tree::look(&place.ground), &theirs), [""; 0]);
    sh(&place.ground, "umount t r f ro mounted");
}

#[test]
fn a_full_disk_keeps_the_work() {
    in_own_namespace("full_disk");
}

#[test]
#[ignore = "runs in a mount namespace of its own"]
fn full_disk() {
    let place = Place::new();
    sh(
        &place.ground,
        "mkdir f; mount -t tmpfs -o size=1m f f; mkdir -m 755 f/.tentative-0; echo one > f/a; ln f/a f/a2",
    );
    let before = tree::look(&place.ground);
    for script in ["head -c 3000000 /dev/zero > f/large", "head -c 3000000 /dev/zero >> f/a"] {
        let (mut transaction, _) = place.after(script);
        transaction.keep().unwrap();
        let Err((transaction, error)) = stage(transaction, StageOptions::default()) else { panic!("staged") };
        let named = match &error {
            StageError::Copy { path, .. } | StageError::Room { path, .. } => path.clone(),
            other => panic!("{other}"),
        };
        assert!(named.starts_with(place.ground.join("f")), "{error}");
        assert_eq!(tree::differences(&tree::look(&place.ground), &before), [""; 0]);
        let id = transaction.id().clone();
        drop(transaction);
        sh(&place.ground, "mount -o remount,size=8m f");
        let staged = stage(place.store.load(&id).unwrap(), StageOptions::default())
            .map_err(|(_, error)| error)
            .unwrap();
        staged.publish().unwrap().apply().unwrap().finish().unwrap();
        assert!(fs::metadata(place.ground.join("f/a")).is_ok());
        sh(&place.ground, "rm -f f/large; printf 'one\\n' > f/a; mount -o remount,size=1m f");
    }
    sh(&place.ground, "umount f");
}

//! What somebody else does to a path meanwhile is a conflict: nothing is applied, and the work is kept.

use std::{fs, io::BufRead as _, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use tentative::files::{
    changes::changes,
    conflict::{Conflict, ConflictKind, conflicts},
    stage::{StageError, StageOptions, stage},
};

use tentative_testkit::{Feature, require, skip};

use crate::{inside::Place, tree};

const SETUP: &str = "echo one > a; echo two > b; mkdir -p d/e; echo x > d/x; echo y > d/e/y; ln -s a s
mkdir -p p/a p/z q/a; echo A > p/a/f; echo precious > p/z/f; echo Q > q/a/f";

fn sh(directory: &Path, script: &str) {
    assert!(
        Command::new("sh").arg("-ec").arg(script).current_dir(directory).status().unwrap().success(),
        "{script}"
    );
}

/// Ours inside, theirs outside before the commit; the conflicts by name.
fn meet(ours: &str, theirs: &str) -> Vec<(String, ConflictKind)> {
    let place = Place::new();
    sh(&place.ground, SETUP);
    let (mut transaction, plan) = place.after(&format!("set -e\n{ours}"));
    transaction.keep().unwrap();
    let plan = transaction.plan().unwrap_or(plan);
    sh(&place.ground, theirs);
    let before = tree::look(&place.ground);
    let seen = conflicts(&plan, None).unwrap();
    match stage(transaction, StageOptions::default()) {
        Ok(staged) => {
            assert_eq!(seen, []);
            staged.publish().unwrap().apply().unwrap().finish().unwrap();
        }
        Err((transaction, StageError::Conflicts(found))) => {
            assert_eq!(seen, found);
            assert_eq!(tree::look(&place.ground), before);
            let id = transaction.id().clone();
            drop(transaction);
            place.store.load(&id).unwrap();
        }
        Err((_, error)) => panic!("{error}"),
    }
    let name = |conflict: &Conflict| conflict.path.strip_prefix(&place.ground).unwrap().display().to_string();
    seen.iter().map(|conflict| (name(conflict), conflict.kind)).collect()
}

fn one(name: &str, kind: ConflictKind) -> Vec<(String, ConflictKind)> {
    vec![(name.to_owned(), kind)]
}

#[test]
fn paths_that_others_touched() {
    use ConflictKind::{Appeared, Changed, Vanished};
    assert_eq!(meet("echo more >> a", "echo other >> a"), one("a", Changed));
    assert_eq!(meet("echo more >> a", "echo new > t; mv t a"), one("a", Changed));
    assert_eq!(meet("rm a", "chmod 600 a"), one("a", Changed));
    assert_eq!(meet("echo new > n", "echo theirs > n"), one("n", Appeared));
    assert_eq!(meet("mkdir n; echo x > n/x", "mkdir n"), one("n", Appeared));
    assert_eq!(meet("rm -r d", "echo z > d/e/z"), one("d/e", Changed));
    assert_eq!(meet("rm -r d; mkdir d", "echo changed > d/x"), one("d/x", Changed));
    assert_eq!(meet("echo z > d/e/z", "rm -r d/e"), one("d/e", Vanished));
}

/// The kernel notes for root which file a copy was made of; an ordinary user sees that it is gone when nothing that was
/// renamed could explain it.
#[test]
fn files_that_others_removed() {
    assert_eq!(meet("echo more >> a", "rm a"), one("a", ConflictKind::Vanished));
}

const CHANGES_IN_A_DIRECTORY: [&str; 4] =
    ["echo new >> p/a/f", "rm p/a/f", "echo new > t; mv t p/a/f", "echo new > p/a/new"];

/// Whose files have old times: they are not those that the code saw.
#[test]
fn a_directory_that_others_put_in_place_of_another() {
    for ours in CHANGES_IN_A_DIRECTORY {
        assert_eq!(meet(ours, "mv p/a p/a_old; mv p/z p/a"), one("p/a", ConflictKind::Replaced), "{ours}");
        let both = ["p", "p/a"].map(|name| (name.to_owned(), ConflictKind::Replaced));
        assert_eq!(meet(ours, "mv p p_old; mv q p"), both, "{ours}");
        assert_eq!(meet(ours, "mv p/a x; mv p/z p/a; mv p/a p/z; mv x p/a"), [], "{ours}");
        assert_eq!(meet(ours, "echo m > p/a/m; echo m > p/m; mkdir p/d; ls p/a"), [], "{ours}");
    }
}

/// Nothing was remembered then: what an ordinary user's overlay does not note is told by times.
#[test]
fn a_directory_that_others_put_in_place_of_another_before_the_code_has_ended() {
    for ours in CHANGES_IN_A_DIRECTORY {
        for (theirs, expected) in [
            ("mv p/a p/a_old; mv p/z p/a", 1),
            ("mv p p_old; mv q p", 1),
            ("echo m > p/a/m; echo m > p/m", 0),
        ] {
            let place = Place::new();
            sh(&place.ground, SETUP);
            let (transaction, plan) = place.after(ours);
            sh(&place.ground, theirs);
            let mut found = conflicts(&plan, None).unwrap();
            found.retain(|conflict| conflict.kind == ConflictKind::Replaced);
            assert!(found.len().min(1) == expected, "{ours}; {theirs}: {found:?}");
            transaction.discard().unwrap();
        }
    }
}

#[test]
fn what_does_not_meet() {
    assert_eq!(meet("echo more >> a", "echo other >> b"), []);
    assert_eq!(meet("echo n > n", "echo m > m"), []);
    assert_eq!(meet("echo n > d/n", "echo m > d/m"), []);
    assert_eq!(meet("rm a", "rm a"), []);
    assert_eq!(meet("cat a", "echo other >> a"), []);
}

#[test]
fn locks_that_others_hold() {
    let place = Place::new();
    sh(&place.ground, SETUP);
    let (transaction, plan) = place.after("echo more >> a; echo more >> b");
    let mut holder = Command::new("flock")
        .args(["a", "cat"])
        .current_dir(&place.ground)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let file = fs::File::options().read(true).write(true).open(place.ground.join("b")).unwrap();
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let own = std::process::id().cast_signed();
    let kinds = |origin| -> Vec<ConflictKind> {
        conflicts(&plan, origin).unwrap().iter().map(|conflict| conflict.kind).collect()
    };
    let watch = fs::File::open(place.ground.join("a")).unwrap();
    while rustix::fs::flock(&watch, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
        rustix::fs::flock(&watch, rustix::fs::FlockOperation::Unlock).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let found = kinds(None);
    assert!(
        matches!(found[..], [ConflictKind::Locked(Some(_)), ConflictKind::Locked(Some(pid))] if pid == own),
        "{found:?}"
    );
    // Looking opened and closed the file, which gave this process's own lock up.
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(kinds(Some(own)).len(), 1, "the origin's own lock is no conflict");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    drop(file);
    assert_eq!(kinds(None), []);
    transaction.discard().unwrap();
}

#[test]
fn a_file_that_is_open_keeps_its_inode() {
    let place = Place::new();
    sh(&place.ground, SETUP);
    let open = fs::File::open(place.ground.join("a")).unwrap();
    let inode = |name: &str| fs::metadata(place.ground.join(name)).unwrap().ino();
    let before = (inode("a"), inode("b"));
    let (transaction, _) = place.after("echo more >> a; echo more >> b");
    let staged = stage(transaction, StageOptions::default()).map_err(|(_, error)| error).unwrap();
    let committed = staged.open_committed(&place.ground.join("a"), rustix::fs::OFlags::RDWR).unwrap();
    let exchanged = staged.open_committed(&place.ground.join("b"), rustix::fs::OFlags::RDWR).unwrap();
    staged.publish().unwrap().apply().unwrap().finish().unwrap();
    assert_eq!(inode("a"), before.0, "written in place");
    assert_ne!(inode("b"), before.1, "exchanged");
    assert_eq!(std::io::read_to_string(&open).unwrap(), "one\nmore\n");
    assert_eq!(rustix::fs::fstat(&committed).unwrap().st_ino, inode("a"));
    assert_eq!(rustix::fs::fstat(&exchanged).unwrap().st_ino, inode("b"));
}

#[test]
fn a_renamed_file_that_is_open_keeps_its_inode() {
    let place = Place::new();
    sh(&place.ground, SETUP);
    let open = fs::File::open(place.ground.join("a")).unwrap();
    let (transaction, plan) = place.after("mv a z; mkdir r; mv d/x r/x; rm -r d");
    let renamed: Vec<_> = changes(&plan).unwrap().into_iter().filter_map(|change| change.from).collect();
    // What is there now is what renaming the directory would have left.
    assert_eq!(renamed, ["d", "d/x", "a"].map(|name| place.ground.join(name)));
    let staged = stage(transaction, StageOptions::default()).map_err(|(_, error)| error).unwrap();
    staged.publish().unwrap().apply().unwrap().finish().unwrap();
    let there = fs::metadata(place.ground.join("z")).unwrap().ino();
    assert_eq!(there, open.metadata().unwrap().ino());
    assert!(!place.ground.join("a").exists());
}

/// Inside, the user owns his view of `/tmp`; outside he may not remove what others have there.
#[test]
fn what_the_user_may_not_do_outside_is_refused_by_name() {
    require!(Feature::OrdinaryUser);
    let places = ["/tmp", "/var/tmp", "/dev/shm"].into_iter().flat_map(|place| fs::read_dir(place).unwrap());
    // A mount beside it makes one that he cannot read, or that is large, a mount point, which cannot be removed inside either.
    let others = places.flatten().map(|entry| entry.path()).find(|path| {
        fs::symlink_metadata(path).is_ok_and(|metadata| {
            let is_others = metadata.uid() != rustix::process::geteuid().as_raw();
            metadata.is_file() && is_others && metadata.len() < 1 << 20 && fs::File::open(path).is_ok()
        })
    });
    let Some(others) = others else {
        // The tool that makes the ordinary user for the second run makes such a file for it.
        let reason = "there is no file of somebody else in /tmp";
        return skip::record("files::what_the_user_may_not_do_outside_is_refused_by_name", reason);
    };
    let place = Place::new();
    let (transaction, _) = place.after(&format!("rm -f '{}'", others.display()));
    let Err((transaction, error)) = stage(transaction, StageOptions::default()) else { panic!("staged") };
    assert!(matches!(&error, StageError::Permission { path } if *path == others), "{error}");
    transaction.discard().unwrap();
    assert!(others.exists());
}

/// Others who have a file mapped that is written in place lose nothing: neither the pages of their own, nor the file.
#[test]
fn files_that_others_have_mapped() {
    const BYSTANDER: &str = "
import mmap, os, sys
file = os.open('mapped', os.O_RDONLY)
shared = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
private = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
private[0:3] = b'OWN'
print('ready', flush=True)
while not os.path.exists('done'):
    assert shared[100_000] in b'aX'
print(private[0:3].decode(), shared[100_000:100_003].decode(), flush=True)
";
    let place = Place::new();
    fs::write(place.ground.join("mapped"), vec![b'a'; 1 << 20]).unwrap();
    let mut bystander = Command::new("python3")
        .args(["-c", BYSTANDER])
        .current_dir(&place.ground)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(bystander.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    for script in
        ["printf XYZ | dd of=mapped bs=1 seek=100000 conv=notrunc 2> /dev/null", "printf more >> mapped"]
    {
        let (transaction, _) = place.after(script);
        let staged = stage(transaction, StageOptions::default()).map_err(|(_, error)| error).unwrap();
        staged.publish().unwrap().apply().unwrap().finish().unwrap();
    }
    assert_eq!(fs::metadata(place.ground.join("mapped")).unwrap().len(), (1 << 20) + 4);
    fs::write(place.ground.join("done"), "").unwrap();
    line.clear();
    said.read_line(&mut line).unwrap();
    assert!(bystander.wait().unwrap().success());
    assert_eq!(line, "OWN XYZ\n");
}

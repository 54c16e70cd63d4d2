//! A script that runs in a transaction and is committed leaves what it leaves when it runs plainly.

use std::{fs, path::Path, process::Command};

use tentative::files::{
    changes::changes,
    stage::{StageOptions, stage},
};

use tentative_testkit::{Feature, require};

use crate::{inside::Place, tree};

/// What both directories start with.
const SETUP: &str = "
umask 022; echo one > a; echo two > b; echo three > c; chmod 600 c; ln b b2; ln -s a s; mkfifo p
mkdir -p d/e/f x; echo deep > d/e/f/g; echo d1 > d/1; echo d2 > d/2; ln d/2 d/2link; mkdir empty; chmod 700 x
mkdir ro; echo r > ro/r; chmod 444 ro/r; chmod 555 ro; touch -d @900000000 b d/1 ro d/e/f d/e d x
# So that looking at a file changes its time of access once, and not again when the test looks a second time.
sleep 0.02
";

fn sh(directory: &Path, script: &str) {
    let output = Command::new("/bin/sh").arg("-ec").arg(script).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn commit_is_like_running(script: &str) {
    let plain = tempfile::tempdir().unwrap();
    let _opened = tentative_testkit::Opened::below(plain.path());
    let plain_ground = plain.path().join("ground");
    fs::create_dir(&plain_ground).unwrap();
    sh(&plain_ground, SETUP);
    sh(&plain_ground, script);

    let place = Place::new();
    sh(&place.ground, SETUP);
    let before = tree::look(&place.ground);
    let (transaction, plan) = place.after(&format!("set -e\n{script}"));
    let found = changes(&plan).unwrap();
    assert_eq!(tree::look(&place.ground), before, "{script}: nothing before the commit");
    let staged = stage(transaction, StageOptions::default()).map_err(|(_, error)| error).unwrap();

    assert_eq!(tree::look(&place.ground), before, "{script}: nothing by staging");
    staged.publish().unwrap().apply().unwrap().finish().unwrap();

    let (ours, theirs) = (tree::look(&place.ground), tree::look(&plain_ground));

    let differences = tree::differences(&ours, &theirs);
    assert!(differences.is_empty(), "{script}: {differences:#?}");
    let differ = before != theirs;
    assert!(!differ || !found.is_empty(), "{script}: changes were not seen");
    assert_eq!(place.store.list().unwrap(), []);
}

#[test]
fn files() {
    commit_is_like_running("echo new > n; echo more >> a; echo other > b.tmp; mv b.tmp b; rm c; : > empty/x");
    commit_is_like_running("chmod 640 a; touch -d @1000000000 c; rm s; ln -s b s; rm p; mkfifo q; mkfifo p");
    commit_is_like_running("mv a moved; mv c a; truncate -s 100000 b");
    commit_is_like_running("rm a; mkdir a; echo x > a/x; rm -r empty; echo file > empty; rm s; echo s > s");
    commit_is_like_running("true");
    commit_is_like_running("cat a b c d/1 > /dev/null; : >> a");
}

#[test]
fn directories() {
    commit_is_like_running("mkdir -p n/m/o; echo x > n/m/o/p; chmod 750 n/m; rmdir empty");
    commit_is_like_running("rm -r d");
    commit_is_like_running("rm -r d; mkdir d; echo again > d/1");
    commit_is_like_running("rm -r d/e; mkdir -p d/e/f; echo deeper > d/e/f/g; echo y > d/e/h");
    commit_is_like_running("chmod 711 d; chmod 755 x; echo in > x/y; rm d/1");
    commit_is_like_running("touch -d @1000000000 d; touch -d @1000000001 x; echo in > x/y");
    commit_is_like_running("echo more >> d/1; echo more >> d/e/f/g; touch -d @4000000000 empty");
    commit_is_like_running("mkdir n; mv d/1 n/; mv d/e/f/g n/g2; rm -r d");
    // What the monitor does for a directory that is renamed.
    commit_is_like_running("mkdir r r/e r/e/f; mv d/e/f/g r/e/f/g; mv d/1 d/2 d/2link r/; rm -r d");
}

/// What writing, or giving a file to somebody else, takes away is there in the end as it was inside.
#[test]
fn set_id_bits() {
    commit_is_like_running("chmod 4755 a; echo more >> b; chmod 2711 b");
    commit_is_like_running("chmod 4755 b; echo more >> b; chmod 6755 b; echo n > n; chmod 4700 n");
}

#[test]
fn owners_and_capabilities() {
    require!(Feature::Root);
    // CAP_NET_RAW, permitted and effective, as setcap(8) writes it.
    let put = "put() { python3 -c 'import os, struct, sys; \
               os.setxattr(sys.argv[1], \"security.capability\", struct.pack(\"<5I\", 0x2000001, 1 << 13, 0, 0, 0))' $1; }";
    commit_is_like_running(&format!(
        "{put}; chown 1:1 a; chmod 4755 a; chown 1:2 b; chmod 2755 b; chown 3:3 d/2; put d/2; put c"
    ));
    commit_is_like_running(&format!("{put}; put b; echo more >> b; put b; echo more >> d/2; put d/2"));
}

/// Modes that close things to their owner, who is not root.
#[test]
fn closed_objects() {
    commit_is_like_running("mkdir n; echo x > n/x; chmod 400 n/x; chmod 555 n");
    commit_is_like_running("mkdir -p n/m; echo x > n/m/x; chmod 000 n/m/x; chmod 000 n/m; chmod 100 n");
    commit_is_like_running("chmod 000 a; chmod 500 d/e; chmod 400 d");
    commit_is_like_running("echo more >> b; chmod 000 b");
    commit_is_like_running("chmod 755 ro; echo n > ro/n; rm ro/r; chmod 555 ro");
    commit_is_like_running("chmod 755 ro; echo n > ro/n; rm ro/r; chmod 500 ro");
    commit_is_like_running("chmod 755 ro; rm -r ro");
    commit_is_like_running("chmod 755 ro; rm -r ro; mkdir ro; echo n > ro/n; chmod 555 ro");
}

#[test]
fn odd_names() {
    commit_is_like_running(
        "echo x > \"$(printf 'a\\377b')\"; echo y > \"$(printf 'new\\nline')\"; mkdir '\\x41'; echo z > '\\x41/ '",
    );
}

#[test]
fn hard_links() {
    commit_is_like_running("echo x > n1; ln n1 n2; ln n1 d/n3; mkdir m; ln n1 m/n4; ln n1 m/n5");
    commit_is_like_running("ln a a2; mkdir m; ln a m/a3");
    commit_is_like_running("ln a a2; echo more >> a");
    commit_is_like_running("rm b2");
    commit_is_like_running("echo more >> b");
    commit_is_like_running("echo more >> b; rm b2");
    commit_is_like_running("mv b moved");
    commit_is_like_running("echo other > t; mv t b");
}

/// As an ordinary user the kernel keeps no index, so that a copied-up name parts from the others inside.
#[test]
fn hard_links_changed_through_one_name_and_lost() {
    require!(Feature::Root);
    commit_is_like_running("echo more >> b; rm b");
    commit_is_like_running("echo more >> b; mv b moved; cat b2");
    commit_is_like_running("echo more >> b; ln b2 b3; echo again >> b3");
    commit_is_like_running("mv d/2 m; echo more >> m; rm -r d/e");
}

#[test]
fn extended_attributes() {
    // The Python that the tests of the package need has a call for it; setfattr(1) is rarely installed.
    let put = "put() { python3 -c 'import os, sys; os.setxattr(sys.argv[1], sys.argv[2], sys.argv[3].encode())' \"$@\"; }";
    commit_is_like_running(&format!(
        "{put}; put a user.k v; put d user.k v; echo n > n; put n user.n w; put d/2 user.both one"
    ));
}

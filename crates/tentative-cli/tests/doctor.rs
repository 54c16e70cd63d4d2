//! `tentative doctor` on this machine as it is, and where something was taken away.

use std::process::Output;

use tentative_testkit::{Environment, Feature, require};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

fn said(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).expect("the lines are text")
}

#[test]
fn everything_works_where_sandboxes_can_be_built() {
    require!(Feature::UserNamespaces, Feature::Overlay);
    let environment = Environment::new();
    let output = environment.command(TENTATIVE).arg("doctor").output().expect("tentative starts");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.ends_with("everything can be contained\n"), "{said}");
    assert!(!said.contains("MISSING"), "{said}");
    let left: Vec<_> = std::fs::read_dir(environment.store()).expect("the store is there").collect();
    assert!(left.is_empty(), "every probe cleans up: {left:?}");
}

#[test]
fn without_user_namespaces_the_remedy_is_named() {
    require!(Feature::UserNamespaces);
    let environment = Environment::new();
    let script = format!("echo 0 > /proc/sys/user/max_user_namespaces && exec {TENTATIVE} doctor");
    let output = environment
        .command("unshare")
        .args(["-Ur", "sh", "-c", &script])
        .output()
        .expect("there is an unshare");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(122), "{said}");
    assert!(said.starts_with("MISSING  user namespace with capabilities inside: "), "{said}");
    let remedy = "hint: as root: sysctl -w user.max_user_namespaces=15000";
    assert_eq!(said.matches(remedy).count(), 1, "{said}");
    assert!(said.ends_with("run --without files,kin,world\n"), "{said}");
}

#[test]
fn a_store_that_cannot_hold_uppers_is_named() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    // An overlay cannot be the place of another one's upper directory.
    let script = format!(
        "mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w,userxattr overlay m && \
         TENTATIVE_HOME=$PWD/m/store exec {TENTATIVE} doctor"
    );
    let output = environment
        .command("unshare")
        .args(["-Urm", "sh", "-c", &script])
        .output()
        .expect("there is an unshare");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(122), "{said}");
    assert!(said.contains("MISSING  overlay with userxattr on the store's file system"), "{said}");
    assert!(
        said.contains("hint: the store's file system cannot hold an overlay's upper directory"),
        "{said}"
    );
}

#[test]
fn inside_a_transaction_the_outer_monitor_serves() {
    require!(Feature::UserNamespaces, Feature::Overlay);
    let environment = Environment::new();
    let output = environment
        .command(TENTATIVE)
        .args(["run", "--rollback", "--", TENTATIVE, "doctor"])
        .output()
        .expect("tentative starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said.contains("served by the monitor of the transaction around this one"), "{said}");
}

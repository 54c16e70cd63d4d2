//! Sandboxes that are used again: only when nothing of what ran in them is left, and what the outside did meanwhile is seen.

use std::{
    collections::BTreeSet,
    env, fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use tentative::{
    files::plan::Privilege,
    transaction::{Begun, Cause, begin},
};
use tentative_testkit::cases::Case;

use crate::{options, work};

pub(crate) const CASES: &[Case] = &[
    ("an_untouched_sandbox_is_used_again", an_untouched_sandbox_is_used_again),
    ("what_one_leaves_the_next_does_not_see", what_one_leaves_the_next_does_not_see),
    ("the_next_sees_what_others_did_meanwhile", the_next_sees_what_others_did_meanwhile),
];

/// Rolls back a transaction that says something.
pub(crate) fn said(inside: impl FnOnce() -> String) -> String {
    match begin(&options()).expect("begin") {
        Begun::Inside(mut branch) => branch.rollback(inside().as_bytes()),
        Begun::Ended(ended) => {
            assert_eq!(ended.cause, Cause::Asked);
            String::from_utf8(ended.payload.expect("a payload")).expect("text")
        }
        Begun::Frozen(_) => panic!("nobody asked to decide"),
    }
}

/// Which sandbox this is: the number of the mount of its `/dev`, which is given once a boot.
fn sandbox() -> String {
    const MOUNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let dev = statx(CWD, "/dev", AtFlags::empty(), MOUNT_ID_UNIQUE).expect("statx");
    assert!(dev.stx_mask & MOUNT_ID_UNIQUE.bits() != 0, "this needs Linux 6.8");
    dev.stx_mnt_id.to_string()
}

fn a_file_is_a_mount_point() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let own = ["/proc", "/sys", "/dev"];
    points.any(|point| !own.iter().any(|own| point.starts_with(own)) && Path::new(point).is_file())
}

/// Whether an ordinary user is shown copies of directories in which others make and remove files all the time: then a
/// sandbox is soon out of date.
fn temporary_directories_hold_mounts() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| ["/tmp/", "/var/tmp/"].iter().any(|directory| point.starts_with(directory)))
}

fn an_untouched_sandbox_is_used_again() {
    // Inside of root's there are capabilities, and of a file that is a mount point a private copy is shown.
    let expected = Privilege::detect() == Privilege::User && !a_file_is_a_mount_point();
    // On a busy machine others are built before one is looked through.
    let most = if expected { 300 } else { 20 };
    let is_used_again = || {
        let mut seen = BTreeSet::new();
        (0..most).any(|_| !seen.insert(said(sandbox))) || expected && temporary_directories_hold_mounts()
    };
    assert_eq!(is_used_again(), expected);
    // A directory of somebody else's, on the way to which the kernel leaves notes.
    let here = env::current_dir().expect("a directory");
    env::set_current_dir("/usr/share").expect("chdir");
    assert_eq!(is_used_again(), expected, "in /usr/share");
    env::set_current_dir(here).expect("chdir");
    let touched = said(|| {
        fs::write(work().join("made"), "").expect("write inside");
        sandbox()
    });
    for _ in 0..5 {
        assert_ne!(said(sandbox), touched);
    }
}

/// What code can leave, and whether it is there.
type Leaving = (&'static str, fn(), fn() -> bool);

const LEAVINGS: &[Leaving] = &[
    (
        "shared memory",
        || fs::write("/dev/shm/left-by-a-test", "").expect("write"),
        || Path::new("/dev/shm/left-by-a-test").exists(),
    ),
    (
        "a mode",
        || fs::set_permissions(work(), fs::Permissions::from_mode(0o711)).expect("chmod"),
        || fs::metadata(work()).expect("stat").mode() & 0o777 == 0o711,
    ),
    ("a file where the store is hidden", || fs::write(hidden(), "").expect("write"), || hidden().exists()),
    (
        "a System V object",
        || assert!(Command::new("ipcmk").args(["-M", "4096"]).output().expect("ipcmk").status.success()),
        || {
            let listed = Command::new("ipcs").arg("-m").output().expect("ipcs");
            String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.starts_with("0x"))
        },
    ),
    (
        "a process",
        || assert!(Command::new("sh").args(["-c", "setsid sleep 1000 &"]).status().expect("sh").success()),
        || {
            let all = fs::read_dir("/proc")
                .expect("proc")
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let mut pids = all.filter_map(|name| name.parse::<u32>().ok());
            pids.any(|pid| pid != 1 && pid != std::process::id())
        },
    ),
    (
        "a connection that has just ended",
        || {
            let listener = TcpListener::bind("127.0.0.1:2525").expect("bind");
            let client = TcpStream::connect("127.0.0.1:2525").expect("connect");
            drop(listener.accept().expect("accept"));
            drop(client);
        },
        || fs::read_to_string("/proc/net/tcp").expect("connections").contains(":09DD "),
    ),
];

fn hidden() -> PathBuf {
    PathBuf::from(env::var_os("TENTATIVE_HOME").expect("the harness sets it")).join("left")
}

fn what_one_leaves_the_next_does_not_see() {
    for (what, leave, is_there) in LEAVINGS {
        // Until it happens in one that was used before, too.
        for _ in 0..3 {
            let found = said(|| {
                leave();
                is_there().to_string()
            });
            assert_eq!(found, "true", "{what} cannot be seen inside");
            for _ in 0..3 {
                assert_eq!(said(|| is_there().to_string()), "false", "{what}");
            }
        }
    }
}

fn the_next_sees_what_others_did_meanwhile() {
    let directory = work().join("directory");
    fs::create_dir(&directory).expect("mkdir");
    let look = || {
        let mut entries: Vec<String> = fs::read_dir(&directory)
            .expect("list")
            .map(|entry| entry.expect("entry").path())
            .map(|path| format!("{} {:?}", path.display(), fs::read_to_string(&path).ok()))
            .collect();
        // Also by names that are not there.
        for name in ["made", "moved", "gone"] {
            entries.push(format!("{name} {}", directory.join(name).exists()));
        }
        entries.sort();
        entries.join("\n")
    };
    for round in 0..30 {
        assert_eq!(said(look), look(), "round {round}");
        let path = |name: &str| directory.join(name);
        match round % 6 {
            0 => fs::write(path("made"), round.to_string()),
            1 => fs::write(path("made"), format!("{round} and longer")),
            2 => fs::rename(path("made"), path("moved")),
            3 => fs::create_dir(path("gone")).and_then(|()| fs::write(path("gone/below"), "")),
            4 => fs::remove_dir_all(path("gone")),
            _ => fs::remove_file(path("moved")),
        }
        .expect("the directory is ours");
    }
}

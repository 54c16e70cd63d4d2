//! Sandboxes that were built ahead, in a mount namespace of the test's own: what the outside did since is seen inside, and
//! nothing of the outside is reached by a name that an overlay does not cover.

use std::{
    env, fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use tentative_testkit::{Feature, cases::Case, require};

use crate::{again::said, committed, work};

pub(crate) const CASES: &[Case] = &[
    ("what_is_mounted_meanwhile_is_seen", what_is_mounted_meanwhile_is_seen),
    ("what_is_made_beside_a_mount_is_seen", what_is_made_beside_a_mount_is_seen),
    ("open_files_beside_a_mount_go_on", open_files_beside_a_mount_go_on),
    ("fifos_of_the_outside_are_not_reached", fifos_of_the_outside_are_not_reached),
];

/// Says to the process of a case that it is in its own mount namespace.
const INSIDE: &str = "LIVE_OWN_MOUNTS";

/// Starts the case again in a mount namespace of its own, after a script in its work directory: as who runs it, without a
/// capability if that is an ordinary user. Says whether this is that process.
pub(crate) fn is_in_own_mounts(script: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let own: &[&str] = match tentative_testkit::feature::is_root() {
        true => &["--mount"],
        false => &["--user", "--map-current-user", "--mount", "--keep-caps"],
    };
    let drop = if tentative_testkit::feature::is_root() {
        ""
    } else {
        "setpriv --ambient-caps=-all --inh-caps=-all"
    };
    let script = format!("set -e; mount --make-rprivate /; {script}; exec {drop} \"$0\"");
    let mut command = Command::new("unshare");
    command.args(own).args(["sh", "-c", &script]).arg(env::current_exe().expect("own path"));
    let status = command.current_dir(work()).env(INSIDE, "1").status().expect("unshare");
    assert!(status.success(), "{status}");
    false
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

pub(crate) fn mount(arguments: &[&str], point: &Path) {
    let status = Command::new("mount").args(arguments).arg(point).status().expect("mount");
    assert!(status.success());
}

fn what_is_mounted_meanwhile_is_seen() {
    require!(Feature::Root);
    if !is_in_own_mounts("mkdir point") {
        return;
    }
    let (point, file) = (work().join("point"), work().join("point/file"));
    fs::write(&file, "below").expect("write");
    // Twice: the next ones are ready by then.
    for _ in 0..2 {
        assert_eq!(said(|| content(&file)), "below");
    }
    mount(&["-t", "tmpfs", "none"], &point);
    fs::write(&file, "mounted").expect("write");
    for _ in 0..3 {
        assert_eq!(said(|| content(&file)), "mounted");
    }
}

/// An ordinary user is shown a copy of a directory in which something is mounted.
fn what_is_made_beside_a_mount_is_seen() {
    require!(Feature::OrdinaryUser);
    if !is_in_own_mounts("mkdir point; mount -t tmpfs none point") {
        return;
    }
    let paths: Vec<PathBuf> =
        ["file", "directory", "directory/below", "link"].iter().map(|name| work().join(name)).collect();
    let look = || {
        let kind = |path: &PathBuf| match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => "directory".to_owned(),
            Ok(metadata) if metadata.is_symlink() => format!("{:?}", fs::read_link(path)),
            _ => content(path),
        };
        paths.iter().map(kind).collect::<Vec<_>>().join("\n")
    };
    let steps: [&dyn Fn() -> std::io::Result<()>; 7] = [
        &|| fs::write(&paths[0], "made"),
        &|| fs::write(&paths[0], "changed"),
        &|| fs::create_dir(&paths[1]),
        &|| fs::write(&paths[2], "made"),
        &|| std::os::unix::fs::symlink("file", &paths[3]),
        &|| fs::remove_file(&paths[0]),
        &|| fs::remove_dir_all(&paths[1]),
    ];
    for (number, step) in steps.iter().enumerate() {
        for _ in 0..2 {
            assert_eq!(said(look), look(), "before step {number}");
        }
        step().expect("the directory is ours");
    }
    assert_eq!(said(look), look());
}

/// What the host holds open there is a copy inside, too; its own descriptors have what was committed.
fn open_files_beside_a_mount_go_on() {
    require!(Feature::OrdinaryUser);
    if !is_in_own_mounts("mkdir point; mount -t tmpfs none point; echo one > written; echo two > read") {
        return;
    }
    let (written, read) = (work().join("written"), work().join("read"));
    let mut writer = fs::File::options().read(true).write(true).open(&written).expect("open");
    let mut reader = fs::File::open(&read).expect("open");
    let before = [&writer, &reader].map(|file| file.metadata().expect("stat").ino());
    writer.seek(SeekFrom::End(0)).expect("seek");
    reader.seek(SeekFrom::Start(1)).expect("seek");
    for round in 0..3 {
        let change = |writer: &mut fs::File, reader: &mut fs::File| {
            writeln!(writer, "inside {round}").expect("write");
            fs::write(&read, format!("rewritten {round}")).expect("write");
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("read");
            text
        };
        let old = (content(&written), content(&read), writer.stream_position().expect("position"));
        said(|| change(&mut writer, &mut reader));
        assert_eq!((content(&written), content(&read), writer.stream_position().expect("position")), old);
        committed(|| assert_eq!(change(&mut writer, &mut reader), format!("ewritten {round}")));
        writeln!(writer, "outside {round}").expect("write");
        assert_eq!(reader.stream_position().expect("position"), content(&read).len() as u64);
        reader.seek(SeekFrom::Start(1)).expect("seek");
        assert_eq!([&writer, &reader].map(|file| file.metadata().expect("stat").ino()), before);
    }
    let rounds: String = (0..3).map(|round| format!("inside {round}\noutside {round}\n")).collect();
    assert_eq!(content(&written), format!("one\n{rounds}"));
    assert_eq!(content(&read), "rewritten 2");
}

/// Opening one for writing fails at once when nobody inside reads it. Outside somebody does.
fn fifos_of_the_outside_are_not_reached() {
    const PLACE: &str = "mkdir place; mkfifo fifo place/fifo; ";
    // A read-only mount needs no overlay for what is written; beside a mount an ordinary user has none.
    let make_it_read_only = "mount --bind place place; mount -o remount,bind,ro place";
    if !is_in_own_mounts(&format!("{PLACE}{make_it_read_only}")) {
        return;
    }
    let open = |path: &Path, writes: bool| {
        let at_once = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        fs::OpenOptions::new().write(writes).read(!writes).custom_flags(at_once).open(path)
    };
    for name in ["fifo", "place/fifo"] {
        let path = work().join(name);
        let _reader = open(&path, false).expect("open for reading");
        assert!(open(&path, true).is_ok(), "{name} outside");
        let found =
            said(|| open(&path, true).map_or_else(|error| error.to_string(), |_| "opened".to_owned()));
        assert!(found.contains("No such device or address"), "{name} inside: {found}");
    }
}

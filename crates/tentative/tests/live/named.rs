//! Descriptors whose path leads nowhere or elsewhere: refused by name, or opened again as what they are; and the standard
//! streams that are shared.

use std::{
    env,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, mkdirat, openat},
    io::{Errno, dup},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use tentative::{
    process::gaps::Uncontained,
    transaction::{BeginError, Branch, Options, Output, begin},
};
use tentative_testkit::{Feature, cases::Case, require};

use crate::{
    ahead::{is_in_own_mounts, mount},
    committed, ended, options, work,
};

pub(crate) const CASES: &[Case] = &[
    ("too_long_a_path_refuses", too_long_a_path_refuses),
    ("a_directory_is_no_output_stream", a_directory_is_no_output_stream),
    ("input_that_can_be_written_is_shown", input_that_can_be_written_is_shown),
    ("a_name_with_the_mark_of_a_deletion_is_a_name", a_name_with_the_mark_of_a_deletion_is_a_name),
    ("a_name_that_is_gone_refuses", a_name_that_is_gone_refuses),
    ("a_deleted_directory_is_not_its_decoy", a_deleted_directory_is_not_its_decoy),
    ("what_is_mounted_over_refuses", what_is_mounted_over_refuses),
];

fn refused(wanted: impl Fn(&BeginError) -> bool) {
    match begin(&options()) {
        Err(error) => assert!(wanted(&error), "{error}"),
        Ok(begun) => panic!("{begun:?}"),
    }
}

fn stale(open: &File) -> impl Fn(&BeginError) -> bool + use<> {
    let wanted = open.as_raw_fd();
    move |error| matches!(error, BeginError::Reopen { number, errno: Errno::STALE } if *number == wanted)
}

fn too_long_a_path_refuses() {
    let long = |open: &OwnedFd| {
        let wanted = open.as_raw_fd();
        move |error: &BeginError| matches!(error, BeginError::Descriptor { number, kind: Uncontained::LongPath } if *number == wanted)
    };
    let name = "x".repeat(250);
    let mut directory: OwnedFd = File::open(work()).expect("open").into();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for _ in 0..20 {
        mkdirat(&directory, &name, Mode::RWXU).expect("mkdir");
        directory = openat(&directory, &name, flags, Mode::empty()).expect("open");
    }
    refused(long(&directory));
    let file: OwnedFd =
        openat(&directory, "file", OFlags::RDWR | OFlags::CREATE, Mode::RUSR | Mode::WUSR).expect("open");
    drop(directory);
    refused(long(&file));
    drop(file);
    committed(|| ());
}

fn a_directory_is_no_output_stream() {
    let below = work().join("below");
    fs::create_dir(&below).expect("mkdir");
    let open = File::open(&below).expect("open");
    let (output, error) = (dup(std::io::stdout()).expect("dup"), dup(std::io::stderr()).expect("dup"));
    let restore = || {
        dup2_stdout(&output).expect("dup");
        dup2_stderr(&error).expect("dup");
    };
    dup2_stdout(&open).expect("dup");
    dup2_stderr(&open).expect("dup");
    let end = ended(&options(), |_| {
        for number in [1, 2] {
            fs::write(format!("/proc/self/fd/{number}/made"), "").expect("write inside");
            fs::write(format!("/proc/self/fd/{number}/../made"), "").expect("write inside");
        }
    });
    restore();
    assert_eq!(end.report.changes.len(), 2, "{:?}", end.report.changes);
    assert!(end.report.effects.is_empty(), "{:?}", end.report.effects);
    assert!(!below.join("made").exists() && !work().join("made").exists());
    fs::remove_dir(&below).expect("rmdir");
    dup2_stdout(&open).expect("dup");
    let begun = begin(&options());
    restore();
    assert!(matches!(begun, Err(BeginError::Reopen { number: 1, .. })), "{begun:?}");
}

fn shown(options: &Options, inside: impl FnOnce(&mut Branch)) -> Vec<String> {
    ended(options, inside).report.effects.into_iter().map(|effect| effect.target).collect()
}

fn input_that_can_be_written_is_shown() {
    let (mut ours, theirs) = UnixStream::pair().expect("pair");
    dup2_stdin(&theirs).expect("dup");
    drop(theirs);
    for output in [Output::Live, Output::Hold, Output::Capture] {
        let without = [tentative::layer::Layer::World].into_iter().collect();
        for options in [Options { output, ..options() }, Options { output, without, ..options() }] {
            let shown = shown(&options, |_| {
                // It is shared, for reading.
                rustix::io::write(std::io::stdin(), b"answer").map(|_| ()).expect("write");
            });
            assert!(shown.contains(&"standard input (a socket)".to_owned()), "{shown:?}");
            let mut answer = [0; 6];
            ours.read_exact(&mut answer).expect("read");
            assert_eq!(&answer, b"answer");
        }
    }
    dup2_stdin(File::open("/etc/passwd").expect("open")).expect("dup");
    let shown = shown(&options(), |_| ());
    assert!(shown.iter().all(|what| !what.starts_with("standard input")), "{shown:?}");
}

fn a_name_with_the_mark_of_a_deletion_is_a_name() {
    let path = work().join("log (deleted)");
    let mut file = File::create(&path).expect("create");
    file.write_all(b"outside ").expect("write");
    let inode = file.metadata().expect("stat").ino();
    ended(&options(), |_| file.write_all(b"rolled back").expect("write inside"));
    assert_eq!(fs::read(&path).expect("read"), b"outside ");
    committed(|| {
        file.write_all(b"inside ").expect("write inside");
        assert_eq!(fs::read(&path).expect("read inside"), b"outside inside ");
    });
    file.write_all(b"after").expect("still the same file");
    assert_eq!(fs::read(&path).expect("read"), b"outside inside after");
    assert_eq!(fs::metadata(&path).expect("stat").ino(), inode);
}

fn a_name_that_is_gone_refuses() {
    let (name, other) = (work().join("name"), work().join("other"));
    let mut file = File::create(&name).expect("create");
    file.write_all(b"outside").expect("write");
    fs::hard_link(&name, &other).expect("link");
    let mut read = File::open(&name).expect("open");
    fs::remove_file(&name).expect("remove");
    refused(|error| {
        error.to_string().contains("a file that was opened under a name that is gone, but has others")
    });
    drop(file);
    // What is only read can be a copy.
    let mut text = String::new();
    committed(|| {
        read.read_to_string(&mut text).expect("read inside");
    });
    assert_eq!(text, "outside");
    let left = fs::read_dir(work()).expect("list").count();
    assert_eq!((left, fs::read(&other).expect("read")), (1, b"outside".to_vec()));
}

fn a_deleted_directory_is_not_its_decoy() {
    let (name, decoy) = (work().join("ee"), work().join("ee (deleted)"));
    fs::create_dir(&name).expect("mkdir");
    let open = File::open(&name).expect("open");
    fs::remove_dir(&name).expect("rmdir");
    fs::create_dir(&decoy).expect("mkdir");
    refused(stale(&open));
    drop(open);
    committed(|| ());
}

fn what_is_mounted_over_refuses() {
    require!(Feature::Root);
    if !is_in_own_mounts("mkdir point && mount -t tmpfs none point") {
        return;
    }
    let point = work().join("point");
    let inode = |path: &Path| fs::metadata(path).expect("stat").ino();
    let file = point.join("file");
    fs::write(&file, "below").expect("write");
    let (of_file, of_directory) = (File::open(&file).expect("open"), File::open(&point).expect("open"));
    let before = env::current_dir().expect("cwd");
    env::set_current_dir(&point).expect("chdir");
    let below = (inode(&point), inode(&file));
    mount(&["-t", "tmpfs", "none"], &point);
    fs::write(&file, "over").expect("write");
    assert_eq!((inode(&point), inode(&file)), below, "only the device tells them");
    refused(|error| matches!(error, BeginError::Directory(_)));
    env::set_current_dir(before).expect("chdir");
    refused(stale(&of_file));
    drop(of_file);
    refused(stale(&of_directory));
    drop(of_directory);
    committed(|| ());
}

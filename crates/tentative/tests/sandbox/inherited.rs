//! Descriptors that a program is given: none leads outside, and what somebody outside sees is in the record.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, mkdirat, openat},
    io::{FdFlags, fcntl_setfd},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use tempfile::TempDir;
use tentative::{
    effect::Class,
    program::{Ended, How, ProgramOptions},
    transaction::Output,
};

use crate::{
    program::{run_and_roll_back, script},
    runner::Test,
};

pub(crate) const TESTS: &[Test] = &[
    ("what_has_too_long_a_path_is_closed", what_has_too_long_a_path_is_closed),
    ("a_directory_is_no_stream", a_directory_is_no_stream),
    ("a_deleted_directory_is_no_stream", a_deleted_directory_is_no_stream),
    ("a_deleted_file_is_a_copy", a_deleted_file_is_a_copy),
    ("input_that_can_be_written_is_shown", input_that_can_be_written_is_shown),
];

/// What is in the record about descriptors.
fn told(ended: &Ended, class: Class) -> Vec<&str> {
    let effects = ended.record.effects.iter();
    effects
        .filter(|effect| effect.class == class && effect.operation == "inherit")
        .map(|effect| effect.target.as_str())
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let names =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// A file deeper than a path can name, open for reading and writing.
fn far_below(top: &Path) -> File {
    let name = "x".repeat(250);
    let mut directory: rustix::fd::OwnedFd = File::open(top).unwrap().into();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for _ in 0..20 {
        mkdirat(&directory, &name, Mode::RWXU).unwrap();
        directory = openat(&directory, &name, flags, Mode::empty()).unwrap();
    }
    openat(&directory, "file", OFlags::RDWR | OFlags::CREATE, Mode::RUSR | Mode::WUSR).unwrap().into()
}

fn what_has_too_long_a_path_is_closed() {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let mut file = far_below(directory.path());
    file.write_all(b"outside").unwrap();
    let number = file.as_raw_fd();
    let ended = run_and_roll_back(&script(&format!("echo escaped >&{number}"))).unwrap();
    assert_ne!(ended.how, How::Exited(0));
    let words = format!("descriptor {number} (a file whose path is too long)");
    assert!(told(&ended, Class::Blocked).contains(&words.as_str()), "{:?}", ended.record.effects);
    for stream in [|file: &File| dup2_stdin(file), |file: &File| dup2_stdout(file)] {
        stream(&file).unwrap();
        run_and_roll_back(&script("echo escaped; echo escaped >&0")).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), 7);
}

/// Runs what wants to change the directory that each standard stream is.
fn change_at_each_stream(open: &File) {
    let text = "for number in 0 1 2; do (cd -P /proc/self/fd/$number/. && touch made ../made && rm victim; cd .. && \
                touch made); done";
    dup2_stdin(open).unwrap();
    dup2_stdout(open).unwrap();
    let kept = std::io::stderr().lock();
    let error = rustix::io::dup(&kept).unwrap();
    dup2_stderr(open).unwrap();
    let ended = run_and_roll_back(&script(text));
    dup2_stderr(&error).unwrap();
    assert_eq!(told(&ended.unwrap(), Class::Shown), Vec::<&str>::new());
}

fn a_directory_is_no_stream() {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let below = directory.path().join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("victim"), "").unwrap();
    change_at_each_stream(&File::open(&below).unwrap());
    assert_eq!(
        (names(directory.path()), names(&below)),
        (vec!["below".to_owned()], vec!["victim".to_owned()])
    );
}

fn a_deleted_directory_is_no_stream() {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let below = directory.path().join("below");
    fs::create_dir(&below).unwrap();
    let open = File::open(&below).unwrap();
    fs::remove_dir(&below).unwrap();
    // Its parent can be reached by it.
    change_at_each_stream(&open);
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

fn a_deleted_file_is_a_copy() {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let path = directory.path().join("doomed");
    fs::write(&path, "first\nsecond\n").unwrap();
    let mut open = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    open.seek(SeekFrom::Start(6)).unwrap();
    fcntl_setfd(&open, FdFlags::empty()).unwrap();
    dup2_stdin(&open).unwrap();
    let text = |number: i32| {
        format!("read line <&{number} && test $line = second && echo escaped > /proc/self/fd/{number}")
    };
    for number in [0, open.as_raw_fd()] {
        let ended = run_and_roll_back(&script(&text(number))).unwrap();
        let read = fs::read_to_string(format!("/proc/self/fd/{number}")).unwrap();
        assert_eq!((ended.how, read.as_str()), (How::Exited(0), "first\nsecond\n"));
    }
    // One that the sandbox has not: its own process's.
    dup2_stdin(File::open(format!("/proc/{}/status", std::process::id())).unwrap()).unwrap();
    let ended = run_and_roll_back(&script("read name rest && test $name = Name:")).unwrap();
    assert_eq!(ended.how, How::Exited(0));
}

fn input_that_can_be_written_is_shown() {
    for output in [Output::Live, Output::Hold] {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"input\n").unwrap();
        dup2_stdin(&theirs).unwrap();
        drop(theirs);
        let text = "read line && echo answer >&0 && test $line = input";
        let ended = run_and_roll_back(&ProgramOptions { output, ..script(text) }).unwrap();
        assert_eq!(ended.how, How::Exited(0));
        let mut answer = [0; 7];
        ours.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer\n");
        let shown = told(&ended, Class::Shown);
        assert!(shown.iter().any(|what| what.starts_with("standard input (socket:")), "{shown:?}");
    }
    // One that is the output as well is listed once.
    let (_ours, theirs) = UnixStream::pair().unwrap();
    dup2_stdin(&theirs).unwrap();
    dup2_stdout(&theirs).unwrap();
    let ended = run_and_roll_back(&script("echo")).unwrap();
    assert!(told(&ended, Class::Shown).iter().all(|what| !what.starts_with("standard input")));
    let read_only = File::open("/etc/passwd").unwrap();
    fcntl_setfd(&read_only, FdFlags::empty()).unwrap();
    dup2_stdin(&read_only).unwrap();
    let ended = run_and_roll_back(&script("exit 0")).unwrap();
    assert!(told(&ended, Class::Shown).iter().all(|what| !what.starts_with("standard input")));
}

//! Programs run tentatively, from the launch to the record.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use tempfile::TempDir;
use tentative::{
    change::{ChangeKind, Subject},
    effect::{Class, Effect},
    layer::Layer,
    program::{Ended, How, ProgramOptions, RunError, output, run},
    store::Store,
    transaction::Output,
};

use crate::runner::Test;

pub(crate) const TESTS: &[Test] = &[
    ("true_ends_with_0", true_ends_with_0),
    ("status_and_signal_are_the_programs", status_and_signal_are_the_programs),
    ("an_unknown_program_is_named", an_unknown_program_is_named),
    ("a_changed_file_is_a_change", a_changed_file_is_a_change),
    ("time_ends_a_program", time_ends_a_program),
    ("output_is_held_in_order", output_is_held_in_order),
    ("processes_left_running_end", processes_left_running_end),
    ("directories_below_are_renamed", directories_below_are_renamed),
    ("the_memory_limit_holds", the_memory_limit_holds),
];

/// Options for a shell script.
pub(crate) fn script(text: &str) -> ProgramOptions {
    let argv = ["/bin/sh", "-c", text].iter().map(OsString::from).collect();
    ProgramOptions { argv, ..ProgramOptions::default() }
}

/// Runs in a store of its own, rolls back, and says what was recorded.
pub(crate) fn run_and_roll_back(options: &ProgramOptions) -> Result<Ended, RunError> {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let mut transaction = store.create().unwrap();
    let ended = run(options, &mut transaction);
    transaction.discard().unwrap();
    ended
}

/// The effects that are not about the test's own standard streams.
pub(crate) fn crossings(ended: &Ended) -> Vec<Effect> {
    let effects = ended.record.effects.iter();
    effects.filter(|effect| effect.class != Class::Shown && effect.operation != "inherit").cloned().collect()
}

fn true_ends_with_0() {
    let ended = run_and_roll_back(&script("exit 0")).unwrap();
    assert_eq!(ended.how, How::Exited(0));
    assert_eq!(ended.record.changes, []);
    assert_eq!(crossings(&ended), []);
}

fn status_and_signal_are_the_programs() {
    assert_eq!(run_and_roll_back(&script("exit 7")).unwrap().how, How::Exited(7));
    assert_eq!(run_and_roll_back(&script("kill -SEGV $$")).unwrap().how, How::Signalled(11));
}

fn an_unknown_program_is_named() {
    let argv = vec![OsString::from("no-such-program-anywhere")];
    let error = run_and_roll_back(&ProgramOptions { argv, ..ProgramOptions::default() }).unwrap_err();
    assert!(matches!(&error, RunError::Execute { source, .. } if source.raw_os_error() == 2), "{error}");
}

fn a_changed_file_is_a_change() {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "before").unwrap();
    let ended = run_and_roll_back(&script(&format!("echo after > {}", file.display()))).unwrap();
    let [change] = &ended.record.changes[..] else { panic!("{:?}", ended.record.changes) };
    assert_eq!(change.kind, ChangeKind::Modified);
    assert_eq!(change.subject, Subject::Path(file.display().to_string()));
    assert_eq!(fs::read_to_string(&file).unwrap(), "before");
}

fn time_ends_a_program() {
    let timeout = Some(Duration::from_millis(200));
    let ended = run_and_roll_back(&ProgramOptions { timeout, ..script("sleep 30") }).unwrap();
    assert!(ended.timed_out);
    assert_eq!(ended.how, How::Signalled(15));
}

fn output_is_held_in_order() {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let mut transaction = store.create().unwrap();
    let held = ProgramOptions { output: Output::Hold, ..script("echo one; sleep 0.1; echo two >&2") };
    run(&held, &mut transaction).unwrap();
    let records = output::read(transaction.dir()).unwrap();
    assert_eq!(
        records,
        [(output::Stream::Output, b"one\n".to_vec()), (output::Stream::Error, b"two\n".to_vec())]
    );
    transaction.discard().unwrap();
}

fn processes_left_running_end() {
    let ended = run_and_roll_back(&script("sleep 300 & exit 0")).unwrap();
    let effects = crossings(&ended);
    assert!(effects.iter().any(|effect| effect.target == "1 process left running"), "{effects:?}");
    // Without a pid namespace too.
    let without = [Layer::Kin].into_iter().collect();
    let text = "setsid sleep 300.5 & (sleep 300.5 &) ; exit 0";
    let ended = run_and_roll_back(&ProgramOptions { without, ..script(text) }).unwrap();
    let effects = crossings(&ended);
    assert!(effects.iter().any(|effect| effect.target == "2 processes left running"), "{effects:?}");
}

fn directories_below_are_renamed() {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/file"), "content").unwrap();
    fs::write(tree.join("a/other"), "other").unwrap();
    let text = format!(
        "cd {} && mv a z && test ! -e a && cat z/b/file z/other && echo more >> z/other && mkdir new && mv z new/ && \
         cat new/z/other && mkdir full && touch full/x && ! mv -T new full",
        tree.display()
    );
    let ended = run_and_roll_back(&script(&text)).unwrap();
    assert_eq!(ended.how, How::Exited(0), "{:?}", ended.record);
    assert!(tree.join("a/b/file").exists());
}

fn the_memory_limit_holds() {
    let python = Path::new("/usr/bin/python3");
    let argv = ["python3", "-c", "x = bytearray(512 << 20)"].iter().map(OsString::from).collect();
    let options = ProgramOptions { argv, memory_limit: Some(256 << 20), ..ProgramOptions::default() };
    if python.exists() {
        let ended = run_and_roll_back(&options).unwrap();
        assert_eq!(ended.how, How::Exited(1));
        assert_eq!(ended.memory_limit_by, Some("RLIMIT_AS, for each process"));
    }
}

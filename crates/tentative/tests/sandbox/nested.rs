//! Transactions inside a transaction: one listener serves both, each has its own record.

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use tempfile::TempDir;
use tentative::{
    effect::Class,
    program::{Ended, How, ProgramOptions, RunError, run},
    store::Store,
};

use crate::{
    program::crossings,
    reach::{PYTHON, programs},
    runner::Test,
};

pub(crate) const TESTS: &[Test] = &[
    ("an_inner_transaction_has_its_own_record", an_inner_transaction_has_its_own_record),
    ("a_third_level_is_refused_clearly", a_third_level_is_refused_clearly),
];

/// The word that makes this test's own executable an inner runner; what follows is its program.
pub(crate) const INNER: &str = "--as-inner-runner";

/// The inner runner: runs a program, rolls it back, and ends with the number of its blocked effects, or 99.
pub(crate) fn inner(mut argv: Vec<OsString>) -> ExitCode {
    let store = Store::open(Path::new(&argv.remove(0))).unwrap();
    let mut transaction = store.create().unwrap();
    let ended = run(&ProgramOptions { argv, ..ProgramOptions::default() }, &mut transaction);
    transaction.discard().unwrap();
    match ended {
        Ok(ended) if ended.how == How::Exited(0) || ended.how == How::Exited(1) => {
            let blocked = ended.record.effects.iter().filter(|effect| effect.class == Class::Blocked);
            ExitCode::from(
                u8::try_from(blocked.filter(|effect| effect.operation != "inherit").count()).unwrap(),
            )
        }
        Ok(ended) => {
            println!("    inner: {:?}", ended.how);
            match ended.how {
                How::Exited(status) => ExitCode::from(u8::try_from(status).unwrap()),
                How::Signalled(_) => ExitCode::from(98),
            }
        }
        Err(RunError::TooDeep) => ExitCode::from(97),
        Err(error) => {
            println!("    inner: {error}");
            ExitCode::from(99)
        }
    }
}

/// Runs this executable as an inner runner, once for each level. Inside, the store's place is empty and the inner one's.
fn run_nested(levels: usize, program: &[&str]) -> Ended {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let store = directory.path().join("store");
    let own = env::current_exe().unwrap();
    let level = [own.into_os_string(), OsString::from(INNER), store.clone().into_os_string()];
    let mut argv: Vec<OsString> = (0..levels).flat_map(|_| level.clone()).collect();
    argv.extend(program.iter().map(OsString::from));
    let mut transaction = Store::open(&store).unwrap().create().unwrap();
    let ended = run(&ProgramOptions { argv, ..ProgramOptions::default() }, &mut transaction);
    transaction.discard().unwrap();
    ended.unwrap()
}

fn an_inner_transaction_has_its_own_record() {
    let script = programs().join("reach.py");
    let ended = run_nested(1, &[PYTHON, script.to_str().unwrap(), "far"]);
    // One effect in the inner record; the outer one has nothing: the inner transaction refused it.
    assert_eq!(ended.how, How::Exited(1), "{:?}", crossings(&ended));
    assert_eq!(crossings(&ended), []);

    let directory = TempDir::new_in("/var/tmp").unwrap();
    let made = directory.path().join("made");
    let text = format!("touch {0} && test -e {0}", made.display());
    let ended = run_nested(1, &["/bin/sh", "-c", &text]);
    assert_eq!(ended.how, How::Exited(0));
    assert!(ended.record.changes.is_empty(), "{:?}", ended.record.changes);
}

fn a_third_level_is_refused_clearly() {
    let ended = run_nested(2, &["/bin/true"]);
    assert_eq!(ended.how, How::Exited(97));
}

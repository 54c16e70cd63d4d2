//! How long things take; prints and judges nothing.

use std::{ffi::OsString, process::Command, time::Instant};

use tentative::program::ProgramOptions;

use crate::{program::run_and_roll_back, runner::Test};

pub(crate) const TESTS: &[Test] = &[("true_beside_bwrap", true_beside_bwrap)];

fn true_beside_bwrap() {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let began = Instant::now();
        let argv = vec![OsString::from("/bin/true")];
        run_and_roll_back(&ProgramOptions { argv, ..ProgramOptions::default() }).unwrap();
        ours.push(began.elapsed());
        let began = Instant::now();
        let bwrap =
            Command::new("bwrap").args(["--unshare-all", "--dev-bind", "/", "/", "/bin/true"]).status();
        if bwrap.is_err() {
            return;
        }
        theirs.push(began.elapsed());
    }
    ours.sort();
    theirs.sort();
    println!("ours {:?} bwrap {:?}", ours[20], theirs[20]);
}

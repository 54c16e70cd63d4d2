//! A test runner with one thread: runs each test in a forked child, so that a test that fails leaves nothing behind in
//! the next. Understands what cargo test and nextest pass (`--list`, `--exact`, a filter).

use std::{env, process::ExitCode};

use rustix::process::{WaitOptions, waitpid};
use tentative_sys::kin::{Cloned, Namespaces, clone_into, exit_now};

/// A test by name.
pub(crate) type Test = (&'static str, fn());

pub(crate) fn run(groups: &[(&str, &[Test])]) -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let exact = words.iter().any(|word| word == "--exact");
    let filter = words.iter().find(|word| !word.starts_with('-'));
    let tests = groups
        .iter()
        .flat_map(|(group, tests)| tests.iter().map(move |(name, test)| (format!("{group}::{name}"), *test)));
    let chosen: Vec<(String, fn())> = tests
        .filter(|(name, _)| {
            filter.is_none_or(|wanted| if exact { name == wanted } else { name.contains(wanted.as_str()) })
        })
        .collect();
    if words.iter().any(|word| word == "--list") {
        let ignored_only = words.iter().any(|word| word == "--ignored");
        chosen.iter().filter(|_| !ignored_only).for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let failed: Vec<&String> =
        chosen.iter().filter(|(name, test)| !passes(name, *test)).map(|(name, _)| name).collect();
    println!("\ntest result: {} passed; {} failed", chosen.len() - failed.len(), failed.len());
    failed.iter().for_each(|name| {
        println!("    {name}: repeat with cargo test -p tentative --test sandbox -- --exact {name}")
    });
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(name: &str, test: fn()) -> bool {
    match clone_into(Namespaces::NONE).expect("a test process can be forked") {
        Cloned::Child => exit_now(i32::from(std::panic::catch_unwind(test).is_err())),
        Cloned::Parent { pid, .. } => {
            let ended = waitpid(Some(pid), WaitOptions::empty())
                .expect("the test is a child")
                .map(|(_, status)| status);
            let passed = ended.and_then(|status| status.exit_status()) == Some(0);
            println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
            passed
        }
    }
}

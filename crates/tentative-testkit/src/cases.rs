//! Cases that each need a process of their own with one thread, which the usual harness does not offer: a test binary
//! without that harness lists them, runs those that are chosen, and starts itself again for each.
//!
//! It speaks the harness's protocol (`--list`, `--ignored`, `--exact`, filters), so any runner can list and choose
//! them. Invariant: in the process of a case nothing has run before it but the start of `main`.

use std::{
    env,
    io::{self, Write as _},
    process::{Command, ExitCode},
};

/// A case and its name.
pub type Case = (&'static str, fn());

/// Variable that names the case to a process that is to run it.
pub const CASE: &str = "TENTATIVE_TEST_CASE";

/// Is the case that the environment asks for, or else runs those that the arguments choose. `run` gets the name of each
/// and the command for it, runs that, and says whether the case passed.
///
/// # Panics
/// When the environment asks for a case that there is not.
pub fn main(cases: &[Case], mut run: impl FnMut(&str, &mut Command) -> bool) -> ExitCode {
    if let Ok(name) = env::var(CASE) {
        let case = cases.iter().find(|(known, _)| *known == name).expect("a known case");
        case.1();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        for (name, _) in cases.iter().filter(|_| !has("--ignored")) {
            say(&format!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let fits = |name: &str, filter: &str| if has("--exact") { name == filter } else { name.contains(filter) };
    let (mut passed, mut failed) = (0, 0);
    for (name, _) in cases {
        if !filters.is_empty() && !filters.iter().any(|filter| fits(name, filter)) {
            continue;
        }
        let mut command = Command::new(env::current_exe().expect("own path"));
        let good = run(name, command.env(CASE, name));
        say(&format!("test {name} ... {}", if good { "ok" } else { "FAILED" }));
        if good { passed += 1 } else { failed += 1 }
    }
    say(&format!("\ntest result: {passed} passed; {failed} failed"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(line: &str) {
    // A reader that is gone does not want to know.
    let _closed_stream = writeln!(io::stdout(), "{line}");
}

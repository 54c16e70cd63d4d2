//! Crash at every step: repeats a command with `TENTATIVE_CRASH_AT=*:1`, `*:2`, … until a run reaches its end.
//!
//! The product counts its crash points (feature `crash-points` of the sys crate) and kills itself at the one asked
//! for. A test must say how many steps it expects at least, since a product built without the feature has none. What
//! must hold after each crash is the test's business.

use std::process::{Command, ExitStatus};

/// Variable that names the step at which the product kills itself.
pub const CRASH_AT: &str = "TENTATIVE_CRASH_AT";

/// More steps than any verb has: a run that still crashes there never ends.
const MOST_STEPS: usize = 10_000;

/// How one run of the driver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed {
    /// The step at which it was told to crash, from 1.
    pub step: usize,
    /// How it ended.
    pub status: ExitStatus,
}

/// Runs a command once for each of its steps, killed there; returns how many steps there were.
///
/// `make` makes the command for one run, `reached_its_end` tells from its status whether it was past the last step,
/// and `check` looks at what a crash left. The run that reaches its end is not checked.
///
/// # Panics
///
/// When a command cannot be started or never comes to its end.
pub fn at_every_step(
    mut make: impl FnMut() -> Command,
    reached_its_end: impl Fn(ExitStatus) -> bool,
    mut check: impl FnMut(Crashed),
) -> usize {
    for step in 1..MOST_STEPS {
        let status = make().env(CRASH_AT, format!("*:{step}")).status().expect("the command can be started");
        if reached_its_end(status) {
            return step - 1;
        }
        check(Crashed { step, status });
    }
    panic!("still crashing after {MOST_STEPS} steps")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_visited_once() {
        let mut seen = Vec::new();
        let steps = at_every_step(
            || {
                let mut command = Command::new("sh");
                command.args(["-c", "test ${TENTATIVE_CRASH_AT#*:} -gt 4 || kill -9 $$"]);
                command
            },
            |status| status.success(),
            |crashed| seen.push(crashed.step),
        );
        assert_eq!((steps, seen), (4, vec![1, 2, 3, 4]));
    }
}

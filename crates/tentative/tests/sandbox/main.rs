//! Sandboxes built for real, as whoever runs the tests; without the test harness, because a sandbox is built only by a
//! process with one thread.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, which the lints do not see without the harness"
)]

mod allow;
mod build;
mod inherited;
mod killed;
mod nested;
mod program;
mod reach;
mod runner;

fn main() -> std::process::ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == nested::INNER) {
        return nested::inner(words.collect());
    }
    runner::run(&[
        ("allow", allow::TESTS),
        ("build", build::TESTS),
        ("inherited", inherited::TESTS),
        ("killed", killed::TESTS),
        ("nested", nested::TESTS),
        ("program", program::TESTS),
        ("reach", reach::TESTS),
    ])
}

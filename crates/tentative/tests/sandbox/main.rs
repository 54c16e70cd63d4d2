//! Sandboxes built for real, as whoever runs the tests; without the test harness, because a sandbox is built only by a
//! process with one thread.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, which the lints do not see without the harness"
)]

mod allow;
mod build;
mod killed;
mod program;
mod reach;
mod runner;
mod speed;

fn main() -> std::process::ExitCode {
    runner::run(&[
        ("allow", allow::TESTS),
        ("build", build::TESTS),
        ("killed", killed::TESTS),
        ("program", program::TESTS),
        ("reach", reach::TESTS),
        ("speed", speed::TESTS),
    ])
}

//! Sandboxes built for real, as whoever runs the tests; without the test harness, because a sandbox is built only by a
//! process with one thread.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, which the lints do not see without the harness"
)]

mod build;
mod program;
mod reach;
mod runner;
mod speed;

fn main() -> std::process::ExitCode {
    runner::run(&[
        ("build", build::TESTS),
        ("program", program::TESTS),
        ("reach", reach::TESTS),
        ("speed", speed::TESTS),
    ])
}

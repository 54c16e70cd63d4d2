//! Sandboxes built for real, as whoever runs the tests; without the test harness, because a sandbox is built only by a
//! process with one thread.

mod build;
mod runner;

fn main() -> std::process::ExitCode {
    runner::run(&[("build", build::TESTS)])
}

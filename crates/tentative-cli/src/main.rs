//! The `tentative` executable.

fn main() -> std::process::ExitCode {
    tentative_cli::run(std::env::args_os())
}

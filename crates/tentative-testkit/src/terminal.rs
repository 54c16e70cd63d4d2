//! A real terminal: a tmux server of the test's own, with one window that runs a shell command line.
//!
//! What a test sees is the screen, as a person would. Dropping the terminal hangs it up and ends the server.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use crate::{Environment, environment::PATH};

/// How long something may take to show on the screen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal with a program in it.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Starts a shell in a new terminal; `tool` is the directory of the executable.
    ///
    /// # Panics
    ///
    /// When tmux does not start.
    #[must_use]
    pub fn start(environment: &Environment, tool: &Path) -> Terminal {
        let socket = environment.root().join("tmux");
        let mut command = environment.command("tmux");
        command
            .env("PATH", format!("{}:{PATH}", tool.display()))
            .env("SHELL", "/bin/sh")
            .env("PS1", "$ ")
            .env("NO_COLOR", "1")
            .arg("-S")
            .arg(&socket)
            .args(["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "50", "-s", "test", "/bin/sh"]);
        let output = command.output().expect("tmux is there");
        assert!(output.status.success(), "tmux starts: {output:?}");
        let terminal = Terminal { socket };
        terminal.wait_until("a prompt", |screen| screen.trim() == "$");
        terminal
    }

    /// Types a line and Enter.
    pub fn type_line(&self, line: &str) {
        self.tmux(&["send-keys", "-t", "test", "-l", line]);
        self.press("Enter");
    }

    /// Presses one key, by tmux's name of it: `c`, `Enter`, `C-c`, `Right`.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "test", key]);
    }

    /// What is on the screen, without the blanks at its end.
    #[must_use]
    pub fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p", "-t", "test"]);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Waits until a text is on the screen.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn wait_for(&self, text: &str) {
        self.wait_until(text, |screen| screen.contains(text));
    }

    /// Waits until a line of the screen is this text, and nothing but it.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn wait_for_line(&self, text: &str) {
        self.wait_until(text, |screen| screen.lines().any(|line| line.trim_end() == text));
    }

    /// Waits until the screen is as it should be; `what` says how.
    ///
    /// # Panics
    ///
    /// When it does not become so.
    pub fn wait_until(&self, what: &str, reached: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if reached(&screen) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "waited for {what:?}; the screen is\n{screen}\n");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Hangs up: the terminal goes away under whatever runs in it.
    pub fn hang_up(&self) {
        self.tmux(&["kill-session", "-t", "test"]);
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux").arg("-S").arg(&self.socket).args(arguments).output().expect("tmux is there")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A server whose last session has ended is gone already.
        let _ = self.tmux(&["kill-server"]);
    }
}

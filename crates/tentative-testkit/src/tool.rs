//! The product's executable in an environment of its own: what tests of the command line say to it and read from it.
//!
//! Knows verbs and words that people see, nothing of how they come about.

use std::{
    io::Read as _,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use serde_json::Value;

use crate::{Environment, environment::PATH};

/// The executable, and where it runs.
#[derive(Debug)]
pub struct Tool {
    executable: &'static str,
    /// Its home, store and work directory.
    pub environment: Environment,
}

/// How a command ended, and what it wrote.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub printed: String,
    /// Its standard error.
    pub said: String,
}

impl Tool {
    /// An executable in a new environment.
    #[must_use]
    pub fn new(executable: &'static str) -> Tool {
        Tool { executable, environment: Environment::new() }
    }

    /// A command with these arguments, to be started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.environment.command(self.executable);
        command.args(arguments);
        command
    }

    /// Runs it with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments))
    }

    /// Starts it with these arguments and waits until its program has printed "ready".
    ///
    /// # Panics
    ///
    /// When it ends before.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = command.spawn().expect("it starts");
        let mut ready = [0_u8; 6];
        running.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("it runs");
        assert_eq!(&ready, b"ready\n");
        running
    }

    /// Runs a program from `PATH` in the environment.
    pub fn other(&self, program: &str, arguments: &[&str]) -> Ran {
        let mut command = self.environment.command(program);
        command.args(arguments);
        Ran::of(command)
    }

    /// Runs a shell script that can say `tentative`, in a mount namespace of its own. Root only.
    pub fn with_mounts(&self, script: &str) -> Ran {
        let beside = std::path::Path::new(self.executable).parent().expect("it is in a directory");
        let mut command = self.environment.command("unshare");
        command.args(["-m", "sh", "-c", script]).env("PATH", format!("{}:{PATH}", beside.display()));
        Ran::of(command)
    }

    /// Runs a script, keeps it, and returns the id.
    ///
    /// # Panics
    ///
    /// When it is not kept.
    #[track_caller]
    pub fn keep(&self, script: &str) -> String {
        let said = self.run(&["run", "--keep", "sh", "-c", script]).said;
        let (_, after) = said.split_once("kept as ").unwrap_or_else(|| panic!("it is kept: {said}"));
        after.chars().take(8).collect()
    }

    /// The transactions that are listed.
    ///
    /// # Panics
    ///
    /// When the list is none.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        let list = self.run(&["list", "--json"]).document();
        list["transactions"].as_array().expect("the list has transactions").clone()
    }
}

impl Ran {
    fn of(mut command: Command) -> Ran {
        let Output { status, stdout, stderr } = command.output().expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { status, printed: text(stdout), said: text(stderr) }
    }

    /// Asserts an exit status.
    ///
    /// # Panics
    ///
    /// When it ended otherwise.
    #[track_caller]
    pub fn ended(self, code: i32) -> Ran {
        assert_eq!(self.status.code(), Some(code), "{}", self.said);
        self
    }

    /// Asserts words on standard error.
    ///
    /// # Panics
    ///
    /// When it did not say them.
    #[track_caller]
    pub fn says(self, words: &str) -> Ran {
        assert!(self.said.contains(words), "{words}: {}", self.said);
        self
    }

    /// The JSON document on standard output.
    ///
    /// # Panics
    ///
    /// When there is something else.
    #[must_use]
    #[track_caller]
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.printed).unwrap_or_else(|error| panic!("{error}: {}", self.printed))
    }
}

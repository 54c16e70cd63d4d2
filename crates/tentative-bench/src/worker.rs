//! A process that sits inside a sandbox, or beside one, and times shell commands that it is sent.
//!
//! What a transaction costs while the code runs is measured from inside, so that starting and ending it do not count.
//! A line in is a command, a line out is how long it took in nanoseconds, or `failed`.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Answers commands until its input ends.
///
/// # Errors
///
/// When standard input or output is broken.
pub fn serve() -> Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        let started = Instant::now();
        let status = Command::new("/bin/sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        let elapsed = started.elapsed();
        let mut out = std::io::stdout().lock();
        if status.success() {
            writeln!(out, "{}", elapsed.as_nanos())?;
        } else {
            writeln!(out, "failed")?;
        }
        out.flush()?;
    }
    Ok(())
}

/// A running worker; it ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker by a command that runs `tentative-bench worker` wherever it should run.
    ///
    /// # Errors
    ///
    /// When the command cannot be started.
    pub fn start(command: &mut Command) -> Result<Worker> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the worker has an output")?);
        Ok(Worker { child, requests, answers })
    }

    /// Has a shell command run and timed in the worker's place.
    ///
    /// # Errors
    ///
    /// When it failed there, or the worker is gone.
    pub fn time(&mut self, command: &str) -> Result<Duration> {
        let requests = self.requests.as_mut().context("the worker still listens")?;
        writeln!(requests, "{command}")?;
        requests.flush()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim().parse() {
            Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds)),
            Err(_) => bail!("in the worker: {command}: {answer:?}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its input ends the worker, and with it the transaction around it.
        self.requests = None;
        drop(self.child.wait());
    }
}

//! Watching the program: its end, its stops, signals to pass on, the time limit, held output, and the notifications.
//!
//! One loop; nothing in it waits for the program except poll(2).

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, Signal, WaitOptions, WaitStatus, getpid, kill_current_process_group, kill_process_group, waitpid,
    },
};
use tentative_sys::kin::SignalQueue;

use super::{
    RunError,
    ended::How,
    launch::{self, LaunchStep},
    output::Held,
    terminal::Terminal,
};
use crate::{
    monitor::Monitor,
    sandbox::{Sandbox, Spawned},
};

/// How long a program has to end after TERM.
const GRACE: Duration = Duration::from_secs(5);
/// How long runners inside have to end after the program; what else is left of it waits as long to be killed.
const RUNNERS_END: Duration = Duration::from_millis(500);

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGUSR1: i32 = 10;
const SIGUSR2: i32 = 12;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGTSTP: i32 = 20;
const SIGWINCH: i32 = 28;

/// Signals that the runner takes and passes on.
pub(super) fn take_signals() -> Result<SignalQueue, Errno> {
    let taken = [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGCHLD, SIGCONT, SIGTSTP, SIGWINCH];
    SignalQueue::open(&taken)
}

/// Everything that is watched.
pub(super) struct Watch<'a> {
    pub(super) program: &'a Spawned,
    pub(super) sandbox: &'a Sandbox,
    pub(super) signals: &'a SignalQueue,
    pub(super) launch: OwnedFd,
    pub(super) terminal: Option<&'a Terminal>,
    pub(super) held: Option<Held>,
    pub(super) deadline: Option<Instant>,
}

/// A program that has ended and been reaped.
pub(super) struct Watched {
    pub(super) how: How,
    pub(super) timed_out: bool,
    pub(super) held: Option<Held>,
}

/// What became of the new process.
pub(super) enum Outcome {
    /// The program ran and ended.
    Ended(Watched),
    /// It never ran: the step that failed, if the process could say.
    NotLaunched(Option<(LaunchStep, Errno)>),
}

struct State {
    launching: bool,
    /// Somebody has killed init, which would end what is inside if the runner were killed.
    unguarded: bool,
    timed_out: bool,
    kill_at: Option<Instant>,
}

impl Watch<'_> {
    /// Serves until the program has ended.
    pub(super) fn run(mut self, monitor: &mut Monitor) -> Result<Outcome, RunError> {
        if let Some(held) = &mut self.held {
            held.let_go_of_writers();
        }
        let mut state = State { launching: true, unguarded: false, timed_out: false, kill_at: None };
        loop {
            self.wait(monitor, &state)?;
            monitor.dispatch().map_err(RunError::Watch)?;
            if let Some(held) = &mut self.held {
                held.drain().map_err(RunError::Hold)?;
            }
            if state.launching
                && let Some(failed) = self.launched(&mut state)?
            {
                self.reap();
                return Ok(Outcome::NotLaunched(failed));
            }
            self.pass_signals_on();
            self.keep_time(&mut state);
            self.keep_guard(&mut state);
            if let Some(how) = self.status()? {
                // Killed before it could say that it runs, or that it does not.
                if state.launching && launch::outcome(&self.launch).is_ok_and(|outcome| outcome.is_some()) {
                    return Ok(Outcome::NotLaunched(None));
                }
                self.let_runners_end(monitor)?;
                return Ok(Outcome::Ended(Watched { how, timed_out: state.timed_out, held: self.held }));
            }
        }
    }

    /// Runners inside notice a little later that what they served has ended, and then clear away what they made.
    fn let_runners_end(&self, monitor: &mut Monitor) -> Result<(), RunError> {
        let until = Instant::now() + RUNNERS_END;
        let is_left = || self.sandbox.processes().is_ok_and(|left| !left.is_empty());
        while monitor.had_inner() && is_left() && Instant::now() < until {
            let pause = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            match poll(&mut monitor.poll_fds(), Some(&pause)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(RunError::Watch(error)),
            }
            monitor.dispatch().map_err(RunError::Watch)?;
        }
        Ok(())
    }

    fn wait(&self, monitor: &Monitor, state: &State) -> Result<(), RunError> {
        let mut fds = monitor.poll_fds();
        fds.push(PollFd::new(self.signals, PollFlags::IN));
        fds.push(PollFd::from_borrowed_fd(self.program.pidfd.as_fd(), PollFlags::IN));
        if state.launching {
            fds.push(PollFd::new(&self.launch, PollFlags::IN));
        }
        if self.is_guarded(state) {
            fds.push(PollFd::from_borrowed_fd(self.sandbox.init(), PollFlags::IN));
        }
        if let Some(held) = &self.held {
            fds.extend(held.readers().map(|reader| PollFd::from_borrowed_fd(reader, PollFlags::IN)));
        }
        let next = state.kill_at.or(self.deadline.filter(|_| !state.timed_out));
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(RunError::Watch(error)),
        }
    }

    /// Looks whether the program runs by now; inner none when the process could not say why not.
    fn launched(&self, state: &mut State) -> Result<Option<Option<(LaunchStep, Errno)>>, RunError> {
        match launch::outcome(&self.launch) {
            Ok(Some(failed)) => Ok(Some(Some(failed))),
            // Closed by execve(2), or by the end of the process, which says itself how.
            Ok(None) => {
                state.launching = false;
                Ok(None)
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(RunError::Watch(error)),
        }
    }

    fn pass_signals_on(&self) {
        while let Some(number) = self.signals.next_signal() {
            match number {
                SIGCHLD => {}
                // The terminal tells its foreground itself; somebody who signals the runner means the program.
                SIGCONT => self.continue_program(),
                number => self.signal_program(number),
            }
        }
    }

    fn signal_program(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            // It has ended already.
            let _ended = kill_process_group(self.program.pid, signal);
        }
    }

    fn continue_program(&self) {
        if let Some(terminal) = self.terminal {
            terminal.hand_over_again(self.program.pid);
        }
        self.signal_program(SIGCONT);
    }

    fn keep_time(&self, state: &mut State) {
        let now = Instant::now();
        if !state.timed_out && self.deadline.is_some_and(|deadline| now >= deadline) {
            state.timed_out = true;
            state.kill_at = Some(now + GRACE);
            self.signal_program(SIGTERM);
            // A stopped program cannot end.
            self.signal_program(SIGCONT);
        }
        if state.kill_at.is_some_and(|at| now >= at) {
            state.kill_at = None;
            self.sandbox.kill();
            let _ended = rustix::process::pidfd_send_signal(&self.program.pidfd, Signal::KILL);
        }
    }

    fn is_guarded(&self, state: &State) -> bool {
        !self.sandbox.dies_with_init() && !state.unguarded
    }

    /// Ends the program when init is gone; what it leaves is ended by the runner.
    fn keep_guard(&self, state: &mut State) {
        let mut init = [PollFd::from_borrowed_fd(self.sandbox.init(), PollFlags::IN)];
        if self.is_guarded(state) && poll(&mut init, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        {
            state.unguarded = true;
            let _ended = rustix::process::pidfd_send_signal(&self.program.pidfd, Signal::KILL);
        }
    }

    /// How the program ended, if it has; a stop is mirrored.
    fn status(&self) -> Result<Option<How>, RunError> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        loop {
            let status = match waitpid(Some(self.program.pid), options) {
                Err(Errno::INTR) => continue,
                Err(error) => return Err(RunError::Watch(error)),
                Ok(None) => return Ok(None),
                Ok(Some((_, status))) => status,
            };
            if status.stopped() {
                self.stop_too();
                continue;
            }
            return Ok(Some(how(status)));
        }
    }

    /// The program was stopped: so is the runner with its group, until the shell continues it.
    fn stop_too(&self) {
        if let Some(terminal) = self.terminal {
            terminal.take_back();
        }
        // Returns when the group is continued; SIGSTOP always reaches its sender.
        let _always = kill_current_process_group(Signal::STOP);
        self.continue_program();
    }

    fn reap(&self) {
        let pid: Pid = self.program.pid;
        let _child = waitpid(Some(pid), WaitOptions::empty());
        debug_assert!(pid != getpid());
    }
}

fn how(status: WaitStatus) -> How {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => How::Exited(code),
        (None, Some(signal)) => How::Signalled(signal),
        (None, None) => How::Exited(0),
    }
}

//! A session: the monitor of one transaction of a live process.
//!
//! It is a process of its own with one thread. It builds the sandbox before it knows for whom, waits at the door for
//! the origin's socket, serves the filter's notifications while the branch runs, and stages, commits, keeps or
//! discards the files. When the origin's socket closes, everything that was not committed or kept is discarded.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    time::Timespec,
};
use tentative_sys::{
    crash,
    kin::Namespaces,
    transplant::talk::{self, Message, WORDS, op},
};

use super::{
    files::{Files, FilesError, Refused},
    protocol::{self, Findings, Offer, Ready, Start, Take},
    sockets,
};
use crate::{
    containment::Gap,
    effect::{Effect, put_first},
    files::{links::Links, plan::Privilege},
    layer::Layer,
    monitor::{Monitor, Origin, Outer, Scope, is_zombie},
    policy::Policy,
    sandbox::{Blueprint, Sandbox, SandboxError},
};

/// Why a session has nothing to offer.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// Builds, waits at the door, serves one transaction and cleans up.
pub(super) fn run(take: &Take, door: OwnedFd) {
    // An ordinary user's covers depend on it; a directory that is gone is found out by the branch.
    let _gone_directory = std::env::set_current_dir(&take.directory);
    let built = find_outer(take).and_then(|outer| build_within(take, outer));
    crash::point("session.built");
    let mut built = built;
    loop {
        // The keeper's end, or its death, comes as the end of this socket.
        let Ok(((), Some(socket))) = protocol::receive::<()>(&door) else {
            if let Ok((sandbox, files, _)) = built {
                clean_up(Some(sandbox), files);
            }
            return;
        };
        let (sandbox, files, outer) = match built.and_then(|ready| up_to_date(take, ready)) {
            Err(failed) => {
                let _origin_gone = protocol::send(&socket, &failed, None);
                return;
            }
            Ok(ready) => ready,
        };
        let Some((sandbox, files)) = Session::serve(take, socket, outer, sandbox, files) else { return };
        if let Err(_keeper_gone) = protocol::send(&door, &(), None) {
            return clean_up(Some(sandbox), files);
        }
        built = Ok((sandbox, files, None));
    }
}

/// A sandbox with its files, and the monitor around it.
type Built = (Sandbox, Files, Option<Outer>);

fn build_within(take: &Take, outer: Option<Outer>) -> Result<Built, Offer> {
    let built = build(take, outer.is_none()).map_err(|error| failed(&error));
    built.map(|(sandbox, files)| (sandbox, files, outer))
}

/// What was built ahead, unless the outside has changed since in a way that its covers do not show: then another one.
fn up_to_date(take: &Take, (sandbox, files, outer): Built) -> Result<Built, Offer> {
    if files.is_current() {
        return Ok((sandbox, files, outer));
    }
    clean_up(Some(sandbox), files);
    build_within(take, outer)
}

fn build(take: &Take, alone: bool) -> Result<(Sandbox, Files), BuildError> {
    let privilege = Privilege::detect();
    let mut files = Files::make(!take.without.contains(Layer::Files), privilege)?;
    let blueprint = Blueprint {
        plan: files.plan(),
        point: files.point(),
        without: take.without,
        privilege,
        devices: &take.devices,
        renewable: alone,
    };
    match Sandbox::build(&blueprint) {
        Ok(sandbox) => {
            if privilege == Privilege::User && alone {
                files.seal();
            }
            Ok((sandbox, files))
        }
        Err(error) => {
            files.discard();
            Err(error.into())
        }
    }
}

fn clean_up(sandbox: Option<Sandbox>, files: Files) {
    if let Some(sandbox) = sandbox {
        // What does not end now ends with this process.
        let _killed_with_us = sandbox.destroy();
    }
    files.discard();
}

fn failed(error: &BuildError) -> Offer {
    let reason = super::files::in_words(error);
    let layer = match error {
        BuildError::Files(_) => Layer::Files,
        BuildError::Sandbox(_) => Layer::Kin,
    };
    let remedy =
        "run 'tentative doctor', which tries each part and says what is missing, or go without the layers \
                  that cannot be had, by name: without={\"files\", \"kin\", \"world\"}"
            .to_owned();
    Offer::Failed { layer, reason, remedy }
}

/// Whether a sandbox can be used again: nobody is inside, and nothing shows that somebody was.
fn is_as_new(sandbox: &Sandbox, files: &Files) -> bool {
    files.is_as_new() && sandbox.renew().is_ok()
}

/// How long a commit waits for processes that are just ending before it is refused for them.
const ENDING: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

struct Session {
    socket: OwnedFd,
    /// The monitor around this process, which serves the branch too.
    outer: Option<Outer>,
    take: Take,
    start: Start,
    sandbox: Option<Sandbox>,
    monitor: Monitor,
    files: Files,
    findings: Findings,
    began: (Instant, u64),
    /// The branch, as this process numbers it; 0 until it is known.
    branch: i32,
}

impl Session {
    /// Serves one transaction. What it gives back was left as it was, and can be used for another one.
    fn serve(
        take: &Take,
        socket: OwnedFd,
        outer: Option<Outer>,
        sandbox: Sandbox,
        mut files: Files,
    ) -> Option<(Sandbox, Files)> {
        let ready = Ready {
            id: files.id(),
            directory: files.directory(),
            namespaces: Self::namespaces(&sandbox).0,
            namespaces_of_branch: Self::namespaces(&sandbox).1,
            capabilities: sandbox.capabilities(),
            gaps: gaps(take, &files),
            copied: files.copied(),
            nested: outer.is_some(),
        };
        let sent = protocol::send(&socket, &Offer::Ready(ready), Some(sandbox.init()));
        let started = sent.and_then(|()| protocol::receive::<Start>(&socket));
        let introduced = started.and_then(|(start, _)| {
            outer.as_ref().map_or(Ok(()), |outer| introduce(outer, &start, &socket)).map(|()| start)
        });
        let Ok(start) = introduced else {
            clean_up(Some(sandbox), files);
            return None;
        };
        files.begin_now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let mut session = Session {
            monitor: Monitor::new(&start.policy),
            take: take.clone(),
            socket,
            outer,
            start,
            sandbox: Some(sandbox),
            files,
            findings: Findings::default(),
            began: (Instant::now(), wall),
            branch: 0,
        };
        // The end of the origin's socket ends the loop.
        while session.turn().is_ok() {}
        drop(session.monitor);
        let mut files = session.files;
        if let Some(sandbox) =
            session.sandbox.take_if(|sandbox| session.outer.is_none() && is_as_new(sandbox, &files))
        {
            return Some((sandbox, files));
        }
        if files.has_work() {
            // The origin is gone, but the commit point was passed.
            if let Some(sandbox) = session.sandbox.take() {
                let _killed_with_us = sandbox.destroy();
            }
            let _recover_goes_on = files.apply();
        }
        clean_up(session.sandbox.take(), files);
        None
    }

    /// Root enters its user namespace last, and in the branch: see `Entry`.
    fn namespaces(sandbox: &Sandbox) -> (u32, u32) {
        let all = sandbox.namespaces().bits();
        let user = Namespaces::USER.bits();
        match Privilege::detect() {
            Privilege::Root => (all & !user, all & user),
            Privilege::User => (all, 0),
        }
    }

    fn turn(&mut self) -> Result<(), Errno> {
        let mut polls = vec![PollFd::new(&self.socket, PollFlags::IN)];
        polls.extend(self.monitor.poll_fds());
        match poll(&mut polls, None) {
            Err(Errno::INTR) => return Ok(()),
            other => other?,
        };
        let asked = !polls[0].revents().is_empty();
        drop(polls);
        self.monitor.dispatch()?;
        if asked { self.answer() } else { Ok(()) }
    }

    fn answer(&mut self) -> Result<(), Errno> {
        let (message, fd) = talk::receive_from(self.socket.as_fd())?;
        match message.op {
            op::LISTENER => self.listen(fd.ok_or(Errno::PROTO)?),
            op::RUNNING => {
                self.branch = message.a as i32;
                Ok(())
            }
            op::ABANDON => {
                self.files.abandon();
                Ok(())
            }
            op::STAGE => match self.stage() {
                Ok(()) => {
                    let message =
                        Message { a: i64::from(self.files.is_untouched()), ..Message::of(op::DONE) };
                    talk::send_from(self.socket.as_fd(), &message, None)
                }
                Err(reasons) => self.reply(Err(reasons)),
            },
            op::OPEN => {
                let opened = self.files.open(message.words(), message.a as i32);
                match opened {
                    Ok(fd) => talk::send_from(self.socket.as_fd(), &Message::of(op::DONE), Some(fd.as_fd())),
                    Err(error) => {
                        let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
                        let refusal = Message::with_words(op::REFUSED, i64::from(errno), b"");
                        talk::send_from(self.socket.as_fd(), &refusal, None)
                    }
                }
            }
            op::PUBLISH => {
                let published = self.files.publish().map_err(|error| Refused::Words(vec![error]));
                self.reply(published.map(|()| Vec::new()))
            }
            op::APPLY => self.apply(),
            op::REPORT => {
                if self.sandbox.is_some() && !self.files.is_decided() {
                    self.look();
                }
                self.report()
            }
            op::KEEP => {
                let shown: Vec<Effect> = fd.map_or(Ok(Vec::new()), protocol::read_document)?;
                let kept = self.keep(&shown).map_err(|error| Refused::Words(vec![error]));
                self.reply(kept.map(|()| self.files.id().into_bytes()))
            }
            _ => Err(Errno::PROTO),
        }
    }

    fn reply(&self, result: Result<Vec<u8>, Refused>) -> Result<(), Errno> {
        let message = match result {
            Ok(words) => Message::with_words(op::DONE, 0, &words),
            Err(Refused::Words(reasons)) => {
                Message::with_words(op::REFUSED, 0, reasons.join("\n").as_bytes())
            }
            Err(Refused::Conflicts(conflicts)) => {
                let words = protocol::conflicts_to_words(&conflicts, WORDS);
                Message::with_words(op::REFUSED, Errno::STALE.raw_os_error().into(), words.as_bytes())
            }
        };
        talk::send_from(self.socket.as_fd(), &message, None)
    }

    fn listen(&mut self, listener: OwnedFd) -> Result<(), Errno> {
        let sandbox = self.sandbox.as_ref().ok_or(Errno::PROTO)?;
        let mut scope = Scope::new(sandbox, origin(&self.start), self.take.without)?;
        if self.branch == 0 {
            // The origin says so right after the clone; until then nothing can be decided.
            let (message, _) = talk::receive_from(self.socket.as_fd())?;
            self.branch =
                if message.op == op::RUNNING { message.a as i32 } else { return Err(Errno::PROTO) };
        }
        scope.main = self.branch;
        let links = self.files.plan().map(Links::of).transpose();
        scope.links = links.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?.flatten();
        self.monitor.add_listener(listener, scope);
        Ok(())
    }

    /// Refuses while others run inside or the branch holds what ends with the sandbox, then stages the files.
    fn stage(&mut self) -> Result<(), Refused> {
        crash::point("session.stage");
        let mut reasons = self.others_after_a_moment()?;
        reasons.extend(self.sockets());
        if !reasons.is_empty() {
            return Err(Refused::Words(reasons));
        }
        self.look();
        let staged = self.files.stage(self.start.pid);
        crash::point("session.staged");
        staged
    }

    /// Processes that still run when those that are just ending (killed, or orphans in their last call) had time to.
    /// Their calls are answered meanwhile.
    fn others_after_a_moment(&mut self) -> Result<Vec<String>, Refused> {
        let end = Instant::now() + ENDING;
        loop {
            let others = self.others();
            let left = end.saturating_duration_since(Instant::now());
            if others.is_empty() || left.is_zero() {
                return Ok(others);
            }
            self.serve_for(left.min(LOOK_AGAIN)).map_err(|error| {
                Refused::Words(vec![format!("the calls of other processes cannot be answered: {error}")])
            })?;
        }
    }

    /// Answers calls for a while. Looking at the processes takes longer than an answer, so it is not done after each.
    fn serve_for(&mut self, time: Duration) -> Result<(), Errno> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut self.monitor.poll_fds(), Some(&left)) {
                Ok(_) | Err(Errno::INTR) => self.monitor.dispatch()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Processes of the branch that still run, in words.
    fn others(&self) -> Vec<String> {
        let Some(sandbox) = &self.sandbox else { return Vec::new() };
        let inside = sandbox.processes().unwrap_or_default();
        let others = inside.into_iter().filter(|pid| *pid != self.start.pid);
        others.filter_map(|pid| describe(sandbox, pid)).collect()
    }

    /// Sockets of the branch's that nobody could reach when the sandbox's network is gone, in words.
    fn sockets(&self) -> Vec<String> {
        match &self.sandbox {
            Some(sandbox) if !self.take.without.contains(Layer::World) => {
                sockets::left_inside(self.branch, sandbox.init_pid().as_raw_nonzero().get())
            }
            _ => Vec::new(),
        }
    }

    fn look(&mut self) {
        (self.findings.changes, self.findings.conflicts) = self.files.look(self.start.pid);
        self.note_effects();
    }

    /// The effects so far: this monitor's, and those that the one around it has recorded for this transaction.
    fn note_effects(&mut self) {
        self.findings.effects = self.monitor.effects();
        if let Some(outer) = &self.outer {
            match outer.effects() {
                Ok(effects) => self.findings.effects.extend(effects),
                Err(error) => {
                    let lost =
                        format!("the monitor around this transaction is gone with its record: {error}");
                    self.findings.conflicts.push(lost);
                }
            }
        }
    }

    /// The branch is dead: lets the sandbox go and puts the files in place.
    fn apply(&mut self) -> Result<(), Errno> {
        self.note_effects();
        self.monitor = Monitor::new(&self.start.policy);
        if let Some(sandbox) = self.sandbox.take() {
            let _killed_with_us = if self.files.has_work() { sandbox.destroy() } else { self.later(sandbox) };
        }
        crash::point("session.apply");
        self.findings.unfinished = self.files.apply().err();
        self.report()
    }

    /// Nothing waits for the mounts: they go when this process cleans up.
    fn later(&mut self, sandbox: Sandbox) -> Result<(), Errno> {
        sandbox.kill();
        self.sandbox = Some(sandbox);
        Ok(())
    }

    fn report(&mut self) -> Result<(), Errno> {
        let bytes = serde_json::to_vec(&self.findings).map_err(|_| Errno::INVAL)?;
        if bytes.len() <= WORDS {
            let message = Message::with_words(op::DONE, bytes.len() as i64, &bytes);
            return talk::send_from(self.socket.as_fd(), &message, None);
        }
        let document = protocol::document(&self.findings)?;
        talk::send_from(self.socket.as_fd(), &Message::of(op::DONE), Some(document.as_fd()))
    }

    /// Makes the files a pending transaction; the origin knows what was shown.
    fn keep(&mut self, shown: &[Effect]) -> Result<(), String> {
        self.look();
        put_first(shown, &mut self.findings.effects);
        self.monitor = Monitor::new(&self.start.policy);
        if let Some(sandbox) = self.sandbox.take() {
            let _killed_with_us = sandbox.destroy();
        }
        let (began, started_ns) = self.began;
        let gaps = gaps(&self.take, &self.files);
        let duration_ns = began.elapsed().as_nanos() as u64;
        self.files.keep(&self.start.program, (started_ns, duration_ns), &self.findings, gaps)
    }
}

/// The monitor around this process, if there is one that has room for another transaction.
fn find_outer(take: &Take) -> Result<Option<Outer>, Offer> {
    let refuse = |reason: &str, remedy: &str| Offer::Failed {
        layer: Layer::Kin,
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    };
    match Outer::find(&Policy::default()) {
        // It tells its transactions apart by pid namespace.
        Ok(Some(_)) if take.without.contains(Layer::Kin) => Err(refuse(
            "inside another transaction the layer kin cannot be gone without while others are contained",
            "contain kin too, or go without files, kin and world",
        )),
        Ok(outer) => Ok(outer),
        Err(Errno::MLINK) => Err(refuse(
            "transactions nest two deep, as the kernel's overlays do: this one would be the third",
            "go without={\"files\", \"kin\", \"world\"}, which nests as deep as you like",
        )),
        Err(error) => Err(refuse(
            &format!("the monitor of the transaction around this one does not answer: {error}"),
            "end the transaction around this one",
        )),
    }
}

/// Tells the monitor around what it needs to know, then gives the origin the socket by which the branch joins.
fn introduce(outer: &Outer, start: &Start, socket: &OwnedFd) -> Result<(), Errno> {
    outer.set_policy(&start.policy)?;
    outer.set_origin(&origin(start))?;
    protocol::send(socket, &(), Some(outer.socket()))
}

fn origin(start: &Start) -> Origin {
    Origin {
        parent: start.parent,
        group: Some(start.group),
        session: start.session,
        children: start.children.clone(),
    }
}

fn gaps(take: &Take, files: &Files) -> Vec<Gap> {
    let asked = take.without.iter().map(Gap::without);
    asked.chain(files.gaps()).collect()
}

/// A process inside in words; none if it has ended by now.
fn describe(sandbox: &Sandbox, pid: i32) -> Option<String> {
    let path = format!("/proc/{}/root/proc/{pid}/stat", sandbox.init_pid().as_raw_nonzero());
    let stat = fs::read_to_string(path).ok()?;
    let (head, _) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    // A zombie is nobody: its parent is init, or is itself in this list.
    (!is_zombie(&stat)).then(|| {
        format!("process {pid} ({name}) of the branch still runs; end it or wait for it before the commit")
    })
}

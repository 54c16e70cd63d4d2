//! The monitor: receives the kernel's notifications, decides, records and answers.
//!
//! A [`Monitor`] serves one transaction: one policy, one record of effects, any number of listeners. It is driven from
//! outside by its descriptors ([`Monitor::poll_fds`], [`Monitor::dispatch`]) and never blocks on a program. Invariant:
//! what it lets through was decided on its own copy of the arguments; where the kernel goes on with the program's
//! memory, a namespace or the overlay contains the call whatever that memory says by then.

mod caller;
mod links;
mod log;
mod mounts;
mod nested;
mod paths;
mod refuse;
mod rename;
mod scope;

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

pub use caller::Caller;
pub(crate) use caller::{CURRENT_DIRECTORY, is_zombie, parse_stat, read_at};
pub use log::Log;
pub(crate) use log::now_ns;
pub use nested::Outer;
pub use scope::{Origin, Scope};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    time::Timespec,
};
use tentative_sys::world::{self as sys, Answer, Notification};

use crate::{
    effect::{Class, Decision, Effect},
    kin,
    layer::Layer,
    pathways,
    pathways::Rule,
    policy::Policy,
    world::{self, Pending, Rules},
};

/// Names one listener of a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(u64);

#[derive(Debug)]
struct Listener {
    id: ListenerId,
    fd: OwnedFd,
    scope: Scope,
    /// Every process with the filter is gone.
    ended: bool,
}

/// Serves the notifications of one transaction.
#[derive(Debug)]
pub struct Monitor {
    rules: Rules,
    log: Log,
    listeners: Vec<Listener>,
    pending: VecDeque<Pending>,
    nested: nested::Sessions,
    next_listener: u64,
    noticed: Noticed,
}

/// What calls have said about the whole sandbox.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    /// System V or POSIX objects may be left in it.
    pub(crate) used_ipc: bool,
    /// Somebody inside may have another root directory than the sandbox's.
    pub(crate) roots_moved: bool,
}

/// What a handler says about a call.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Answer now.
    Now(Answer),
    /// The answer comes when a descriptor of the monitor's is ready.
    Later(Pending),
}

impl Outcome {
    pub(crate) const CONTINUE: Outcome = Outcome::Now(Answer::Continue);

    pub(crate) const fn error(errno: Errno) -> Outcome {
        Outcome::Now(Answer::Error(errno))
    }

    pub(crate) const fn value(value: i64) -> Outcome {
        Outcome::Now(Answer::Value(value))
    }
}

/// One waiting call with everything that a handler may look at.
pub(crate) struct Call<'a> {
    pub(crate) notification: Notification,
    pub(crate) pathway: &'static pathways::Pathway,
    pub(crate) listener: BorrowedFd<'a>,
    pub(crate) listener_id: ListenerId,
    pub(crate) scope: &'a Scope,
    pub(crate) rules: &'a Rules,
    pub(crate) log: &'a mut Log,
    /// Of a transaction inside: the record of the one around it, which has to know what escapes from both.
    pub(crate) outer_log: Option<&'a mut Log>,
    pub(crate) caller: Caller,
    pub(crate) noticed: &'a mut Noticed,
}

impl Call<'_> {
    /// An argument that the kernel takes as an int.
    pub(crate) fn int(&self, index: usize) -> i32 {
        self.notification.arguments[index] as u32 as i32
    }

    /// An argument in full.
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.notification.arguments[index]
    }

    /// Whether what was read about the caller until now was really the caller's.
    pub(crate) fn still_waits(&self) -> bool {
        sys::is_waiting(self.listener, self.notification.id)
    }

    /// Whether the caller may see other things at a path than the monitor does: it has another root directory than the
    /// sandbox, or is in a mount namespace that was made inside. Nothing is done by path in its place then.
    pub(crate) fn sees_other_paths(&self) -> bool {
        self.noticed.roots_moved && !self.caller.is_at(self.scope.root(), self.scope.init)
    }

    /// Copies from the caller's memory, once; none when it is unreadable or the caller is gone.
    pub(crate) fn read(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let copied = self.caller.read(address, &mut bytes)?;
        bytes.truncate(copied);
        (copied == length && self.still_waits()).then_some(bytes)
    }

    /// Copies a string that ends with NUL from the caller's memory.
    pub(crate) fn read_string(&self, address: u64) -> Option<Vec<u8>> {
        let bytes = self.caller.read_string(address)?;
        self.still_waits().then_some(bytes)
    }

    /// Records a refusal.
    pub(crate) fn blocked(&mut self, target: impl Into<String>, errno: Errno, hint: Option<String>) {
        self.record(Class::Blocked, Decision::Denied, target.into(), Some(errno), hint);
    }

    /// Records something that went outside.
    pub(crate) fn escaped(&mut self, target: impl Into<String>, errno: Option<Errno>) {
        self.record(Class::Escaped, Decision::Allowed, target.into(), errno, None);
    }

    /// Records an effect of this call, in the layer of its pathway.
    pub(crate) fn record(
        &mut self,
        class: Class,
        decision: Decision,
        target: String,
        errno: Option<Errno>,
        hint: Option<String>,
    ) {
        self.record_in(self.pathway.layer, class, decision, target, errno, hint);
    }

    /// Records an effect of this call, where what it was aimed at tells the layer.
    pub(crate) fn record_in(
        &mut self,
        layer: Layer,
        class: Class,
        decision: Decision,
        target: String,
        errno: Option<Errno>,
        hint: Option<String>,
    ) {
        let identity = self.caller.identity();
        let effect = Effect {
            id: 0,
            layer,
            class,
            operation: self.pathway.name.to_owned(),
            target,
            pid: identity.pid,
            tid: identity.tid,
            program: identity.name.clone(),
            time_ns: now_ns(),
            decision,
            errno: errno.map(Errno::raw_os_error),
            count: 1,
            stack: None,
            hint,
        };
        if let Some(outer) = self.outer_log.as_mut().filter(|_| class == Class::Escaped) {
            outer.add(effect.clone());
        }
        self.log.add(effect);
    }
}

impl Monitor {
    /// A monitor with a policy; names in it are looked up now, in the host's network.
    #[must_use]
    pub fn new(policy: &Policy) -> Monitor {
        let rules = Rules::load(policy);
        let mut log = Log::default();
        rules.unmet().iter().for_each(|reason| log.add(unmet_rule(reason)));
        Monitor {
            rules,
            log,
            listeners: Vec::new(),
            pending: VecDeque::new(),
            nested: nested::Sessions::default(),
            next_listener: 0,
            noticed: Noticed::default(),
        }
    }

    /// Serves another listener.
    pub fn add_listener(&mut self, fd: OwnedFd, scope: Scope) -> ListenerId {
        // Older kernels than 6.6 lack it, and are slower.
        let _older_kernel = sys::wake_up_synchronously(&fd);
        self.next_listener += 1;
        let id = ListenerId(self.next_listener);
        self.listeners.push(Listener { id, fd, scope, ended: false });
        id
    }

    /// What is known about a listener's sandbox, for what becomes known later.
    pub fn scope_mut(&mut self, id: ListenerId) -> Option<&mut Scope> {
        self.listeners.iter_mut().find(|listener| listener.id == id).map(|listener| &mut listener.scope)
    }

    /// Lets go of a listener; calls that wait on it fail with ENOSYS.
    pub fn remove_listener(&mut self, id: ListenerId) {
        self.listeners.retain(|listener| listener.id != id);
        self.pending.retain(|pending| pending.listener != id);
    }

    /// Whether any process that a listener is for is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.listeners.iter().all(|listener| listener.ended)
    }

    /// What to wait for before [`Monitor::dispatch`].
    #[must_use]
    pub fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let listeners = self.listeners.iter().filter(|listener| !listener.ended);
        let mut fds: Vec<PollFd<'_>> =
            listeners.map(|listener| PollFd::from_borrowed_fd(listener.fd.as_fd(), PollFlags::IN)).collect();
        fds.extend(self.pending.iter().map(|p| PollFd::from_borrowed_fd(p.socket.as_fd(), p.interest())));
        fds.extend(self.nested.poll_fds());
        fds
    }

    /// Handles everything that is ready and returns without waiting.
    ///
    /// # Errors
    /// What poll(2) says; callers that are gone are no error.
    pub fn dispatch(&mut self) -> Result<(), Errno> {
        self.finish_pending()?;
        self.nested.hear(&self.rules);
        for index in 0..self.listeners.len() {
            // A bound, so that one busy program does not keep the others waiting for ever.
            for _ in 0..64 {
                if self.listeners[index].ended || !self.serve(index)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether transactions were begun inside, so that runners of ours may be there.
    #[must_use]
    pub fn had_inner(&self) -> bool {
        self.nested.any()
    }

    /// The effects so far, numbered from 1 in the order in which they began.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.log.effects()
    }

    /// The record of effects, to add those that need no notification.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Whether System V or POSIX objects may be left in the sandbox, which is then not used again.
    #[must_use]
    pub fn used_ipc(&self) -> bool {
        self.noticed.used_ipc
    }

    /// Takes one waiting call, if there is one; says whether there was.
    fn serve(&mut self, index: usize) -> Result<bool, Errno> {
        let listener = &mut self.listeners[index];
        let mut fds = [PollFd::from_borrowed_fd(listener.fd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Err(Errno::INTR) => return Ok(true),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let events = fds[0].revents();
        if !events.contains(PollFlags::IN) {
            listener.ended = events.intersects(PollFlags::HUP | PollFlags::ERR);
            return Ok(false);
        }
        let notification = match sys::receive(&listener.fd) {
            Ok(notification) => notification,
            // It was killed before we came to it.
            Err(Errno::NOENT) => return Ok(true),
            Err(error) => return Err(error),
        };
        match decide(&mut self.log, &self.rules, &mut self.noticed, &mut self.nested, listener, notification)
        {
            // Whoever is gone needs no answer.
            Outcome::Now(answer) => {
                let _gone = sys::respond(&listener.fd, notification.id, answer);
            }
            Outcome::Later(pending) => self.pending.push_back(pending),
        }
        Ok(true)
    }

    fn finish_pending(&mut self) -> Result<(), Errno> {
        for _ in 0..self.pending.len() {
            let Some(pending) = self.pending.pop_front() else { break };
            let Some(listener) = self.listeners.iter().find(|listener| listener.id == pending.listener)
            else {
                continue;
            };
            if !sys::is_waiting(&listener.fd, pending.call) {
                continue;
            }
            match pending.finish(&listener.fd)? {
                Some(answer) => {
                    let _gone = sys::respond(&listener.fd, pending.call, answer);
                }
                None => self.pending.push_back(pending),
            }
        }
        Ok(())
    }
}

/// A rule that allows less than it says: the user must not find out from a program that fails.
fn unmet_rule(reason: &str) -> Effect {
    Effect {
        id: 0,
        layer: Layer::World,
        class: Class::Blocked,
        operation: "rule".to_owned(),
        target: reason.to_owned(),
        pid: 0,
        tid: 0,
        program: "tentative".to_owned(),
        time_ns: now_ns(),
        decision: Decision::Denied,
        errno: None,
        count: 1,
        stack: None,
        hint: None,
    }
}

fn decide(
    log: &mut Log,
    rules: &Rules,
    noticed: &mut Noticed,
    nested: &mut nested::Sessions,
    listener: &Listener,
    notification: Notification,
) -> Outcome {
    let caller = Caller::new(notification.tid as i32);
    let known =
        pathways::is_native(&notification).then(|| pathways::by_number(notification.number)).flatten();
    let pathway = known.unwrap_or(pathways::unknown());
    if pathway.name == "prctl" {
        return nested.handshake(&notification, listener.fd.as_fd(), &caller, &listener.scope.origin);
    }
    let (scope, rules, log, outer_log) = match nested.of(notification.tid as i32) {
        Some((scope, rules, inner)) => (scope, rules, inner, Some(log)),
        None => (&listener.scope, rules, log, None),
    };
    let mut call = Call {
        notification,
        pathway,
        listener: listener.fd.as_fd(),
        listener_id: listener.id,
        scope,
        rules,
        log,
        outer_log,
        caller,
        noticed,
    };
    match &pathway.rule {
        Rule::Refuse(errno) => refuse::refuse(&mut call, *errno),
        Rule::Inside => Outcome::CONTINUE,
        Rule::Ask(_) => ask(&mut call),
    }
}

fn ask(call: &mut Call<'_>) -> Outcome {
    match call.pathway.name {
        "connect" => world::connect(call),
        "sendto" => world::sendto(call),
        "sendmsg" => world::sendmsg(call),
        "sendmmsg" => world::sendmmsg(call),
        "bind" => world::bind(call),
        "listen" => world::listen(call),
        "socket" => world::socket(call),
        "adjtimex" | "clock_adjtime" => world::adjust_clock(call),
        "kill" => kin::kill(call),
        "tkill" | "rt_sigqueueinfo" => kin::signal_one(call, 0),
        "tgkill" | "rt_tgsigqueueinfo" => kin::signal_one(call, 1),
        "pidfd_open" => kin::pidfd_open(call),
        "wait4" => kin::wait4(call),
        "waitid" => kin::waitid(call),
        "getppid" => kin::getppid(call),
        "getpgrp" => kin::getpgid(call, 0),
        "getpgid" => kin::getpgid(call, call.int(0)),
        "getsid" => kin::getsid(call),
        "setpgid" => kin::setpgid(call),
        "ioctl" => kin::ioctl(call),
        "fcntl" => kin::set_owner(call),
        "ptrace" | "setpriority" | "ioprio_set" => kin::reach_process(call, 1),
        "process_vm_readv" | "process_vm_writev" | "prlimit64" | "migrate_pages" | "move_pages"
        | "sched_setparam" | "sched_setscheduler" | "sched_setaffinity" | "sched_setattr" => {
            kin::reach_process(call, 0)
        }
        "sched_getparam"
        | "sched_getscheduler"
        | "sched_getaffinity"
        | "sched_getattr"
        | "sched_rr_get_interval" => kin::look_at_process(call, 0),
        "getpriority" | "ioprio_get" => kin::look_at_process(call, 1),
        "kcmp" => kin::reach_process(call, if call.scope.has_process(call.int(0)) { 1 } else { 0 }),
        "shmget" | "semget" | "msgget" | "mq_open" => kin::use_ipc(call),
        "rename" | "renameat" | "renameat2" => rename::rename(call),
        "link" | "linkat" => links::link(call),
        "chmod" | "fchmodat" | "fchmodat2" | "chown" | "lchown" | "fchownat" | "setxattr" | "lsetxattr"
        | "removexattr" | "lremovexattr" | "setxattrat" | "removexattrat" | "utime" | "utimes"
        | "futimesat" | "utimensat" | "fchmod" | "fchown" | "fsetxattr" | "fremovexattr" | "file_setattr" => {
            links::change(call)
        }
        "mkdir" | "rmdir" => paths::note(call, CURRENT_DIRECTORY, 0),
        "mkdirat" | "unlinkat" => paths::note(call, call.int(0), 1),
        "open" | "creat" | "truncate" => change_by_path(call, CURRENT_DIRECTORY, 0),
        "openat" | "openat2" => change_by_path(call, call.int(0), 1),
        "chroot" => mounts::change_root(call),
        "mknod" | "mknodat" => refuse::device_node(call),
        "unshare" => refuse::control_groups(call),
        _ => mounts::change_mounts(call),
    }
}

/// A call that may change what a path names: looked at for the record, and for files with several names.
fn change_by_path(call: &mut Call<'_>, directory: i32, argument: usize) -> Outcome {
    paths::note(call, directory, argument);
    links::change(call)
}

//! Transactions inside a transaction. The kernel allows one listener a task chain, so the outermost monitor serves all.
//!
//! An inner runner asks by a prctl(2) that the filter notifies and gets a socket; it sends its policy, its program joins
//! with that socket before it runs, and at the end the runner asks for its effects. The monitor tells the transactions
//! apart by pid namespace. What an inner policy allows goes outside only where the outer policy allows it too.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags},
    fs::fstat,
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
    process::Pid,
};
use serde::Serialize;
use tentative_sys::{
    kin::{ask_monitor, join_monitor},
    world::{Notification, add_new_fd},
};

use super::{Caller, Log, Origin, Outcome, Scope};
use crate::{effect::Effect, layer::LayerSet, policy::Policy, world::Rules};

/// Operations of the handshake, the second argument of the prctl.
const ASK: u64 = 1;
const JOIN: u64 = 2;

/// The largest packet: a policy, or one effect.
const LARGEST: usize = 1 << 17;

/// The end of the effects.
const END: &[u8] = b"end";

/// A transaction inside, as the monitor that serves it knows it.
#[derive(Debug)]
pub(super) struct Session {
    socket: OwnedFd,
    /// Inode of the end that was given away: whoever has it may join.
    given: u64,
    rules: Rules,
    /// What the runner says about itself; a program's runner is hidden behind the origin of the transaction outside.
    origin: Option<Origin>,
    pub(super) log: Log,
    /// Its pid namespace, once its program has joined.
    namespace: Option<String>,
    scope: Option<Scope>,
}

/// All transactions inside.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    now: Vec<Session>,
    /// Whether there has been any.
    any: bool,
}

impl Sessions {
    /// What becomes readable when a runner inside has something to say.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.now.iter().map(|session| PollFd::from_borrowed_fd(session.socket.as_fd(), PollFlags::IN))
    }

    /// Whether any runner inside has ever asked.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// Hears the runners and forgets those that are gone.
    pub(super) fn hear(&mut self, outer: &Rules) {
        self.now.retain_mut(|session| session.hear(outer).is_ok());
    }

    /// The session, scope and rules of a caller inside an inner transaction.
    pub(super) fn of(&mut self, tid: i32) -> Option<(&Scope, &Rules, &mut Log)> {
        if self.now.is_empty() {
            return None;
        }
        let namespace = namespace_of(tid)?;
        let session = self.now.iter_mut().find(|session| session.namespace.as_ref() == Some(&namespace))?;
        Some((session.scope.as_ref()?, &session.rules, &mut session.log))
    }

    /// The handshake: prctl with our number.
    pub(super) fn handshake(
        &mut self,
        call: &Notification,
        listener: BorrowedFd<'_>,
        caller: &Caller,
        origin: &Origin,
    ) -> Outcome {
        let done = match call.arguments[1] {
            // The kernel stacks overlays two deep.
            ASK if self.of(caller.tid()).is_some() => Err(Errno::MLINK),
            ASK => self.ask(call.id, listener),
            JOIN => self.join(call.arguments[2] as u32 as i32, caller, origin),
            _ => Err(Errno::INVAL),
        };
        done.map_or_else(Outcome::error, |value| Outcome::value(value.into()))
    }

    fn ask(&mut self, call: u64, listener: BorrowedFd<'_>) -> Result<i32, Errno> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let given = fstat(&theirs)?.st_ino;
        let number = add_new_fd(listener, call, theirs.as_fd())?;
        self.any = true;
        self.now.push(Session {
            socket: ours,
            given,
            rules: Rules::default(),
            origin: None,
            log: Log::default(),
            namespace: None,
            scope: None,
        });
        Ok(number)
    }

    fn join(&mut self, socket: i32, caller: &Caller, origin: &Origin) -> Result<i32, Errno> {
        let given = fstat(caller.descriptor(socket)?)?.st_ino;
        let session = self.now.iter_mut().find(|session| session.given == given).ok_or(Errno::PERM)?;
        let namespace = namespace_of(caller.tid()).ok_or(Errno::SRCH)?;
        let init = init_of(&namespace).ok_or(Errno::SRCH)?;
        let origin = session.origin.clone().unwrap_or_else(|| origin.clone());
        let mut scope = Scope::of_init(init, origin, LayerSet::EMPTY)?;
        scope.main = caller.identity().process;
        session.scope = Some(scope);
        session.namespace = Some(namespace);
        Ok(0)
    }
}

impl Session {
    fn hear(&mut self, outer: &Rules) -> Result<(), Errno> {
        let mut packet = vec![0u8; LARGEST];
        loop {
            let length = match recv(&self.socket, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Errno::PIPE),
                Ok((length, _)) => length,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error),
            };
            match packet[..length].split_first() {
                Some((b'P', policy)) => {
                    let policy: Policy = serde_json::from_slice(policy).map_err(|_| Errno::INVAL)?;
                    self.rules = Rules::load(&policy).within(outer);
                    self.say(b"ok")?;
                }
                Some((b'O', origin)) => {
                    self.origin = Some(serde_json::from_slice(origin).map_err(|_| Errno::INVAL)?);
                    self.say(b"ok")?;
                }
                Some((b'E', _)) => {
                    for effect in self.log.effects() {
                        self.say(&serde_json::to_vec(&effect).map_err(|_| Errno::INVAL)?)?;
                    }
                    self.say(END)?;
                }
                _ => return Err(Errno::INVAL),
            }
        }
    }

    /// A runner that does not listen is not waited for.
    fn say(&self, packet: &[u8]) -> Result<(), Errno> {
        send(&self.socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(|_| ())
    }
}

/// The monitor of the transaction outside, as a runner inside knows it.
#[derive(Debug)]
pub struct Outer {
    socket: OwnedFd,
}

impl Outer {
    /// Asks the monitor outside to serve a transaction with this policy; none when there is no monitor outside.
    ///
    /// # Errors
    /// `EMLINK` inside two transactions already; else when the monitor outside does not understand.
    pub fn find(policy: &Policy) -> Result<Option<Outer>, Errno> {
        let outer = match ask_monitor() {
            Ok(socket) => Outer { socket },
            Err(Errno::MLINK) => return Err(Errno::MLINK),
            Err(_) => return Ok(None),
        };
        outer.set_policy(policy)?;
        Ok(Some(outer))
    }

    /// What may cross, as far as the policies outside allow it.
    ///
    /// # Errors
    /// When the monitor outside is gone or does not understand.
    pub fn set_policy(&self, policy: &Policy) -> Result<(), Errno> {
        self.tell(b'P', policy)
    }

    /// The numbers that the transaction is shown, and the children that are not its to wait for.
    ///
    /// # Errors
    /// As [`Outer::set_policy`].
    pub fn set_origin(&self, origin: &Origin) -> Result<(), Errno> {
        self.tell(b'O', origin)
    }

    fn tell(&self, kind: u8, what: &impl Serialize) -> Result<(), Errno> {
        let mut packet = vec![kind];
        packet.extend(serde_json::to_vec(what).map_err(|_| Errno::INVAL)?);
        send(&self.socket, &packet, SendFlags::NOSIGNAL)?;
        let mut answer = [0u8; 8];
        match recv(&self.socket, &mut answer[..], RecvFlags::empty())? {
            (0, _) => Err(Errno::CONNRESET),
            _ => Ok(()),
        }
    }

    /// The socket by which a process joins.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// In the new process, before it runs the program: from here on its calls are judged by the inner policy.
    ///
    /// # Errors
    /// When the monitor outside is gone.
    pub fn join(&self) -> Result<(), Errno> {
        join_monitor(self.socket.as_raw_fd())
    }

    /// The effects of the transaction.
    ///
    /// # Errors
    /// When the monitor outside is gone.
    pub fn effects(&self) -> Result<Vec<Effect>, Errno> {
        send(&self.socket, b"E", SendFlags::NOSIGNAL)?;
        let mut effects = Vec::new();
        let mut packet = vec![0u8; LARGEST];
        loop {
            let (length, _) = recv(&self.socket, &mut packet[..], RecvFlags::empty())?;
            match &packet[..length] {
                b"" | END => return Ok(effects),
                effect => effects.push(serde_json::from_slice(effect).map_err(|_| Errno::INVAL)?),
            }
        }
    }
}

fn namespace_of(tid: i32) -> Option<String> {
    Some(fs::read_link(format!("/proc/{tid}/ns/pid")).ok()?.to_str()?.to_owned())
}

/// Pid 1 of a pid namespace, as the monitor numbers it.
fn init_of(namespace: &str) -> Option<Pid> {
    let entries = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter_map(Pid::from_raw).find(|pid| {
        let number = pid.as_raw_nonzero().get();
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        inside.and_then(|numbers| numbers.split_whitespace().next_back()) == Some("1")
            && namespace_of(number).as_deref() == Some(namespace)
    })
}

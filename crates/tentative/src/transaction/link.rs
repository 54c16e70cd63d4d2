//! The origin's link to its keeper, and one session a transaction.
//!
//! Everything here runs before the clone or after the branch's end, when the origin may allocate.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair},
    time::Timespec,
};
use tentative_sys::{
    process::detached::start_detached,
    transplant::talk::{self, Message, op},
};

use super::{
    BeginError, Options,
    own::{self, Own, Owner},
};
use crate::{
    effect::Effect,
    layer::Layer,
    live::protocol::{self, Findings, Offer, Ready, Start, Take},
    policy::{Action, Kind},
    store::Store,
};

/// The keepers of this process and of the origins whose copy it is: the owner tells whose one is.
static KEEPERS: Mutex<Vec<Keeper>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Keeper {
    link: Own,
    executable: PathBuf,
}

/// Lets go of this process's own keeper, which then ends.
fn dismiss(keepers: &mut Vec<Keeper>) {
    keepers.retain(|keeper| {
        let ours = keeper.link.owner() == Owner::this();
        if ours && own::depth() > 0 {
            wait_for_end(keeper.link.as_fd());
        }
        !ours
    });
}

/// A session with a sandbox that is up.
#[derive(Debug)]
pub(super) struct Session {
    socket: Own,
    init: Own,
    /// The socket to the monitor around this process, where there is one: with it the branch joins.
    outer: Option<Own>,
    pub(super) ready: Ready,
}

/// A session that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    socket: Own,
    executable: PathBuf,
    take: Take,
}

impl Asked {
    /// Waits until its sandbox is up.
    pub(super) fn session(self) -> Result<Session, BeginError> {
        let Asked { mut socket, executable, take } = self;
        let offered = match protocol::receive::<Offer>(&socket) {
            // A keeper that was killed: a new one, once.
            Err(Errno::PIPE | Errno::CONNRESET) => {
                let mut keepers = KEEPERS.lock().unwrap_or_else(PoisonError::into_inner);
                dismiss(&mut keepers);
                ask(&mut keepers, &executable, &take).and_then(|fresh| {
                    socket = fresh;
                    protocol::receive::<Offer>(&socket)
                })
            }
            other => other,
        };
        let (offer, init) =
            offered.map_err(|source| BeginError::Monitor { executable: executable.clone(), source })?;
        match (offer, init) {
            (Offer::Ready(ready), Some(init)) => {
                let init = Own::new(init).map_err(BeginError::Output)?;
                Ok(Session { socket, init, outer: None, ready })
            }
            (Offer::Failed { layer, reason, remedy }, _) => {
                if own::depth() > 0 {
                    wait_for_end(socket.as_fd());
                }
                Err(BeginError::Sandbox { layer, reason, remedy })
            }
            (Offer::Ready(_), None) => Err(BeginError::Monitor { executable, source: Errno::PROTO }),
        }
    }
}

impl Session {
    /// Asks the keeper for a session; the keeper is started if there is none.
    pub(super) fn ask(options: &Options) -> Result<Asked, BeginError> {
        let directory = std::env::current_dir().map_err(BeginError::Directory)?;
        let root = rustix::process::geteuid().is_root();
        let take = Take {
            without: options.without,
            devices: allowed_devices(options),
            nested: own::depth() > 0,
            // Root's sandboxes do not depend on it, so one that is ready always fits.
            directory: if root { PathBuf::from("/") } else { directory },
        };
        let executable = options.executable.clone().map_or_else(find_executable, Ok)?;
        let mut keepers = KEEPERS.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = match ask(&mut keepers, &executable, &take) {
            // A keeper that was killed: a new one, once.
            Err(Errno::PIPE | Errno::CONNRESET) => {
                dismiss(&mut keepers);
                ask(&mut keepers, &executable, &take)
            }
            other => other,
        };
        match asked {
            Ok(socket) => Ok(Asked { socket, executable, take }),
            Err(source) => Err(BeginError::Monitor { executable, source }),
        }
    }

    /// Tells the session what it needs to know, just before the clone.
    pub(super) fn start(&mut self, options: &Options) -> Result<(), BeginError> {
        let number = |pid: Option<rustix::process::Pid>| pid.map_or(0, |pid| pid.as_raw_nonzero().get());
        let own = rustix::process::getpid();
        let start = Start {
            policy: options.policy.clone(),
            program: options.program.clone(),
            pid: number(Some(own)),
            parent: number(rustix::process::getppid()),
            group: tentative_sys::kin::group_of(0).unwrap_or(0),
            session: tentative_sys::kin::session_of(0).unwrap_or(0),
            children: children(),
        };
        let lost = |source| BeginError::Session { source };
        protocol::send(&self.socket, &start, None).map_err(lost)?;
        if self.ready.nested {
            // It comes when the monitor around knows the policy.
            let (_, outer) = protocol::receive::<()>(&self.socket).map_err(lost)?;
            self.outer = outer.map(Own::new).transpose().map_err(BeginError::Output)?;
        }
        Ok(())
    }

    /// Where the journal of a commit will be.
    pub(super) fn journal(&self) -> CString {
        let path = self.ready.directory.join(crate::journal::NAME);
        CString::new(path.into_os_string().into_encoded_bytes()).unwrap_or_default()
    }

    pub(super) fn socket(&self) -> RawFd {
        self.socket.number()
    }

    /// The socket by which the branch joins the monitor around it; -1 when there is none.
    pub(super) fn outer(&self) -> RawFd {
        self.outer.as_ref().map_or(-1, Own::number)
    }

    pub(super) fn init(&self) -> RawFd {
        self.init.number()
    }

    /// What the branch did; nothing is known when the session died.
    pub(super) fn findings(&self) -> Option<Findings> {
        talk::send_from(self.socket.as_fd(), &Message::of(op::REPORT), None).ok()?;
        self.awaited_findings()
    }

    /// What a committed branch did: the answer to the last message of the commit, which the origin sent while it could
    /// not allocate. The files are in place when it comes.
    pub(super) fn awaited_findings(&self) -> Option<Findings> {
        let (message, fd) = talk::receive_from(self.socket.as_fd()).ok()?;
        match fd {
            Some(document) => protocol::read_document(document).ok(),
            None => serde_json::from_slice(message.words()).ok(),
        }
    }

    /// The session died. If that was after the commit point, its files are put in place now; what it knew is lost.
    pub(super) fn after_death(&self) -> Findings {
        let mut unfinished = "the monitor died; its record of the transaction is lost".to_owned();
        // Its socket may close a moment before its lock on the transaction is gone.
        for _ in 0..400 {
            if let Err(error) = Store::open_default().and_then(|store| store.recover()) {
                unfinished =
                    format!("the monitor died, and recovering failed: {error}; run 'tentative recover'");
                break;
            }
            if !self.ready.directory.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Findings { unfinished: Some(unfinished), ..Findings::default() }
    }

    /// Keeps the files as a pending transaction, with what was shown in its record; returns its id.
    pub(super) fn keep(&self, shown: &[Effect]) -> Result<String, String> {
        let lost = |errno: Errno| format!("the monitor is gone: {errno}");
        let told = protocol::document(shown).map_err(|errno| format!("the record has no room: {errno}"))?;
        talk::send_from(self.socket.as_fd(), &Message::of(op::KEEP), Some(told.as_fd())).map_err(lost)?;
        let (message, _) = talk::receive_from(self.socket.as_fd()).map_err(lost)?;
        let words = String::from_utf8_lossy(message.words()).into_owned();
        if message.op == op::DONE { Ok(words) } else { Err(words) }
    }
}

/// Waits until the other end of a socket is closed, which its process does when it has cleaned up; not for ever.
fn wait_for_end(socket: BorrowedFd<'_>) {
    const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
    // Nothing more is said; what comes is its end.
    let _ended_already = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
    let mut rest = [0u8; 1];
    loop {
        let mut ready = [PollFd::new(&socket, PollFlags::IN)];
        match poll(&mut ready, Some(&PATIENCE)) {
            Err(Errno::INTR) => {}
            Ok(1..)
                if rustix::net::recv(socket, &mut rest[..], RecvFlags::TRUNC)
                    .is_ok_and(|(got, _)| got > 0) => {}
            _ => return,
        }
    }
}

impl Drop for Session {
    /// Inside another transaction nothing of this one may outlive it, or it would keep the outer one from its commit.
    fn drop(&mut self) {
        if own::depth() > 0 && self.socket.owner() == Owner::this() {
            self.outer = None;
            wait_for_end(self.socket.as_fd());
        }
    }
}

/// After a transaction inside another one: its keeper must not outlive it either.
pub(super) fn after_transaction() {
    if own::depth() > 0 {
        dismiss(&mut KEEPERS.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Sends the request; its answer comes out of the socket that is returned.
fn ask(keepers: &mut Vec<Keeper>, executable: &Path, take: &Take) -> Result<Own, Errno> {
    let is_ours = |keeper: &Keeper| keeper.link.owner() == Owner::this() && keeper.executable == executable;
    if !keepers.iter().any(is_ours) {
        dismiss(keepers);
        let link = Own::new(start_keeper(executable)?)?;
        keepers.push(Keeper { link, executable: executable.to_owned() });
    }
    let Some(keeper) = keepers.iter().find(|keeper| is_ours(keeper)) else { return Err(Errno::SRCH) };
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let ours = Own::new(ours)?;
    protocol::send(&keeper.link, take, Some(theirs.as_fd()))?;
    Ok(ours)
}

fn start_keeper(executable: &Path) -> Result<OwnedFd, Errno> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let program = CString::new(executable.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let arguments = [c"tentative".to_owned(), c"monitor".to_owned(), c"--fd".to_owned(), c"3".to_owned()];
    start_detached(&program, &arguments, theirs.as_fd())?;
    Ok(ours)
}

/// The executable on the search path, for callers that do not say where theirs is.
fn find_executable() -> Result<PathBuf, BeginError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("tentative"))
        .find(|candidate| rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok())
        .ok_or(BeginError::NoExecutable)
}

fn allowed_devices(options: &Options) -> Vec<PathBuf> {
    let device = |rule: &crate::policy::Rule| match (&rule.action, &rule.kind) {
        (Action::Allow, Kind::Device(path)) => Some(path.clone()),
        _ => None,
    };
    options.policy.rules.iter().filter_map(device).collect()
}

/// The children of this process, which are not the branch's to wait for.
fn children() -> Vec<i32> {
    let path = format!("/proc/self/task/{}/children", std::process::id());
    let list = std::fs::read_to_string(path).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether any layer that needs a session is to be contained.
pub(super) fn is_needed(options: &Options) -> bool {
    [Layer::Files, Layer::Kin, Layer::World].into_iter().any(|layer| !options.without.contains(layer))
}

//! The keeper: forks sessions and keeps one ready.
//!
//! It has one thread, builds nothing itself and never blocks on a session, so it always notices the origin's end.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{WaitId, WaitIdOptions, waitid},
};
use tentative_sys::kin::{Cloned, Namespaces, clone_into, exit_now};

use super::{
    protocol::{self, Take},
    session,
};

/// A session that waits for its transaction.
struct Waiting {
    take: Take,
    /// Where it waits for the transaction's socket.
    door: OwnedFd,
}

struct Keeper {
    link: OwnedFd,
    waiting: Option<Waiting>,
    /// Sessions that have not been reaped yet.
    sessions: Vec<OwnedFd>,
}

pub(super) fn run(link: OwnedFd) {
    let mut keeper = Keeper { link, waiting: None, sessions: Vec::new() };
    // The kernel's refusal to go on means that the origin is gone, or that nothing can be served any more.
    while keeper.turn().is_ok() {}
}

impl Keeper {
    fn turn(&mut self) -> Result<(), Errno> {
        let mut polls = vec![PollFd::new(&self.link, PollFlags::IN)];
        polls.extend(self.sessions.iter().map(|session| PollFd::new(session, PollFlags::IN)));
        match poll(&mut polls, None) {
            Err(Errno::INTR) => return Ok(()),
            other => other?,
        };
        let ended: Vec<bool> = polls[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        let asked = !polls[0].revents().is_empty();
        let mut index = 0;
        self.sessions.retain(|session| {
            index += 1;
            if ended[index - 1] {
                let _reaped = waitid(WaitId::PidFd(session.as_fd()), WaitIdOptions::EXITED);
            }
            !ended[index - 1]
        });
        if asked { self.hand_out() } else { Ok(()) }
    }

    /// Gives the origin's socket to a session, and lets the next one be built.
    fn hand_out(&mut self) -> Result<(), Errno> {
        let (take, socket): (Take, _) = protocol::receive(&self.link)?;
        let socket = socket.ok_or(Errno::PROTO)?;
        let door = match self.waiting.take() {
            Some(waiting) if waiting.take == take => waiting.door,
            // Another kind was ready; its session ends with the door.
            _ => self.fork_session(&take)?,
        };
        match protocol::send(&door, &(), Some(socket.as_fd())) {
            // The session died while it waited; the origin sees its socket closed.
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            other => other?,
        }
        drop(door);
        let door = self.fork_session(&take)?;
        self.waiting = Some(Waiting { take, door });
        Ok(())
    }

    fn fork_session(&mut self, take: &Take) -> Result<OwnedFd, Errno> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        match clone_into(Namespaces::NONE)? {
            Cloned::Child => {
                // In the session: nothing of the keeper's may stay open, or ends of sockets would not be seen. It never
                // returns to the keeper's frames.
                if tentative_sys::kin::close_all_but(theirs.as_fd()).is_ok() {
                    session::run(take, theirs);
                }
                exit_now(0)
            }
            Cloned::Parent { pidfd, .. } => {
                self.sessions.push(pidfd);
                Ok(ours)
            }
        }
    }
}

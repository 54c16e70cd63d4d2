//! The keeper: forks sessions and keeps one ready.
//!
//! It has one thread, builds nothing itself and never blocks on a session, so it always notices the origin's end.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{WaitId, WaitIdOptions, waitid},
    time::Timespec,
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

/// Sessions that are kept ready.
const READY: usize = 2;
/// How many are kept when those that served a transaction offer themselves again: on a busy machine others have been built
/// meanwhile.
const MOST: usize = 2 * READY;
/// While one is ready, the next is built only when the transaction that took the last one has probably ended: on a
/// small machine they would compete for processors.
const BUILD_DELAY: Duration = Duration::from_millis(10);

struct Keeper {
    link: OwnedFd,
    waiting: VecDeque<Waiting>,
    /// Those that serve a transaction, and may offer themselves again.
    serving: Vec<Waiting>,
    /// What to build next, and when.
    planned: Option<(Take, Instant)>,
    /// Sessions that have not been reaped yet.
    sessions: Vec<OwnedFd>,
}

pub(super) fn run(link: OwnedFd) {
    let mut keeper =
        Keeper { link, waiting: VecDeque::new(), serving: Vec::new(), planned: None, sessions: Vec::new() };
    // The kernel's refusal to go on means that the origin is gone, or that nothing can be served any more.
    while keeper.turn().is_ok() {}
}

impl Keeper {
    fn turn(&mut self) -> Result<(), Errno> {
        let mut polls = vec![PollFd::new(&self.link, PollFlags::IN)];
        polls.extend(self.serving.iter().map(|serving| PollFd::new(&serving.door, PollFlags::IN)));
        polls.extend(self.sessions.iter().map(|session| PollFd::new(session, PollFlags::IN)));
        let wait = self.planned.as_ref().map(|(_, due)| {
            let left = due.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        match poll(&mut polls, wait.as_ref()) {
            Err(Errno::INTR) => return Ok(()),
            other => other?,
        };
        let mut heard = polls.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        let asked = heard.next() == Some(true);
        let back: Vec<Waiting> = self.serving.extract_if(.., |_| heard.next() == Some(true)).collect();
        for session in self.sessions.extract_if(.., |_| heard.next() == Some(true)) {
            let _reaped = waitid(WaitId::PidFd(session.as_fd()), WaitIdOptions::EXITED);
        }
        back.into_iter().for_each(|serving| self.take_back(serving));
        if asked {
            self.hand_out()?;
        } else if self.planned.as_ref().is_some_and(|(_, due)| *due <= Instant::now()) {
            self.build_planned()?;
        }
        Ok(())
    }

    /// Builds what is missing, one after the other.
    fn build_planned(&mut self) -> Result<(), Errno> {
        let Some((take, _)) = self.planned.take() else { return Ok(()) };
        let door = self.fork_session(&take)?;
        self.waiting.push_back(Waiting { take: take.clone(), door });
        if self.waiting.len() < READY {
            self.planned = Some((take, Instant::now() + BUILD_DELAY));
        }
        Ok(())
    }

    /// A session has ended, or offers itself again; with its door closed it ends.
    fn take_back(&mut self, serving: Waiting) {
        let offers = protocol::receive::<()>(&serving.door).is_ok();
        if offers
            && self.waiting.len() < MOST
            && self.waiting.iter().all(|waiting| waiting.take == serving.take)
        {
            self.waiting.push_back(serving);
        }
        if self.waiting.len() >= READY {
            self.planned = None;
        }
    }

    /// Gives the origin's socket to a session, and lets the next one be built.
    fn hand_out(&mut self) -> Result<(), Errno> {
        let (take, socket): (Take, _) = protocol::receive(&self.link)?;
        let socket = socket.ok_or(Errno::PROTO)?;
        // Those of another kind end with their doors.
        self.waiting.retain(|waiting| waiting.take == take);
        let door = match self.waiting.pop_front() {
            Some(waiting) => waiting.door,
            None => self.fork_session(&take)?,
        };
        match protocol::send(&door, &(), Some(socket.as_fd())) {
            // The session died while it waited; the origin sees its socket closed.
            Err(Errno::PIPE | Errno::CONNRESET) => {}
            other => other?,
        }
        self.serving.push(Waiting { take: take.clone(), door });
        if take.nested || self.waiting.len() >= READY {
            return Ok(());
        }
        let delay = if self.waiting.is_empty() { Duration::ZERO } else { BUILD_DELAY };
        self.planned = Some((take, Instant::now() + delay));
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

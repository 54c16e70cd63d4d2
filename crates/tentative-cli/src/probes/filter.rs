//! The filter: one call is notified to a listener and answered, and a descriptor is handed over.

use rustix::io::Errno;
use tentative_sys::probe::{ListenerError, listener_round_trip};

use super::{Failure, Need, Probe, remedy};

/// A seccomp listener with ADDFD.
pub(super) const LISTENER: Probe = Probe {
    name: "filter-listener",
    title: "system call filter with a listener",
    need: Need::Required,
    attempt: |_| {
        match listener_round_trip() {
        Ok(()) => Ok("a call was answered and a descriptor handed over".to_owned()),
        Err(ListenerError::Install(Errno::BUSY)) if std::env::var_os("TENTATIVE_ID").is_some() => {
            Ok("served by the monitor of the transaction around this one".to_owned())
        }
        Err(ListenerError::Install(Errno::BUSY)) => Err(Failure {
            found: "another program's filter with a listener is on this process already".to_owned(),
            remedy: Some(
                "the kernel allows one listener: start tentative outside of the container or sandbox that listens"
                    .to_owned(),
            ),
        }),
        Err(ListenerError::Install(errno)) => Err(refused("install it", errno)),
        Err(ListenerError::Receive(errno)) => Err(refused("receive a call", errno)),
        Err(ListenerError::HandOver(errno)) => Err(refused("hand a descriptor over", errno)),
        Err(ListenerError::Answer(errno)) => Err(refused("answer a call", errno)),
        Err(ListenerError::Lost) => {
            Err(Failure { found: "the answer did not arrive".to_owned(), remedy: None })
        }
    }
    },
};

fn refused(doing: &str, errno: Errno) -> Failure {
    let failure = Failure::step(doing, errno);
    match errno {
        Errno::NOSYS | Errno::INVAL => {
            failure.remedy("this kernel lacks it: Linux 6.1 or newer with CONFIG_SECCOMP_FILTER is needed")
        }
        _ => match remedy::container() {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        },
    }
}

//! Memory: how written pages are found.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use rustix::io::Errno;
use tentative_sys::probe::{MarksError, marks_round_trip};

use super::{Failure, Need, Probe, remedy};

/// Asynchronous write protection by userfaultfd, with PAGEMAP_SCAN.
pub(super) const WRITE_PROTECTION: Probe = Probe {
    name: "write-protection",
    title: "asynchronous write protection (userfaultfd, PAGEMAP_SCAN)",
    need: Need::Optional,
    attempt: |_: &Path| match marks_round_trip() {
        Ok(()) => Ok("a written page lost its mark, another one kept it".to_owned()),
        Err(MarksError::Wrong) => {
            Err(Failure { found: "the marks do not show which page was written".to_owned(), remedy: None })
        }
        Err(MarksError::Open(errno)) => Err(unavailable("open a userfaultfd", errno)),
        Err(MarksError::Prepare(errno)) => Err(unavailable("prepare two pages", errno)),
        Err(MarksError::Arm(errno)) => Err(unavailable("mark pages", errno)),
    },
};

fn unavailable(doing: &str, errno: Errno) -> Failure {
    let failure = Failure::step(doing, errno);
    match errno {
        Errno::INVAL | Errno::NOSYS | Errno::NOTTY => failure
            .remedy("Linux 6.7 or newer has it; without it, commits of live processes compare contents"),
        _ => match remedy::container() {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        },
    }
}

/// Page frame numbers in /proc/self/pagemap, which only privileged processes see.
pub(super) const FRAME_NUMBERS: Probe = Probe {
    name: "frame-numbers",
    title: "page frame numbers in /proc/self/pagemap",
    need: Need::Optional,
    attempt: |_: &Path| {
        let page = vec![1_u8; 8192];
        let address = page.as_ptr() as u64;
        let failed = |found: String| Failure {
            found,
            remedy: Some(
                "nothing to do: only root sees them, and written pages are found by write protection"
                    .to_owned(),
            ),
        };
        let map = File::open("/proc/self/pagemap").map_err(|error| failed(format!("open it: {error}")))?;
        let mut entry = [0_u8; 8];
        let size = rustix::param::page_size() as u64;
        map.read_exact_at(&mut entry, address / size * 8)
            .map_err(|error| failed(format!("read it: {error}")))?;
        let frame = u64::from_ne_bytes(entry) & ((1 << 55) - 1);
        if frame == 0 {
            Err(failed("they read as zero".to_owned()))
        } else {
            Ok("they can be read".to_owned())
        }
    },
};

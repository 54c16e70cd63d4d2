//! Memory: how written pages are found.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use super::{Failure, Need, Probe};

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

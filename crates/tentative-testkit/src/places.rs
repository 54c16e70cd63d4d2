//! What a test's store has on other file systems, removed with the store: transactions that are kept, or whose processes
//! the test killed.

use std::{fs, path::Path};

/// Removes the places of transactions whose store lies below a directory.
pub(crate) fn remove_of(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let user = rustix::process::geteuid().as_raw();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
        let shared = Path::new(mount).join(format!(".tentative-{user}"));
        for entry in fs::read_dir(&shared).into_iter().flatten().flatten() {
            let owner = entry.path();
            let said = if owner.extension().is_some() { fs::read_to_string(&owner) } else { continue };
            if said.is_ok_and(|said| said.contains(&format!("\"{}/", directory.display()))) {
                let place = owner.with_extension("");
                crate::opened::open_up(&place);
                // Somebody who is just ending may be doing the same.
                let _gone = fs::remove_dir_all(&place);
                let _gone = fs::remove_file(&owner);
            }
        }
        // Others may have theirs in it.
        let _in_use = fs::remove_dir(&shared);
    }
}

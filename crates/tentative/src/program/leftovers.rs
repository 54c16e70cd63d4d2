//! Processes that outlive the program: they end with it, and the record says so.
//!
//! With the layer `kin` the pid namespace ends them. Without it they become children of the runner, which ends them one
//! by one; if the runner itself is killed, init does it (`sandbox/guard.rs`).

use rustix::{
    fs::CWD,
    process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid},
};

use super::{RunError, ended::record_leftovers};
use crate::{
    layer::{Layer, LayerSet},
    monitor::{Log, parse_stat, read_at},
    sandbox::Sandbox,
};

/// Field of the parent in `stat`, counted from the state.
const PARENT: usize = 1;

/// Makes orphans of the program children of this process, where no pid namespace holds them.
pub(super) fn adopt(without: LayerSet) -> Result<(), RunError> {
    let adopts = without.contains(Layer::Kin).then(getpid);
    match adopts {
        Some(own) => set_child_subreaper(Some(own)).map_err(RunError::Prepare),
        None => Ok(()),
    }
}

/// Records what is left, and ends it where the end of the sandbox does not; returns how many there are, or were. When
/// nobody could look there is at least one.
pub(super) fn end(sandbox: &Sandbox, without: LayerSet, log: &mut Log) -> usize {
    let looked = sandbox.processes();
    let unknown = usize::from(looked.is_err());
    let mut count = looked.unwrap_or_default().len();
    if without.contains(Layer::Kin) {
        loop {
            let left: Vec<Pid> = children().into_iter().filter(|pid| *pid != sandbox.init_pid()).collect();
            if left.is_empty() {
                break;
            }
            count += left.len();
            for pid in left {
                // It has ended by itself: the wait tells.
                let _ended = kill_process(pid, Signal::KILL);
                let _reaped = waitpid(Some(pid), WaitOptions::empty());
            }
        }
    }
    if count > 0 {
        record_leftovers(log, count);
    }
    count + unknown
}

fn children() -> Vec<Pid> {
    let own = i64::from(getpid().as_raw_nonzero().get());
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|number| {
            let stat = read_at(CWD, &format!("/proc/{number}/stat")).unwrap_or_default();
            parse_stat(&stat).and_then(|fields| fields.get(PARENT).copied()) == Some(own)
        })
        .filter_map(Pid::from_raw)
        .collect()
}

//! System V and POSIX objects: the sandbox has its own, so nobody outside sees them; they may stay behind in it.

use rustix::io::Errno;

use crate::{
    effect::{Class, Decision},
    monitor::{Call, Outcome},
};

/// The key of an object that nobody else can find.
const PRIVATE: u64 = 0;

/// shmget(2), semget(2), msgget(2) and mq_open(3).
pub(crate) fn use_ipc(call: &mut Call<'_>) -> Outcome {
    call.noticed.used_ipc = true;
    let target = match call.pathway.name {
        "mq_open" => {
            let Some(name) = call.read_string(call.word(0)) else { return Outcome::error(Errno::FAULT) };
            format!("message queue /{}", String::from_utf8_lossy(&name))
        }
        _ if call.word(0) == PRIVATE => return Outcome::CONTINUE,
        _ => format!("key {:#x}", call.int(0)),
    };
    call.record(Class::Contained, Decision::Allowed, target, None, None);
    Outcome::CONTINUE
}

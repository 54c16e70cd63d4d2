//! Terminal controls: the origin's numbers for groups and sessions outside, and no injected input.

use std::os::fd::OwnedFd;

use rustix::{io::Errno, process::Pid};
use tentative_sys::kin::{become_foreground, group_of};

use super::groups::own_group;
use crate::monitor::{Call, Outcome, parse_stat, read_at};

const TIOCGPGRP: u32 = 0x540f;
const TIOCSPGRP: u32 = 0x5410;
const TIOCGSID: u32 = 0x5429;

const TERMINAL: usize = 4;
const FOREGROUND: usize = 5;
const SESSION: usize = 3;

/// ioctl(2), for the requests that the table names.
pub(crate) fn ioctl(call: &mut Call<'_>) -> Outcome {
    match call.int(1) as u32 {
        TIOCGPGRP => foreground(call),
        TIOCSPGRP => set_foreground(call),
        TIOCGSID => session(call),
        request => {
            call.blocked(request_name(request), Errno::PERM, None);
            Outcome::error(Errno::PERM)
        }
    }
}

/// tcgetpgrp(3).
fn foreground(call: &Call<'_>) -> Outcome {
    let Some(stat) = own_terminal(call) else { return Outcome::CONTINUE };
    let (Some(group), Some(ours)) = (stat.get(FOREGROUND).copied(), group_of_main(call)) else {
        return Outcome::CONTINUE;
    };
    let shown = if group == ours {
        call.scope.origin.group.map(i64::from)
    } else if inner_number(group).is_some() {
        None
    } else {
        Some(group)
    };
    shown.map_or(Outcome::CONTINUE, |number| write_number(call, number))
}

/// tcgetsid(3).
fn session(call: &Call<'_>) -> Outcome {
    let Some(stat) = own_terminal(call) else { return Outcome::CONTINUE };
    match stat.get(SESSION) {
        Some(session) if inner_number(*session).is_none() => {
            write_number(call, call.scope.origin.session.into())
        }
        _ => Outcome::CONTINUE,
    }
}

/// tcsetpgrp(3) with the origin's group, which stands for the branch's own.
fn set_foreground(call: &Call<'_>) -> Outcome {
    let Some(shown) = call.scope.origin.group else { return Outcome::CONTINUE };
    let wanted = call.read(call.word(2), 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    if wanted != Some(shown) || own_group(call).is_none() {
        return Outcome::CONTINUE;
    }
    let group = group_of_main(call).and_then(|group| i32::try_from(group).ok()).and_then(Pid::from_raw);
    let terminal: Result<OwnedFd, Errno> = call.caller.descriptor(call.int(0));
    match (terminal, group) {
        (Ok(terminal), Some(group)) => {
            use std::os::fd::AsFd as _;
            become_foreground(terminal.as_fd(), group).map_or_else(Outcome::error, |()| Outcome::value(0))
        }
        (Err(errno), _) => Outcome::error(errno),
        (_, None) => Outcome::error(Errno::SRCH),
    }
}

/// The caller's `stat` in the monitor's numbers, if the descriptor is its controlling terminal.
fn own_terminal(call: &Call<'_>) -> Option<Vec<i64>> {
    let stat = parse_stat(&read_at(rustix::fs::CWD, &format!("/proc/{}/stat", call.caller.tid()))?)?;
    let descriptor = format!("/proc/{}/fd/{}", call.caller.tid(), call.int(0));
    let device = rustix::fs::stat(descriptor).ok()?.st_rdev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    // As the kernel puts device numbers into `stat` (new_encode_dev).
    let encoded = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    (stat.get(TERMINAL).copied()? == i64::from(encoded as i32)).then_some(stat)
}

/// The group of the program's or branch's first process, as the monitor numbers it.
fn group_of_main(call: &Call<'_>) -> Option<i64> {
    if call.scope.main == 0 {
        return None;
    }
    group_of(call.scope.main).ok().map(i64::from)
}

/// The innermost number of a process, if it is in a pid namespace below the monitor's.
fn inner_number(process: i64) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().nth(1)?.parse().ok()
}

fn write_number(call: &Call<'_>, number: i64) -> Outcome {
    let Ok(number) = i32::try_from(number) else { return Outcome::CONTINUE };
    match call.caller.write(call.word(2), &number.to_ne_bytes()) {
        Some(()) => Outcome::value(0),
        None => Outcome::error(Errno::FAULT),
    }
}

fn request_name(request: u32) -> String {
    match request {
        0x5412 => "TIOCSTI (input injection)".to_owned(),
        0x541c => "TIOCLINUX (console control)".to_owned(),
        0x541d => "TIOCCONS (console output)".to_owned(),
        0x5437 => "TIOCVHANGUP (terminal hang-up)".to_owned(),
        other => format!("console control {other:#x}"),
    }
}

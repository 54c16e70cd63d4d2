//! The standard streams that a branch shares with the outside: whoever reads them sees what it writes, for good.
//!
//! Each is recorded as a program's are (`program/inherited.rs`): that it was there to be written to, not whether it was.
//! It is looked at before the clone, while the streams are those that the branch begins with. Every transaction pays for
//! this, so it asks the kernel for nothing that is known already.

use tentative_sys::process::descriptors::{Inherit, flags_and_offset, stamp_of};

use super::inherit::Plan;
use crate::{
    effect::{Class, Decision, Effect},
    layer::Layer,
    monitor::now_ns,
    process::gaps::{Open, may_write, stream_name},
};

/// A standard stream that somebody could read.
pub(super) struct Stream {
    number: i32,
    /// What is open there, in words.
    what: String,
    /// Whether the words are those of this file alone.
    named: bool,
}

/// The standard streams among the open descriptors that somebody could read: the outputs, unless they are captured, and
/// the input where it can be written to, as a socket or a terminal often can.
pub(super) fn streams(open: &[(i32, Open)], captured: bool) -> Vec<Stream> {
    let is_stream = |(number, open): &&(i32, Open)| match number {
        0 => matches!(open, Open::Terminal(_) | Open::Socket | Open::Pipe) && is_writable(*number),
        1 | 2 => !captured && *open != Open::Harmless,
        _ => false,
    };
    let stream = |(number, open): &(i32, Open)| match open {
        Open::Path(path) | Open::Terminal(path) => {
            Stream { number: *number, what: path.display().to_string(), named: true }
        }
        other => Stream { number: *number, what: other.in_words(), named: false },
    };
    let mut streams: Vec<Stream> = open.iter().filter(is_stream).map(stream).collect();
    // A terminal that is all three is named by what is written to.
    streams.sort_by_key(|stream| (stream.number == 0, stream.number));
    streams
}

fn is_writable(number: i32) -> bool {
    flags_and_offset(number).is_ok_and(|(flags, _)| may_write(flags))
}

/// One effect for each stream that the branch shares; all of them where nothing is planned for its descriptors.
pub(super) fn look(streams: Vec<Stream>, plan: Option<&Plan>) -> Vec<Effect> {
    let mut shared: Vec<Stream> = Vec::new();
    for stream in streams {
        if is_shared(stream.number, plan) && !shared.iter().any(|other| is_same(other, &stream)) {
            shared.push(stream);
        }
    }
    if shared.is_empty() {
        return Vec::new();
    }
    let now = now_ns();
    (1..).zip(&shared).map(|(id, stream)| effect(id, stream, now)).collect()
}

/// A deleted file that the program alone holds is private inside: the plan gives the branch a copy.
fn is_shared(number: i32, plan: Option<&Plan>) -> bool {
    let shares = |plan: &Plan| {
        plan.entries.iter().any(|entry| entry.number == number && entry.action == Inherit::Share)
    };
    plan.is_none_or(shares)
}

fn is_same(one: &Stream, other: &Stream) -> bool {
    let object = |stream: &Stream| stamp_of(stream.number).ok().map(|stamp| stamp.file());
    one.what == other.what && (one.named || object(one) == object(other))
}

fn effect(id: u64, stream: &Stream, time_ns: u64) -> Effect {
    let name = stream_name(stream.number);
    Effect {
        id,
        layer: Layer::Process,
        class: Class::Shown,
        operation: "inherit".to_owned(),
        target: format!("{name} ({})", stream.what),
        pid: 0,
        tid: 0,
        program: "tentative".to_owned(),
        time_ns,
        decision: Decision::Allowed,
        errno: None,
        count: 1,
        stack: None,
        hint: None,
    }
}

//! The few fixed messages between origin and monitor while a branch exists.
//!
//! They are fixed since the origin may not allocate then. One message is one packet of a SOCK_SEQPACKET socket, with
//! at most one descriptor.

use core::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::control::Reply;
pub use super::control::WORDS;
use crate::raw;

/// What a message is.
pub mod op {
    /// Branch: here is the filter's listener (with a descriptor).
    pub const LISTENER: u32 = 1;
    /// Origin: the branch runs; `a` is its pid outside.
    pub const RUNNING: u32 = 2;
    /// Origin: freeze and stage the files. Answered with `a` 1 if there are none, so that nothing is to be published.
    pub const STAGE: u32 = 3;
    /// Origin: open a path as it will be after the commit; `a` has the flags, the words are the path.
    pub const OPEN: u32 = 4;
    /// Origin: ready; write the commit record.
    pub const PUBLISH: u32 = 5;
    /// Origin: not going to commit; the branch goes on.
    pub const ABANDON: u32 = 6;
    /// Origin: the branch is gone, put the files in place. Answered as `REPORT` is.
    pub const APPLY: u32 = 7;
    /// Origin: what did the branch do? Answered with JSON: in the words, or in a descriptor if that is too long for
    /// them; `a` has the length.
    pub const REPORT: u32 = 10;
    /// Origin: keep the files for later.
    pub const KEEP: u32 = 11;
    /// Monitor: done (with a descriptor for `OPEN`).
    pub const DONE: u32 = 8;
    /// Monitor: refused; `a` is an error number, the words say why.
    pub const REFUSED: u32 = 9;
}

/// One message.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// One of [`op`].
    pub op: u32,
    /// Length of the words in bytes.
    pub words_len: u32,
    /// A number, by operation.
    pub a: i64,
    /// A path or reasons.
    pub words: [u8; WORDS],
}

/// Bytes before the words.
const HEAD: usize = 16;
const _: () = assert!(core::mem::offset_of!(Message, words) == HEAD);

impl Message {
    /// A message without words.
    #[must_use]
    pub const fn of(op: u32) -> Message {
        Message { op, words_len: 0, a: 0, words: [0; WORDS] }
    }

    /// A message with words, cut to what fits.
    #[must_use]
    pub fn with_words(op: u32, a: i64, words: &[u8]) -> Message {
        let mut message = Message { a, ..Message::of(op) };
        let length = words.len().min(WORDS);
        message.words[..length].copy_from_slice(&words[..length]);
        message.words_len = length as u32;
        message
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[u8] {
        &self.words[..(self.words_len as usize).min(WORDS)]
    }
}

#[repr(C, align(8))]
struct Ancillary {
    length: usize,
    level: i32,
    kind: i32,
    fd: i32,
    padding: i32,
}

/// `struct msghdr` as the kernel has it.
#[repr(C)]
struct Header {
    name: usize,
    name_len: u64,
    vector: usize,
    vector_len: usize,
    control: usize,
    control_len: usize,
    flags: u64,
}

const _: () = assert!(size_of::<Ancillary>() == 24 && size_of::<Header>() == 56);

fn transfer(
    call: i64,
    socket: i32,
    vector: &[usize; 2],
    ancillary: &mut Ancillary,
    control_len: usize,
) -> raw::Answer {
    let mut header = Header {
        name: 0,
        name_len: 0,
        vector: vector.as_ptr() as usize,
        vector_len: 1,
        control: core::ptr::from_mut(ancillary) as usize,
        control_len,
        flags: 0,
    };
    let flags = (libc::MSG_NOSIGNAL | libc::MSG_CMSG_CLOEXEC) as usize;
    loop {
        let pointer = (&raw mut header) as usize;
        // SAFETY: the header points to one vector of the caller's buffer and to one ancillary structure.
        let answer = unsafe { raw::syscall(call, [socket as usize, pointer, flags, 0, 0, 0]) };
        if answer != Err(Errno::INTR) {
            return answer;
        }
    }
}

/// Sends a message, with a descriptor if one is given.
///
/// # Errors
/// What sendmsg(2) said; `EPIPE` when the other end is gone.
pub fn send(socket: i32, message: &Message, fd: Option<i32>) -> Result<(), Errno> {
    let vector = [core::ptr::from_ref(message) as usize, HEAD + message.words().len()];
    let mut ancillary = Ancillary {
        length: 20,
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        fd: fd.unwrap_or(-1),
        padding: 0,
    };
    let control_len = if fd.is_some() { size_of::<Ancillary>() } else { 0 };
    transfer(libc::SYS_sendmsg, socket, &vector, &mut ancillary, control_len).map(drop)
}

/// Receives a message and the descriptor that came with it.
///
/// # Errors
/// What recvmsg(2) said; `ECONNRESET` when the other end is gone.
pub fn receive(socket: i32) -> Result<(Message, Option<i32>), Errno> {
    let mut message = MaybeUninit::<Message>::zeroed();
    let vector = [message.as_mut_ptr() as usize, size_of::<Message>()];
    let mut ancillary = Ancillary { length: 0, level: 0, kind: 0, fd: -1, padding: 0 };
    let got = transfer(libc::SYS_recvmsg, socket, &vector, &mut ancillary, size_of::<Ancillary>())?;
    let carried =
        ancillary.kind == libc::SCM_RIGHTS && ancillary.level == libc::SOL_SOCKET && ancillary.length == 20;
    let fd = carried.then_some(ancillary.fd);
    if got == 1 && fd.is_some() {
        // The branch's own packet, sent after its filter was installed.
        return Ok((Message::of(op::LISTENER), fd));
    }
    if got < HEAD {
        return Err(Errno::CONNRESET);
    }
    // SAFETY: zeroed bytes are a valid message, and so is whatever the kernel wrote over them.
    let message = unsafe { message.assume_init() };
    let carried =
        ancillary.kind == libc::SCM_RIGHTS && ancillary.level == libc::SOL_SOCKET && ancillary.length == 20;
    Ok((message, carried.then_some(ancillary.fd)))
}

/// Sends a message, for those who own their descriptors.
///
/// # Errors
/// As [`send`].
pub fn send_from(socket: BorrowedFd<'_>, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    send(socket.as_raw_fd(), message, fd.map(|fd| fd.as_raw_fd()))
}

/// Receives a message, for those who own their descriptors.
///
/// # Errors
/// As [`receive`].
pub fn receive_from(socket: BorrowedFd<'_>) -> Result<(Message, Option<OwnedFd>), Errno> {
    let (message, fd) = receive(socket.as_raw_fd())?;
    // SAFETY: the kernel has just installed this descriptor for the caller, and nobody else knows its number.
    Ok((message, fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })))
}

/// The words of a reply.
pub(super) fn words(reply: &Reply) -> String {
    let length = (reply.words_len as usize).min(WORDS);
    String::from_utf8_lossy(&reply.words[..length]).into_owned()
}

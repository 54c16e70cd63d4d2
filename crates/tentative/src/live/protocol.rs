//! What origin, keeper and session say to each other while the origin may allocate: JSON packets.
//!
//! One packet of a SOCK_SEQPACKET socket is one document, with at most one descriptor. The fixed messages that are
//! spoken while a branch exists are in `tentative_sys::transplant::talk`.

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut, Read as _, Seek as _, SeekFrom, Write as _},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    change::Change,
    containment::Gap,
    effect::Effect,
    files::{conflict::Conflict, name},
    layer::{Layer, LayerSet},
    policy::Policy,
};

/// Largest packet, bytes: what fits into a unix socket's default buffer.
const PACKET: usize = 128 << 10;

/// Origin to keeper: a session, please (with the session's socket).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// Layers to go without.
    pub without: LayerSet,
    /// Device nodes that the policy allows.
    pub devices: Vec<PathBuf>,
    /// Working directory, whose ancestors an ordinary user's sandbox prepares.
    pub directory: PathBuf,
    /// The origin is itself in a transaction: nothing is built ahead, since it could outlive that.
    pub nested: bool,
}

/// Session to origin: the sandbox is up (with the pidfd of its init), or why not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offer {
    /// It is up.
    Ready(Ready),
    /// It cannot be had.
    Failed {
        /// The layer that is missing.
        layer: Layer,
        /// Why.
        reason: String,
        /// What helps.
        remedy: String,
    },
}

/// A sandbox that is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The transaction's id.
    pub id: String,
    /// Its directory in the store, where the journal will be.
    pub directory: PathBuf,
    /// Namespaces that the helper enters.
    pub namespaces: u32,
    /// Namespaces that the branch enters itself.
    pub namespaces_of_branch: u32,
    /// Capabilities that the branch keeps.
    pub capabilities: u64,
    /// What is not contained.
    pub gaps: Vec<Gap>,
    /// Directories whose files are copies inside, made from what is outside now, and single files that are.
    #[serde(with = "name::many")]
    pub copied: Vec<PathBuf>,
    /// A monitor around this process serves the branch: a packet with the socket to it follows the start.
    pub nested: bool,
}

/// Origin to session: about to clone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Start {
    /// What may cross.
    pub policy: Policy,
    /// What `show` says that ran.
    pub program: Vec<String>,
    /// The origin's pid.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Its children.
    pub children: Vec<i32>,
}

/// Session to origin: what the branch did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    /// Changes of files.
    pub changes: Vec<Change>,
    /// Crossings.
    pub effects: Vec<Effect>,
    /// Paths that others changed meanwhile, in words.
    pub conflicts: Vec<String>,
    /// What went wrong after the commit point, in words; `recover` goes on with it.
    pub unfinished: Option<String>,
}

/// Conflicts as the words of a refusal: one JSON document a line, then how many of them had no room.
#[must_use]
pub fn conflicts_to_words(conflicts: &[Conflict], room: usize) -> String {
    // What the last line, a number, may need.
    let room = room - 21;
    let mut words = String::new();
    for (index, conflict) in conflicts.iter().enumerate() {
        let line = serde_json::to_string(conflict).unwrap_or_default();
        if words.len() + line.len() + 1 > room {
            words.push_str(&(conflicts.len() - index).to_string());
            break;
        }
        words.push_str(&line);
        words.push('\n');
    }
    words
}

/// The conflicts that [`conflicts_to_words`] wrote, and how many more there are.
#[must_use]
pub fn conflicts_from_words(words: &str) -> (Vec<Conflict>, usize) {
    let conflicts = words.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let more = words.lines().next_back().and_then(|line| line.parse().ok()).unwrap_or(0);
    (conflicts, more)
}

/// A document of any length, as a file in memory.
///
/// # Errors
/// No memory for it.
pub fn document<T: Serialize + ?Sized>(value: &T) -> Result<OwnedFd, Errno> {
    let bytes = serde_json::to_vec(value).map_err(|_| Errno::INVAL)?;
    let mut file = File::from(memfd_create("tentative-document", MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(file.into())
}

/// Reads such a document.
///
/// # Errors
/// `EPROTO` when it is not the document expected.
pub fn read_document<T: DeserializeOwned>(document: OwnedFd) -> Result<T, Errno> {
    let mut file = File::from(document);
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    serde_json::from_slice(&bytes).map_err(|_| Errno::PROTO)
}

/// Sends a document, with a descriptor if one is given.
///
/// # Errors
/// What sendmsg(2) said.
pub fn send<T: Serialize>(socket: impl AsFd, value: &T, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(value).map_err(|_| Errno::INVAL)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, flags)).map(drop)
}

/// Receives a document and the descriptor that came with it.
///
/// # Errors
/// `ECONNRESET` when the other end is gone, `EPROTO` when it is not the document expected.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Option<OwnedFd>), Errno> {
    let mut buffer = vec![0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fd = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.into_iter().next();
        }
    }
    if got.bytes == 0 {
        return Err(Errno::CONNRESET);
    }
    let value = serde_json::from_slice(&buffer[..got.bytes]).map_err(|_| Errno::PROTO)?;
    Ok((value, fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::conflict::ConflictKind;

    #[test]
    fn conflicts_cross_as_words_and_none_is_lost_silently() {
        let conflict = |path: &str, kind| Conflict { path: PathBuf::from(path), kind };
        let few = vec![
            conflict("/a\nb", ConflictKind::Changed),
            conflict("/c", ConflictKind::Locked(Some(7))),
            conflict("/d", ConflictKind::Locked(None)),
        ];
        assert_eq!(conflicts_from_words(&conflicts_to_words(&few, 3000)), (few, 0));
        let many: Vec<Conflict> =
            (0..500).map(|number| conflict(&format!("/{number}"), ConflictKind::Vanished)).collect();
        let words = conflicts_to_words(&many, 3000);
        let (told, more) = conflicts_from_words(&words);
        assert!(words.len() <= 3000 && told.len() > 20);
        assert_eq!(told.len() + more, 500);
        assert_eq!(told[..], many[..told.len()]);
    }
}

//! Output that is captured or held: the branch writes into private files instead of the standard streams.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::fd::{AsFd as _, RawFd},
};

use rustix::{
    fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create},
    io::Errno,
};

use super::own::Own;

/// Two files in memory, one for each stream.
#[derive(Debug)]
pub(super) struct Capture {
    streams: [Own; 2],
}

impl Capture {
    pub(super) fn new() -> Result<Capture, Errno> {
        Ok(Capture { streams: [stream("tentative-stdout")?, stream("tentative-stderr")?] })
    }

    /// Numbers that the branch puts at 1 and 2.
    pub(super) fn descriptors(&self) -> [RawFd; 2] {
        [self.streams[0].number(), self.streams[1].number()]
    }

    /// What was written so far.
    pub(super) fn read(&self) -> (Vec<u8>, Vec<u8>) {
        let [stdout, stderr] = &self.streams;
        (content(stdout).unwrap_or_default(), content(stderr).unwrap_or_default())
    }

    /// Writes what was held to the real streams.
    pub(super) fn deliver(&self) {
        let (stdout, stderr) = self.read();
        // A reader that is gone gets nothing, as it would have got nothing live.
        let _closed_stream = io::stdout().write_all(&stdout).and_then(|()| io::stdout().flush());
        let _closed_stream = io::stderr().write_all(&stderr);
    }
}

fn stream(name: &str) -> Result<Own, Errno> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC)?;
    // Origin and branch share the offset; appending makes that harmless.
    fcntl_setfl(&fd, OFlags::APPEND)?;
    Own::new(fd)
}

fn content(stream: &Own) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::from(stream.as_fd().try_clone_to_owned()?);
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

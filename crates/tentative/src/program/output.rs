//! Held output: what a program writes to its standard streams is kept with the transaction, in order, until a commit
//! delivers it.
//!
//! The file is a sequence of records: one byte for the stream (1 or 2), the length as four bytes (little-endian), the
//! bytes. A record that was cut off at the end is left out.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

/// Name of the file in the transaction's directory.
const FILE: &str = "output";
const HEADER: usize = 5;

/// A standard stream that was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// The pipes and the file of a running program.
#[derive(Debug)]
pub(super) struct Held {
    file: File,
    readers: [Option<OwnedFd>; 2],
    writers: [Option<OwnedFd>; 2],
}

impl Held {
    pub(super) fn open(directory: &Path) -> io::Result<Held> {
        let file = File::options().create(true).append(true).open(path(directory))?;
        let (output, output_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (error, error_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        for reader in [&output, &error] {
            fcntl_setfl(reader, OFlags::NONBLOCK)?;
        }
        Ok(Held {
            file,
            readers: [Some(output), Some(error)],
            writers: [Some(output_writer), Some(error_writer)],
        })
    }

    /// In the new process: the pipes become its standard streams.
    pub(super) fn take_over_streams(&self) -> Result<(), Errno> {
        let [Some(output), Some(error)] = &self.writers else { return Ok(()) };
        rustix::stdio::dup2_stdout(output)?;
        rustix::stdio::dup2_stderr(error)
    }

    /// In the runner, after the fork: only the program writes.
    pub(super) fn let_go_of_writers(&mut self) {
        self.writers = [None, None];
    }

    /// What to wait for.
    pub(super) fn readers(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.readers.iter().flatten().map(AsFd::as_fd)
    }

    /// Keeps everything that is there and returns without waiting.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut piece = vec![0u8; 65_536];
        for (reader, stream) in self.readers.iter_mut().zip([1u8, 2]) {
            while let Some(open) = &reader {
                match rustix::io::read(open, &mut piece) {
                    Ok(0) => *reader = None,
                    Ok(length) => {
                        let mut record = vec![stream];
                        record.extend((length as u32).to_le_bytes());
                        record.extend(&piece[..length]);
                        self.file.write_all(&record)?;
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// The output that is held in a transaction's directory, in the order in which it was written; none when none is.
///
/// # Errors
/// When it cannot be read.
pub fn read(directory: &Path) -> io::Result<Vec<(Stream, Vec<u8>)>> {
    let mut bytes = Vec::new();
    match File::open(path(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?.read_to_end(&mut bytes)?,
    };
    let mut records = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((header, after)) = rest.split_at_checked(HEADER) {
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let Some((piece, next)) = after.split_at_checked(length) else { break };
        let stream = if header[0] == 1 { Stream::Output } else { Stream::Error };
        records.push((stream, piece.to_vec()));
        rest = next;
    }
    Ok(records)
}

/// Writes the held output to this process's standard streams and forgets it, so that it is delivered once.
///
/// # Errors
/// When a stream cannot be written to; it is then still held.
pub fn deliver(directory: &Path) -> io::Result<()> {
    for (stream, piece) in read(directory)? {
        match stream {
            Stream::Output => io::stdout().lock().write_all(&piece)?,
            Stream::Error => io::stderr().lock().write_all(&piece)?,
        }
    }
    io::stdout().flush()?;
    match fs::remove_file(path(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Says whether output was held.
pub(super) fn is_there(directory: &Path) -> bool {
    path(directory).exists()
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_a_torn_one_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), []);
        let mut held = Held::open(directory.path()).unwrap();
        rustix::io::write(held.writers[0].as_ref().unwrap(), b"one").unwrap();
        held.drain().unwrap();
        rustix::io::write(held.writers[1].as_ref().unwrap(), b"two").unwrap();
        held.let_go_of_writers();
        held.drain().unwrap();
        held.file.write_all(&[1, 9, 0, 0, 0, b'x']).unwrap();
        let records = read(directory.path()).unwrap();
        assert_eq!(records, [(Stream::Output, b"one".to_vec()), (Stream::Error, b"two".to_vec())]);
    }
}

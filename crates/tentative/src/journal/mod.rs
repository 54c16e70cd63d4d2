//! The journal of a commit: what will be done, whether it was decided, whether it is done.
//!
//! One line for each entry, `CRC32 JSON`, in the transaction's directory. First the intent: a header and every step, in the
//! order in which they will be taken, then `ready` with their number. All of that is on disk before anything outside the
//! store changes. **The commit point** is the line `commit`: once it is on disk the transaction is committed, and
//! whoever finds the journal takes the steps to the end. `done` notes steps that wrote into a file, `applied` all of them. A line that is torn, or whose checksum is wrong, ends the journal
//! as if it and what follows were not there. Assumed: what `fsync(2)` reported as written is still there after a power
//! loss, and renames on one file system reach its disk in the order in which they were made.

mod step;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use tentative_sys::crash;

pub use step::{AttributeSet, Inode, Step};

/// The journal's name in a transaction's directory.
pub const NAME: &str = "journal";
/// The version in its header.
const VERSION: u32 = 1;
/// Bytes of the longest line that follows the intent.
const LINE: u64 = 64;

/// Why a journal could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It could not be made or written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry could not be put into words.
    #[error("cannot write an entry of {}", path.display())]
    Entry {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It says that it is committed, but its steps are not all there.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "lowercase")]
enum Entry {
    Header { version: u32, id: String },
    Step { step: Step },
    Ready { steps: usize },
    Commit,
    Done { step: usize },
    Applied,
}

/// How far a journal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is none, or it was not decided: nothing outside the store has changed.
    Undecided,
    /// It is committed; its steps may have been taken, or some of them.
    Committed,
    /// Every step has been taken.
    Applied,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    done: BTreeSet<usize>,
}

impl Journal {
    /// Writes the intent, on disk when this returns, and takes room for the lines that will follow.
    ///
    /// # Errors
    /// When it cannot be written; nothing is decided then, and it can be tried again.
    pub fn intend(directory: &Path, id: &str, steps: &[Step]) -> Result<Journal, JournalError> {
        let path = directory.join(NAME);
        let mut lines = Vec::new();
        let header = Entry::Header { version: VERSION, id: id.to_owned() };
        let noted = steps.iter().filter(|step| matches!(step, Step::Rewrite { .. })).count();
        let steps = steps.iter().map(|step| Entry::Step { step: step.clone() });
        let entries: Vec<Entry> = std::iter::once(header).chain(steps).collect();
        let ready = Entry::Ready { steps: entries.len() - 1 };
        for entry in entries.iter().chain([&ready]) {
            line(entry, &mut lines).map_err(|source| JournalError::Entry { path: path.clone(), source })?;
        }
        let write = || -> io::Result<File> {
            let mut file = File::create(&path)?;
            file.write_all(&lines)?;
            take_room(&file, lines.len(), noted)?;
            file.sync_all()?;
            File::open(directory)?.sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|source| JournalError::Write { path: path.clone(), source })?;
        crash::point("journal-intended");
        Ok(Journal { path, file, done: BTreeSet::new() })
    }

    /// Writes the commit record: the commit point.
    ///
    /// # Errors
    /// When it cannot be written. Whether the record reached the disk is then not known before the journal is read again.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        crash::point("journal-before-commit");
        self.append(&Entry::Commit)?;
        crash::point("journal-committed");
        Ok(())
    }

    /// Notes that a step which writes into a file has been taken, so that a recovery does not write over what others
    /// wrote since. Not waited for: what the step wrote is on disk before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn took(&mut self, step: usize) -> Result<(), JournalError> {
        self.write(&Entry::Done { step }, false)
    }

    /// The steps that were noted as taken when the journal was opened.
    #[must_use]
    pub fn done(&self) -> BTreeSet<usize> {
        self.done.clone()
    }

    /// Notes that every step has been taken.
    ///
    /// # Errors
    /// When it cannot be written; the steps will then be taken again, which changes nothing.
    pub fn applied(&mut self) -> Result<(), JournalError> {
        self.append(&Entry::Applied)?;
        crash::point("journal-applied");
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.write(entry, true)
    }

    fn write(&mut self, entry: &Entry, durable: bool) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        line(entry, &mut bytes).map_err(|source| JournalError::Entry { path: self.path.clone(), source })?;
        let mut write = || {
            self.file.write_all(&bytes)?;
            if durable { self.file.sync_all() } else { Ok(()) }
        };
        write().map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }

    /// Removes an undecided journal; none needs to be there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(directory: &Path) -> Result<(), JournalError> {
        let path = directory.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::Write { path, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Reads the journal in a transaction's directory: how far it has come, and its steps.
    ///
    /// # Errors
    /// When it cannot be read, or is committed without all its steps.
    pub fn read(directory: &Path) -> Result<(Progress, Vec<Step>), JournalError> {
        let path = directory.join(NAME);
        let mut text = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Progress::Undecided, Vec::new()));
            }
            Err(source) => return Err(JournalError::Read { path, source }),
            Ok(_) => {}
        }
        let (mut steps, mut ready, mut progress) = (Vec::new(), false, Progress::Undecided);
        for entry in text.split_inclusive(|byte| *byte == b'\n').map_while(parse) {
            match entry {
                Entry::Header { version, .. } if version != VERSION => {
                    return Err(JournalError::Damaged(path));
                }
                Entry::Header { .. } => {}
                Entry::Step { step } => steps.push(step),
                Entry::Ready { steps: number } => ready = steps.len() == number,
                Entry::Commit if !ready => return Err(JournalError::Damaged(path)),
                Entry::Commit => progress = Progress::Committed,
                Entry::Done { .. } => {}
                Entry::Applied => progress = Progress::Applied,
            }
        }
        Ok((progress, steps))
    }

    /// Opens a committed journal to go on with it.
    ///
    /// # Errors
    /// When it cannot be opened, or made to end with its last whole line.
    pub fn reopen(directory: &Path) -> Result<Journal, JournalError> {
        let path = directory.join(NAME);
        let mut done = BTreeSet::new();
        let mut open = || -> io::Result<File> {
            let text = std::fs::read(&path)?;
            let mut whole = 0;
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                let Some(entry) = parse(line) else { break };
                whole += line.len();
                if let Entry::Done { step } = entry {
                    done.insert(step);
                }
            }
            let file = File::options().append(true).open(&path)?;
            file.set_len(whole as u64)?;
            Ok(file)
        };
        let file = open().map_err(|source| JournalError::Write { path: path.clone(), source })?;
        Ok(Journal { path, file, done })
    }
}

/// Takes room after the end for the lines that follow a commit's intent: a disk that is full by then must not leave it
/// open whether a commit was decided. A file system that cannot promise room has none to take.
fn take_room(file: &File, end: usize, noted: usize) -> io::Result<()> {
    let room = LINE * (noted as u64 + 2);
    match fallocate(file, FallocateFlags::KEEP_SIZE, end as u64, room) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

fn line(entry: &Entry, lines: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let text = serde_json::to_string(entry)?;
    lines.extend_from_slice(format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes())).as_bytes());
    Ok(())
}

fn parse(line: &[u8]) -> Option<Entry> {
    let text = line.strip_suffix(b"\n")?;
    let (sum, text) = text.split_at_checked(9)?;
    let sum = u32::from_str_radix(str::from_utf8(sum.strip_suffix(b" ")?).ok()?, 16).ok()?;
    if crc32fast::hash(text) != sum {
        return None;
    }
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A live origin whose monitor died looks for these bytes, without a parser.
    #[test]
    fn the_commit_record_has_one_spelling() {
        let mut bytes = Vec::new();
        line(&Entry::Commit, &mut bytes).unwrap();
        assert!(bytes.ends_with(b" {\"entry\":\"commit\"}\n"));
    }

    #[test]
    fn there_is_room_for_every_line_that_follows() {
        for entry in [Entry::Commit, Entry::Applied, Entry::Done { step: usize::MAX }] {
            let mut bytes = Vec::new();
            line(&entry, &mut bytes).unwrap();
            assert!(bytes.len() as u64 <= LINE, "{entry:?}");
        }
    }

    fn one_step() -> Vec<Step> {
        vec![Step::Link { first: "/a".into(), path: "/b\u{1}".into(), aside: "/c".into() }]
    }

    #[test]
    fn every_torn_end_reads_as_what_came_before() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::intend(directory.path(), "00000000", &one_step()).unwrap();
        let intended = std::fs::metadata(directory.path().join(NAME)).unwrap().len();
        journal.commit().unwrap();
        let whole = std::fs::read(directory.path().join(NAME)).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(directory.path().join(NAME), &whole[..length]).unwrap();
            let (progress, steps) = Journal::read(directory.path()).unwrap();
            assert_eq!(progress == Progress::Committed, length == whole.len(), "{length}");
            assert!(length < usize::try_from(intended).unwrap() || steps == one_step());
        }
    }

    #[test]
    fn a_wrong_checksum_ends_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        Journal::intend(directory.path(), "00000000", &one_step()).unwrap().commit().unwrap();
        let mut text = std::fs::read(directory.path().join(NAME)).unwrap();
        let last = text.len() - 3;
        text[last] ^= 1;
        std::fs::write(directory.path().join(NAME), &text).unwrap();
        assert_eq!(Journal::read(directory.path()).unwrap().0, Progress::Undecided);
        let mut journal = Journal::reopen(directory.path()).unwrap();
        journal.commit().unwrap();
        assert_eq!(Journal::read(directory.path()).unwrap().0, Progress::Committed);
    }
}

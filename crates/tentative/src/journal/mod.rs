//! The journal of a commit: what will be done, whether it was decided, whether it is done.
//!
//! One line for each entry, `CRC32 JSON`, in the transaction's directory. First the intent: a header and every step, in the
//! order in which they will be taken, then `ready` with their number. All of that is on disk before anything outside the
//! store changes. **The commit point** is the line `commit`: once it is on disk the transaction is committed, and
//! whoever finds the journal takes the steps to the end. `done` notes steps that were taken, `applied` all of them.
//! A line that is torn, or whose checksum is wrong, ends the journal as if it and what follows were not there. Whole
//! lines in another order than this one, and a decision behind such a line, are not what we have written: that journal is
//! damaged, and nothing is done by it. Assumed: what `fsync(2)` reported as written is still there after a power
//! loss, and renames on one file system reach its disk in the order in which they were made.

mod step;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use tentative_sys::crash;

use crate::files::{moment::Moment, name};

pub use step::{AttributeSet, Ground, Inode, Looks, Planned, Step};

/// The journal's name in a transaction's directory.
pub const NAME: &str = "journal";
/// The version in its header. Version 1 does not say where steps are taken, in which boot it was written, or what was kept.
const VERSION: u32 = 2;
/// The oldest version that is read.
const OLDEST: u32 = 1;
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
    /// Its entries are not those of a journal, in their order.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "lowercase")]
pub(crate) enum Entry {
    Header {
        version: u32,
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        when: Option<When>,
    },
    Step {
        step: Step,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ground: Option<step::Line>,
    },
    Ready {
        steps: usize,
    },
    Commit,
    Writing {
        step: usize,
    },
    Done {
        step: usize,
    },
    Adopted {
        #[serde(with = "name::one")]
        path: PathBuf,
        inode: Inode,
    },
    Kept {
        #[serde(with = "name::one")]
        path: PathBuf,
    },
    Applied,
}

impl Entry {
    /// A step, on the line after that of one with this ground.
    pub(crate) fn step(planned: &Planned, before: Option<&Ground>) -> Entry {
        let ground = planned.ground.as_ref().map(|ground| step::Line::after(before, ground));
        Entry::Step { step: planned.step.clone(), ground }
    }

    const fn is_behind_the_intent(&self) -> bool {
        !matches!(self, Entry::Header { .. } | Entry::Step { .. } | Entry::Ready { .. })
    }
}

/// When a commit was staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    /// The kernel's name of the boot: device numbers say nothing in another one.
    pub boot: String,
    /// When the transaction began: what is to be replaced was changed before.
    pub begun: Moment,
}

/// What was noted since the commit point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Steps that were taken.
    pub done: BTreeSet<usize>,
    /// Steps of which the writing into a file had begun.
    pub writing: BTreeSet<usize>,
    /// Directories that were made anew, and count as those of before.
    pub adopted: BTreeMap<PathBuf, Inode>,
    /// Where what others had made meanwhile was put.
    pub kept: BTreeSet<PathBuf>,
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

/// What the bytes of a journal say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// How far it has come.
    pub(crate) progress: Progress,
    /// When it was staged, as far as it says so.
    pub(crate) when: Option<When>,
    /// Its steps, as far as they are there.
    pub(crate) steps: Vec<Planned>,
    /// What was noted about taking them.
    pub(crate) notes: Notes,
    /// Length in bytes of the lines that count.
    pub(crate) whole: usize,
}

/// Whole entries in an order in which none are written, or of another version, or a decision whose intent is not whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage;

/// The entry that was read last, which says what may follow.
#[derive(Clone, Copy)]
enum After {
    Nothing,
    Intent,
    Ready,
    Commit,
    Applied,
}

/// Reads a journal's bytes, up to the first line that is torn or whose checksum is wrong.
///
/// Such a line in front of a decision is no torn end: the intent was on disk before the decision was written, so it has
/// been damaged since, and steps of it may have been taken.
pub(crate) fn interpret(text: &[u8]) -> Result<Reading, Damage> {
    let (mut steps, mut notes, mut whole, mut when) = (Vec::new(), Notes::default(), 0, None);
    let mut after = After::Nothing;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(entry) = parse(line) else { break };
        after = match (after, entry) {
            (After::Nothing, Entry::Header { version: OLDEST..=VERSION, when: found, .. }) => {
                when = found;
                After::Intent
            }
            (After::Intent, Entry::Step { step, ground }) => {
                let before = steps.last().and_then(|before: &Planned| before.ground.as_ref());
                let ground = ground.map(|line| line.read(before));
                steps.push(Planned { step, ground });
                After::Intent
            }
            (After::Intent, Entry::Ready { steps: number }) if number == steps.len() => After::Ready,
            (After::Ready, Entry::Commit) => After::Commit,
            (After::Commit, entry) if notes.take(&entry, steps.len()) => After::Commit,
            // Once more by each recovery that was interrupted behind it.
            (After::Commit | After::Applied, Entry::Applied) => After::Applied,
            _ => return Err(Damage),
        };
        whole += line.len();
    }
    let progress = match after {
        After::Nothing | After::Intent | After::Ready => Progress::Undecided,
        After::Commit => Progress::Committed,
        After::Applied => Progress::Applied,
    };
    let mut rest = text[whole..].split_inclusive(|byte| *byte == b'\n').filter_map(parse);
    if progress == Progress::Undecided && rest.any(|entry| entry.is_behind_the_intent()) {
        return Err(Damage);
    }
    Ok(Reading { progress, when, steps, notes, whole })
}

impl Notes {
    /// Takes over what an entry notes; says no if it is none of the notes, or about a step that is not there.
    fn take(&mut self, entry: &Entry, steps: usize) -> bool {
        match entry {
            Entry::Done { step } if *step < steps => {
                self.done.insert(*step);
            }
            Entry::Writing { step } if *step < steps => {
                self.writing.insert(*step);
            }
            Entry::Adopted { path, inode } => {
                self.adopted.insert(path.clone(), *inode);
            }
            Entry::Kept { path } => {
                self.kept.insert(path.clone());
            }
            _ => return false,
        }
        true
    }
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    when: Option<When>,
    notes: Notes,
}

impl Journal {
    /// Writes the intent, on disk when this returns, and takes room for the lines that will follow.
    ///
    /// # Errors
    /// When it cannot be written; nothing is decided then, and it can be tried again.
    pub fn intend(
        directory: &Path,
        id: &str,
        when: Option<&When>,
        steps: &[Planned],
    ) -> Result<Journal, JournalError> {
        let path = directory.join(NAME);
        let lines =
            intent(id, when, steps).map_err(|source| JournalError::Entry { path: path.clone(), source })?;
        let writes = steps.iter().filter(|planned| matches!(planned.step, Step::Rewrite { .. })).count();
        // What is said of one step must not take the room of another's, or of the end.
        let noted = steps.len() + writes;
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
        Ok(Journal { path, file, when: when.cloned(), notes: Notes::default() })
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

    /// Notes that a step has been taken, so that a recovery does not take it over what others did since. Not waited for:
    /// what the step wrote is on disk before, and a step that was taken and is not noted is recognised. So a disk that is full
    /// is no reason to stop, on a file system that promised no room for it.
    ///
    /// # Errors
    /// When the journal cannot be made to end with its last whole line.
    pub fn took(&mut self, step: usize) -> Result<(), JournalError> {
        let failed = |source| JournalError::Write { path: self.path.clone(), source };
        let end = self.file.metadata().map_err(failed)?.len();
        if self.write(&Entry::Done { step }, false).is_ok() {
            return Ok(());
        }
        let failed = |source| JournalError::Write { path: self.path.clone(), source };
        self.file.set_len(end).map_err(failed)?;
        self.file.seek(SeekFrom::Start(end)).map(drop).map_err(failed)
    }

    /// Notes that a step is going to write into a file: what is half new after a crash is not others' work.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn writes(&mut self, step: usize) -> Result<(), JournalError> {
        self.notes.writing.insert(step);
        self.write(&Entry::Writing { step }, false)
    }

    /// Notes that another directory at `path` counts as the one of before: it was made anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn adopt(&mut self, path: &Path, inode: Inode) -> Result<(), JournalError> {
        self.notes.adopted.insert(path.to_owned(), inode);
        self.append(&Entry::Adopted { path: path.to_owned(), inode })
    }

    /// Notes where something of others' was put, so that they are told of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kept(&mut self, path: &Path) -> Result<(), JournalError> {
        self.notes.kept.insert(path.to_owned());
        self.write(&Entry::Kept { path: path.to_owned() }, false)
    }

    /// When it was staged; journals of version 1 do not say so.
    #[must_use]
    pub fn when(&self) -> Option<&When> {
        self.when.as_ref()
    }

    /// What was noted since the commit point.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.notes
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
    /// When it cannot be read, or is damaged.
    pub fn read(directory: &Path) -> Result<(Progress, Vec<Planned>), JournalError> {
        let path = directory.join(NAME);
        let mut text = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Progress::Undecided, Vec::new()));
            }
            Err(source) => return Err(JournalError::Read { path, source }),
            Ok(_) => {}
        }
        match interpret(&text) {
            Ok(reading) => Ok((reading.progress, reading.steps)),
            Err(Damage) => Err(JournalError::Damaged(path)),
        }
    }

    /// Opens a committed journal to go on with it.
    ///
    /// # Errors
    /// When it cannot be opened, or made to end with its last whole line, or is damaged.
    pub fn reopen(directory: &Path) -> Result<Journal, JournalError> {
        let path = directory.join(NAME);
        let failed = |source| JournalError::Write { path: path.clone(), source };
        let text = std::fs::read(&path).map_err(failed)?;
        let Ok(reading) = interpret(&text) else { return Err(JournalError::Damaged(path)) };
        let file = File::options().append(true).open(&path).map_err(failed)?;
        file.set_len(reading.whole as u64).map_err(failed)?;
        Ok(Journal { path, file, when: reading.when, notes: reading.notes })
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

/// The lines that are on disk before the commit point.
pub(crate) fn intent(id: &str, when: Option<&When>, steps: &[Planned]) -> Result<Vec<u8>, serde_json::Error> {
    let mut lines = Vec::new();
    line(&Entry::Header { version: VERSION, id: id.to_owned(), when: when.cloned() }, &mut lines)?;
    let mut before = None;
    for step in steps {
        line(&Entry::step(step, before), &mut lines)?;
        before = step.ground.as_ref();
    }
    line(&Entry::Ready { steps: steps.len() }, &mut lines)?;
    Ok(lines)
}

pub(crate) fn line(entry: &Entry, lines: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let text = serde_json::to_string(entry)?;
    lines.extend_from_slice(format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes())).as_bytes());
    Ok(())
}

pub(crate) fn parse(line: &[u8]) -> Option<Entry> {
    let text = line.strip_suffix(b"\n")?;
    let (sum, text) = text.split_at_checked(9)?;
    if sum.strip_suffix(b" ")? != format!("{:08x}", crc32fast::hash(text)).as_bytes() {
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
        for entry in [
            Entry::Commit,
            Entry::Applied,
            Entry::Done { step: usize::MAX },
            Entry::Writing { step: usize::MAX },
        ] {
            let mut bytes = Vec::new();
            line(&entry, &mut bytes).unwrap();
            assert!(bytes.len() as u64 <= LINE, "{entry:?}");
        }
    }

    fn planned(step: Step) -> Planned {
        Planned { step, ground: Some(Ground { redo: Some("/d".into()), ..Ground::default() }) }
    }

    fn one_step() -> Vec<Planned> {
        vec![planned(Step::Link { first: "/a".into(), path: "/b\u{1}".into(), aside: "/c".into() })]
    }

    #[test]
    fn a_journal_of_version_1_is_read() {
        let lines = [
            r#"{"entry":"header","version":1,"id":"0123abcd"}"#,
            r#"{"entry":"step","step":{"do":"open","path":"/a"}}"#,
            r#"{"entry":"ready","steps":1}"#,
            r#"{"entry":"commit"}"#,
            r#"{"entry":"done","step":0}"#,
        ];
        let sealed = lines.map(|text| format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()))).concat();
        let reading = interpret(sealed.as_bytes()).unwrap();
        let step = Planned { step: Step::Open { path: "/a".into() }, ground: None };
        assert_eq!((reading.progress, reading.steps), (Progress::Committed, vec![step]));
        assert!(reading.notes.done.contains(&0) && reading.when.is_none());
    }

    #[test]
    fn every_torn_end_reads_as_what_came_before() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::intend(directory.path(), "00000000", None, &one_step()).unwrap();
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
    fn entries_out_of_order_are_damage() {
        let [step, other] = [0, 1]
            .map(|number| Entry::step(&planned(Step::Open { path: format!("/{number}").into() }), None));
        let header = || Entry::Header { version: VERSION, id: "00000000".to_owned(), when: None };
        let ready = |steps| Entry::Ready { steps };
        for entries in [
            vec![Entry::Commit],
            vec![step],
            vec![header(), header()],
            vec![Entry::Header { version: VERSION + 1, id: String::new(), when: None }],
            vec![header(), Entry::Commit],
            vec![header(), ready(1)],
            vec![header(), ready(0), ready(0)],
            vec![header(), ready(0), other],
            vec![header(), ready(0), Entry::Applied],
            vec![header(), ready(0), Entry::Commit, Entry::Commit],
            vec![header(), ready(0), Entry::Commit, Entry::Done { step: 0 }],
        ] {
            let mut text = Vec::new();
            entries.iter().for_each(|entry| line(entry, &mut text).unwrap());
            assert_eq!(interpret(&text), Err(Damage), "{entries:?}");
        }
    }

    /// Taken for a torn end it would read as undecided, and be discarded with steps of it taken.
    #[test]
    fn a_decision_behind_a_broken_line_is_damage() {
        let whole = {
            let mut text = intent("00000000", None, &one_step()).unwrap();
            line(&Entry::Commit, &mut text).unwrap();
            text
        };
        let commit = whole.len() - whole.split_inclusive(|byte| *byte == b'\n').next_back().unwrap().len();
        for at in 0..commit - 1 {
            let mut text = whole.clone();
            text[at] ^= 1;
            assert_eq!(interpret(&text), Err(Damage), "{at}");
        }
    }

    #[test]
    fn a_recovery_may_have_been_recovered() {
        let mut text = intent("00000000", None, &one_step()).unwrap();
        for entry in [Entry::Commit, Entry::Done { step: 0 }, Entry::Applied, Entry::Applied] {
            line(&entry, &mut text).unwrap();
        }
        let reading = interpret(&text).unwrap();
        assert_eq!((reading.progress, reading.steps), (Progress::Applied, one_step()));
        assert_eq!((reading.notes.done, reading.whole), (BTreeSet::from([0]), text.len()));
    }

    #[test]
    fn a_wrong_checksum_ends_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        Journal::intend(directory.path(), "00000000", None, &one_step()).unwrap().commit().unwrap();
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

//! The journal: what is read of it is what was written, whatever a crash or a bad disk left.
//!
//! Never writes a file: the bytes are made by the functions that make those of the file.

use std::collections::BTreeSet;

use tentative_testkit::input::Input;

use super::path;
use crate::journal::{
    AttributeSet, Damage, Entry, Ground, Inode, Looks, Notes, Planned, Progress, Reading, Step, intent,
    interpret, line, parse,
};

/// The bytes of a commit record, as a live origin whose monitor died looks for them.
const RECORD: &[u8] = b"{\"entry\":\"commit\"}\n";

/// Reads any bytes, entries in any order, and a committed journal cut off or overwritten somewhere.
///
/// # Panics
/// When the journal does not keep what it promises.
pub fn journal(bytes: &[u8]) {
    keeps_its_word(bytes);
    keeps_its_word(&sealed(bytes));
    let mut input = Input::new(bytes);
    match input.below(3) {
        0 => in_any_order(&mut input),
        1 => Written::new(&mut input).is_cut_off(&mut input),
        _ => Written::new(&mut input).is_overwritten(&mut input),
    }
}

/// Whatever is committed has every step that was announced.
fn keeps_its_word(text: &[u8]) {
    let Ok(reading) = interpret(text) else { return };
    assert!(reading.whole <= text.len());
    if reading.progress == Progress::Undecided {
        return assert_eq!(reading.notes, Notes::default());
    }
    let entries = text[..reading.whole].split_inclusive(|byte| *byte == b'\n').map(parse);
    let entries: Vec<Entry> = entries.map(|entry| entry.expect("whole lines are entries")).collect();
    let announced = entries.iter().find_map(|entry| match entry {
        Entry::Ready { steps } => Some(*steps),
        _ => None,
    });
    assert_eq!(announced, Some(reading.steps.len()));
    let mut noted = reading.notes.done.iter().chain(&reading.notes.writing);
    assert!(noted.all(|step| *step < reading.steps.len()));
}

/// The lines with the checksums that they need to be read.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        text.extend(format!("{:08x} ", crc32fast::hash(line)).into_bytes());
        text.extend(line);
        text.push(b'\n');
    }
    text
}

/// Entries in any order are read exactly when their order is the one of a journal.
fn in_any_order(input: &mut Input<'_>) {
    let (mut text, mut kinds, mut steps) = (Vec::new(), String::new(), 0);
    while !input.is_empty() {
        let (kind, entry) = match input.below(8) {
            0 => ('H', Entry::Header { version: 1, id: "0123abcd".to_owned(), when: None }),
            1 | 2 => ('S', Entry::step(&planned(input), None)),
            3 => ('R', Entry::Ready { steps }),
            4 => ('C', Entry::Commit),
            5 if steps > 0 => ('D', Entry::Done { step: input.below(steps) }),
            6 => ('A', Entry::Applied),
            7 => ('x', Entry::Ready { steps: steps + 1 }),
            _ => ('x', Entry::Done { step: steps }),
        };
        steps += usize::from(kind == 'S');
        kinds.push(kind);
        line(&entry, &mut text).expect("every entry has a line");
    }
    let reading = interpret(&text);
    assert_eq!(reading.is_ok(), is_in_order(&kinds), "{kinds}");
    if let Ok(reading) = reading {
        let progress = match (kinds.contains('C'), kinds.contains('A')) {
            (false, _) => Progress::Undecided,
            (true, false) => Progress::Committed,
            (true, true) => Progress::Applied,
        };
        assert_eq!((reading.progress, reading.whole), (progress, text.len()));
    }
}

/// The beginning of header, steps, ready, commit, done several times, applied several times.
fn is_in_order(kinds: &str) -> bool {
    let Some(rest) = kinds.strip_prefix('H') else { return kinds.is_empty() };
    let rest = rest.trim_start_matches('S');
    let Some(rest) = rest.strip_prefix('R') else { return rest.is_empty() };
    let Some(rest) = rest.strip_prefix('C') else { return rest.is_empty() };
    rest.trim_start_matches('D').trim_start_matches('A').is_empty()
}

/// A committed journal, and where its lines end.
struct Written {
    text: Vec<u8>,
    ends: Vec<usize>,
    steps: Vec<Planned>,
    done: BTreeSet<usize>,
    /// Where the commit record begins.
    commit: usize,
}

impl Written {
    fn new(input: &mut Input<'_>) -> Written {
        let applied = input.chance();
        let marks = input.number();
        let steps = input.list(12, planned);
        let done: BTreeSet<usize> = (0..steps.len()).filter(|step| marks >> step & 1 == 1).collect();
        let mut text = intent("0123abcd", None, &steps).expect("every step has a line");
        let commit = text.len();
        let entries = [Entry::Commit].into_iter().chain(done.iter().map(|step| Entry::Done { step: *step }));
        for entry in entries.chain(applied.then_some(Entry::Applied)) {
            line(&entry, &mut text).expect("every entry has a line");
        }
        let progress = if applied { Progress::Applied } else { Progress::Committed };
        let notes = Notes { done: done.clone(), ..Notes::default() };
        let reading = Reading { progress, when: None, steps: steps.clone(), notes, whole: text.len() };
        assert_eq!(interpret(&text), Ok(reading));
        let ends =
            text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        Written { text, ends, steps, done, commit }
    }

    /// Cut off anywhere it reads as what was whole by then, and a reader without a parser sees the same decision.
    fn is_cut_off(&self, input: &mut Input<'_>) {
        let chosen = input.number() as usize % (self.text.len() + 1);
        let near = self.ends.iter().flat_map(|end| [end - 1, *end, (end + 1).min(self.text.len())]);
        for length in near.chain([0, chosen]) {
            let cut = &self.text[..length];
            let reading = interpret(cut).expect("a torn end is no damage");
            let whole = self.ends.iter().rev().find(|end| **end <= length).copied().unwrap_or(0);
            assert_eq!(reading.whole, whole);
            assert!(self.steps.starts_with(&reading.steps) && self.done.is_superset(&reading.notes.done));
            let decided = whole > self.commit;
            assert_eq!(reading.progress != Progress::Undecided, decided);
            assert_eq!(cut.windows(RECORD.len()).any(|window| window == RECORD), decided);
        }
    }

    /// With up to four bytes overwritten it never tells of other steps, and never forgets that it was decided while the
    /// record of that is there.
    fn is_overwritten(&self, input: &mut Input<'_>) {
        let at = input.number() as usize % self.text.len();
        let mut text = self.text.clone();
        let burst: [u8; 4] = input.array();
        let length = (1 + input.below(burst.len())).min(text.len() - at);
        text[at..at + length].copy_from_slice(&burst[..length]);
        match interpret(&text) {
            Ok(reading) if reading.progress == Progress::Undecided => {
                assert!(at + length >= self.commit, "the record at {} is not lost", self.commit);
            }
            Ok(reading) => {
                assert_eq!(reading.steps, self.steps);
                assert!(self.done.is_superset(&reading.notes.done));
            }
            Err(Damage) => {}
        }
    }
}

fn planned(input: &mut Input<'_>) -> Planned {
    let step = step(input);
    let inode = |input: &mut Input<'_>| Inode { device: input.number(), number: input.number() };
    let looks = |input: &mut Input<'_>| Looks {
        inode: inode(input),
        size: input.number(),
        modified: (input.number().cast_signed(), input.byte().into()),
    };
    let ground = |input: &mut Input<'_>| Ground {
        parent: input.option(inode),
        waits: input.option(inode),
        original: input.option(looks),
        redo: input.option(|input| path(input, 24)),
    };
    Planned { step, ground: input.option(ground) }
}

fn step(input: &mut Input<'_>) -> Step {
    const LONGEST: usize = 24;
    let inode = |input: &mut Input<'_>| Inode { device: input.number(), number: input.number() };
    match input.below(6) {
        0 => Step::Open { path: path(input, LONGEST) },
        1 => Step::Take { path: path(input, LONGEST), aside: path(input, LONGEST), inode: inode(input) },
        2 => Step::Remove { path: path(input, LONGEST), aside: path(input, LONGEST), inode: inode(input) },
        3 => Step::Put {
            staged: path(input, LONGEST),
            path: path(input, LONGEST),
            inode: inode(input),
            strip: input.chance(),
        },
        4 => Step::Link {
            first: path(input, LONGEST),
            path: path(input, LONGEST),
            aside: path(input, LONGEST),
        },
        _ => Step::Rewrite {
            redo: path(input, LONGEST),
            path: path(input, LONGEST),
            inode: inode(input),
            content: input.chance(),
            attributes: AttributeSet {
                mode: input.option(|input| u32::from_le_bytes(input.array())),
                owner: input.option(|input| (input.byte().into(), u32::from_le_bytes(input.array()))),
                modified: input.option(|input| (input.number().cast_signed(), input.byte().into())),
                extended: input.chance(),
            },
            moves: input.chance(),
        },
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn journals_keep_their_word() {
        tentative_testkit::input::each("journal", super::journal);
    }
}

//! Properties of what is printed, each for any bytes: nothing of a program's obeys the terminal or forges a line.
//!
//! Compiled into tests and fuzzers only. Invariant: a property panics exactly when it does not hold, and says the same of
//! the same bytes every time.

use tentative::{
    change::{Change, Subject},
    containment::{Containment, Gap},
    effect::{Class, Decision, Effect, Frame},
    layer::Layer,
    record::{Record, State},
    verdict::{Judgement, Verdict},
};
use tentative_testkit::input::Input;

use crate::{
    Detail, changes,
    diff::{Side, unified},
    effects, json, listing,
    paint::Palette,
    printable::{command_line, printable_line},
    sentences, summary,
};

/// What stands for a character that ends lines; no text from the bytes has it.
const MARK: char = '\u{e000}';
/// Longest text of a record, characters.
const LONGEST: usize = 40;

/// Makes a record whose every text is from the bytes, prints it in every way, and reads it back.
///
/// # Panics
/// When a text is not safe to print, has lines that are not the report's, or the document is another record's.
pub fn report(bytes: &[u8]) {
    let record = record(&mut Input::new(bytes), text);
    let harmless = self::record(&mut Input::new(bytes), |input| {
        text(input).chars().map(|character| if ends_a_line(character) { MARK } else { character }).collect()
    });
    for (printed, of_harmless) in prints(&record).into_iter().zip(prints(&harmless)) {
        assert_safe(&printed, "\n");
        assert_eq!(printed.lines().count(), of_harmless.lines().count(), "{printed}");
    }
    let document = json::record(&record);
    assert_eq!(serde_json::from_str::<Record>(&document).expect("a document reads back"), record);
}

/// Prints a command line, and reads it as a shell does.
///
/// # Panics
/// When it is not safe to print, or the shell finds other words.
pub fn command(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    // No program can be given a NUL.
    let words = input.list(6, |input| input.text(30).replace('\0', ""));
    let line = command_line(&words);
    assert_safe(&line, "");
    assert_eq!(shell::words(&line), words, "{line}");
}

/// Prints the difference of two files.
///
/// # Panics
/// When it is not safe to print, or does not lead from one to the other.
pub fn diff(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (path, renamed_from) = (text(&mut input), input.option(text));
    let (before, after) = (side(&mut input), side(&mut input));
    let printed = unified(&path, renamed_from.as_deref(), &before, &after, Palette::PLAIN);
    assert_safe(&printed, "\n\t");
    assert!(printed.ends_with('\n'));
    if let (Some(before), Some(after)) = (printed_lines(&before), printed_lines(&after)) {
        assert_eq!(patch::apply(&before, &printed), after, "{printed}");
    }
}

fn prints(record: &Record) -> Vec<String> {
    let row = listing::Row {
        id: "0123abcd".to_owned(),
        state: record.state,
        program: record.program.clone(),
        exit_status: record.exit_status,
        started_ns: record.started_ns,
        size_bytes: record.duration_ns,
        changes: record.changes.len() as u64,
        effects: record.effects.len() as u64,
    };
    vec![
        summary::report(record, Detail::Brief, Palette::PLAIN),
        summary::report(record, Detail::Full, Palette::PLAIN),
        sentences::explain(record),
        listing::table(&[row], u64::MAX, Palette::PLAIN),
    ]
}

/// No control character but these, and none that changes the direction of what follows: those with the property
/// `Bidi_Control` in Unicode's PropList.txt.
fn assert_safe(text: &str, but: &str) {
    for character in text.chars() {
        let is_mark = matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let is_safe = !is_mark && !character.is_control() && !ends_a_line(character);
        assert!(is_safe || but.contains(character), "{character:?} in {text:?}");
    }
}

const fn ends_a_line(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn text(input: &mut Input<'_>) -> String {
    input.text(LONGEST).replace(MARK, "")
}

fn record(input: &mut Input<'_>, text: fn(&mut Input<'_>) -> String) -> Record {
    let judgement = |input: &mut Input<'_>| Judgement { safe: input.chance(), reasons: input.list(12, text) };
    let gap = |input: &mut Input<'_>| Gap { layer: layer(input), reason: text(input) };
    let state = [State::Running, State::Pending, State::Committing, State::Committed, State::RolledBack];
    Record {
        format: text(input),
        id: text(input),
        state: input.one_of(&state),
        program: input.list(4, text),
        exit_status: input.option(|input| input.byte().into()),
        started_ns: input.number(),
        duration_ns: input.number(),
        changes: input.list(30, |input| change(input, text)),
        effects: input.list(20, |input| effect(input, text)),
        verdict: Verdict { rollback: judgement(input), commit: judgement(input) },
        containment: Containment::from_gaps(input.list(4, gap)),
    }
}

fn layer(input: &mut Input<'_>) -> Layer {
    input.one_of(&Layer::ALL)
}

fn change(input: &mut Input<'_>, text: fn(&mut Input<'_>) -> String) -> Change {
    let subject = match input.below(4) {
        0 => Subject::Name(text(input)),
        1 => Subject::Path(format!("/d/{}", text(input))),
        _ => Subject::Path(text(input)),
    };
    let after = if input.below(4) == 0 { Some("directory 0755".to_owned()) } else { input.option(text) };
    let kind = input.one_of(&changes::ORDER);
    let (layer, before) = (layer(input), input.option(text));
    Change { layer, subject, kind, before, after, path_hex: input.option(text), before_hex: None }
}

fn effect(input: &mut Input<'_>, text: fn(&mut Input<'_>) -> String) -> Effect {
    let frame =
        |input: &mut Input<'_>| Frame { file: text(input), line: input.byte().into(), function: text(input) };
    Effect {
        id: input.byte().into(),
        layer: layer(input),
        class: input.one_of::<Class>(&effects::ORDER),
        operation: text(input),
        target: text(input),
        pid: input.byte().into(),
        tid: input.byte().into(),
        program: text(input),
        time_ns: input.number(),
        decision: if input.chance() { Decision::Allowed } else { Decision::Denied },
        errno: input.option(|input| i32::from_le_bytes(input.array())),
        count: input.byte().into(),
        stack: input.option(|input| input.list(2, frame)),
        hint: input.option(text),
    }
}

fn side(input: &mut Input<'_>) -> Side {
    let mode = u32::from(input.byte());
    match input.below(8) {
        0 => Side::Absent,
        1 => Side::Symlink { target: text(input) },
        2 => Side::Directory { mode },
        3 => Side::Other { kind: "FIFO".to_owned(), mode },
        4 => Side::File { mode, size: input.number(), content: None },
        5 => file(mode, text(input).into_bytes()),
        // Few lines, so that both sides have some of them.
        6 => file(
            mode,
            input.list(60, |input| input.one_of(&["a\n", "b\n", "\tc\n", "\n", "d"])).concat().into_bytes(),
        ),
        _ => file(mode, input.bytes(2000).to_vec()),
    }
}

fn file(mode: u32, content: Vec<u8>) -> Side {
    Side::File { mode, size: content.len() as u64, content: Some(content) }
}

/// The lines of a text file as a difference prints them, each with its end.
fn printed_lines(side: &Side) -> Option<Vec<String>> {
    let Side::File { content: Some(content), .. } = side else { return None };
    let text = str::from_utf8(content).ok().filter(|text| !text.contains('\0'))?;
    let print = |line: &str| match line.strip_suffix('\n') {
        Some(line) => format!("{}\n", printable_line(line)),
        None => printable_line(line).into_owned(),
    };
    Some(text.split_inclusive('\n').map(print).collect())
}

/// What reads a unified diff, for the property about it.
mod patch {
    /// Applies a diff of text as `patch` does.
    pub(super) fn apply(before: &[String], diff: &str) -> Vec<String> {
        let mut old = before.iter().cloned();
        let mut new: Vec<String> = Vec::new();
        let mut lines = diff.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(header) = line.strip_prefix("@@ -") else { continue };
            let ((first, mut removed), (place, mut added)) = ranges(header);
            let at = before.len() - old.len();
            new.extend(old.by_ref().take(first - at));
            assert_eq!(new.len(), place);
            while removed + added > 0 {
                let line = lines.next().expect("as many lines as the header says");
                let unfinished = lines.next_if(|line| line.starts_with('\\')).is_some();
                let (mark, content) = line.split_at(1);
                let content = if unfinished { content.to_owned() } else { format!("{content}\n") };
                if mark != "+" {
                    assert_eq!(old.next().as_ref(), Some(&content));
                    removed -= 1;
                }
                if mark != "-" {
                    new.push(content);
                    added -= 1;
                }
            }
        }
        new.extend(old);
        new
    }

    /// How many lines are before it and how many are in it, of both sides: `3,2 +3,4 @@`.
    fn ranges(header: &str) -> ((usize, usize), (usize, usize)) {
        let range = |text: &str| {
            let (first, count) = text.split_once(',').unwrap_or((text, "1"));
            let (first, count): (usize, usize) =
                (first.parse().expect("a line"), count.parse().expect("a number"));
            // Without lines it names the line before it.
            (if count == 0 { first } else { first - 1 }, count)
        };
        let (old, new) = header.trim_end_matches(" @@").split_once(" +").expect("two ranges");
        (range(old), range(new))
    }
}

/// What reads a command line, for the property about it.
mod shell {
    use std::{iter::Peekable, str::Chars};

    /// Words as bash(1) reads them, section QUOTING.
    pub(super) fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            if character == ' ' {
                words.extend(word.take());
                continue;
            }
            let word = word.get_or_insert_default();
            match character {
                '\'' => word.extend(characters.by_ref().take_while(|character| *character != '\'')),
                '$' => {
                    assert_eq!(characters.next(), Some('\''), "{line}");
                    escaped(&mut characters, word);
                }
                '\\' => word.extend(characters.next()),
                plain => {
                    assert!(!"|&;()<>\"`*?[]#~!{}".contains(plain) && !plain.is_whitespace(), "{line}");
                    word.push(plain);
                }
            }
        }
        words.extend(word);
        words
    }

    /// The rest of `$'…'`.
    fn escaped(characters: &mut Peekable<Chars<'_>>, word: &mut String) {
        loop {
            match characters.next().expect("it ends") {
                '\'' => return,
                '\\' => word.push(match characters.next().expect("a character is escaped") {
                    same @ ('\\' | '\'') => same,
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'x' => {
                        let byte = number(characters, 2);
                        assert!(byte < 0x80, "a byte that is no character by itself");
                        character_of(byte)
                    }
                    'u' => character_of(number(characters, 4)),
                    other => panic!("unknown escape {other:?}"),
                }),
                plain => word.push(plain),
            }
        }
    }

    fn number(characters: &mut Peekable<Chars<'_>>, most: usize) -> u32 {
        let mut value = 0;
        for _ in 0..most {
            let Some(digit) = characters.peek().and_then(|character| character.to_digit(16)) else { break };
            value = value * 16 + digit;
            characters.next();
        }
        value
    }

    fn character_of(number: u32) -> char {
        char::from_u32(number).expect("the number of a character")
    }
}

#[cfg(test)]
mod tests {
    use tentative_testkit::input::each;

    #[test]
    fn reports_obey_nobody() {
        each("report", super::report);
    }

    #[test]
    fn commands_can_be_pasted() {
        each("command", super::command);
    }

    #[test]
    fn differences_lead_from_one_to_the_other() {
        each("diff", super::diff);
    }
}

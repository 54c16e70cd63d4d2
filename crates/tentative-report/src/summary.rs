//! The whole report of one transaction: how it ended, changes, effects, verdict, containment, and what to do next.

use std::time::Duration;

use tentative::{
    effect::Class,
    layer::Layer,
    record::{Record, State},
};

use crate::{
    Detail, changes, effects,
    paint::Palette,
    printable::{command_line, shortened},
    units::{counted, duration, signal},
    verdict,
};

/// The report of a transaction, each line ended by a newline; without the advice of [`next_steps`].
#[must_use]
pub fn report(record: &Record, detail: Detail, palette: Palette) -> String {
    let mut text = format!("{}\n", ending(record, detail, palette));
    if record.changes.is_empty() && record.containment.is_without(Layer::Files) {
        text.push_str(&format!("{} not known: files were not contained\n", palette.heading("changes:")));
    } else {
        text.push_str(&changes::render(&record.changes, detail, palette));
    }
    text.push_str(&effects::render(&record.effects, detail, palette));
    text.push_str(&verdict::render(&record.verdict, detail, palette));
    text.push_str(&verdict::render_containment(&record.containment, palette));
    text
}

/// Characters of a program that a brief text shows: a script can be an argument.
const LONGEST_PROGRAM: usize = 300;

/// One line that says what ran and how it ended.
#[must_use]
pub fn ending(record: &Record, detail: Detail, palette: Palette) -> String {
    let program = command_line(&record.program);
    let longest = if detail == Detail::Brief { LONGEST_PROGRAM } else { usize::MAX };
    let program = palette.literal(&shortened(&program, longest));
    let after = duration(Duration::from_nanos(record.duration_ns));
    match record.exit_status {
        None if record.state == State::Running => format!("{program} has not ended"),
        // A live process, which goes on: what ended is the transaction.
        None => format!("{program} ended its transaction after {after}"),
        // What a shell says of a signal; it can also be the program's own status.
        Some(status @ 129..=192) => {
            format!("{program} ended with status {status} (128 + {}) after {after}", signal(status - 128))
        }
        Some(status) => format!("{program} ended with status {status} after {after}"),
    }
}

/// The state in words, as `show` and `list` print it.
#[must_use]
pub const fn state(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Pending => "pending",
        State::Committing => "committing",
        State::Committed => "committed",
        State::RolledBack => "rolled back",
    }
}

/// What is true of the outside while nothing is committed, in words.
#[must_use]
pub fn outside(record: &Record) -> String {
    let escaped = escaped(record);
    let absent: Vec<&str> = Layer::ALL
        .into_iter()
        .filter(|layer| record.containment.is_without(*layer))
        .map(Layer::name)
        .collect();
    if record.containment.is_without(Layer::Files) {
        "what it did to files is in place, since they were not contained".to_owned()
    } else if escaped > 0 {
        format!(
            "none of its changes is in place, but {} cannot be taken back",
            counted(escaped, "effect", "effects")
        )
    } else if !absent.is_empty() {
        format!("none of its changes is in place; nothing is known about {}", absent.join(" and "))
    } else {
        "nothing outside has changed".to_owned()
    }
}

/// What is true of a transaction that would apply nothing, in words.
#[must_use]
pub fn unchanged(record: &Record) -> String {
    match escaped(record) {
        _ if record.containment.is_without(Layer::Files) => "what it did to files is in place".to_owned(),
        0 => "nothing was changed".to_owned(),
        escaped => {
            format!("no file was changed, and {} cannot be taken back", counted(escaped, "effect", "effects"))
        }
    }
}

fn escaped(record: &Record) -> u64 {
    let escaped = record.effects.iter().filter(|effect| effect.class == Class::Escaped);
    escaped.map(|effect| effect.count).sum()
}

/// What can be done with a pending transaction, each line ended by a newline. When it `is_inside` another one, nobody finds it
/// once that has ended.
#[must_use]
pub fn next_steps(record: &Record, is_inside: bool, palette: Palette) -> String {
    let id = record.id.as_str();
    let step = |verb: &str, meaning: &str| {
        let command = format!("tentative {verb} {id}");
        format!(
            "  {}{}  {meaning}\n",
            palette.literal(&command),
            " ".repeat(27_usize.saturating_sub(command.len()))
        )
    };
    let until = if is_inside { "it is inside another transaction: decide before that ends\n" } else { "" };
    format!(
        "kept as {}; {}\n{}{}{}{until}",
        palette.heading(id),
        outside(record),
        step("diff", "shows the changes line by line"),
        step("commit", "applies them"),
        step("rollback", "discards them"),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use tentative::{
        change::{Change, ChangeKind},
        containment::Containment,
        layer::Layer,
        record::FORMAT,
        verdict::Verdict,
    };

    use super::*;

    pub(crate) fn record() -> Record {
        Record {
            format: FORMAT.to_owned(),
            id: "0123abcd".to_owned(),
            state: State::Pending,
            program: vec!["make".to_owned(), "install".to_owned()],
            exit_status: Some(0),
            started_ns: 1_700_000_000_000_000_000,
            duration_ns: 1_250_000_000,
            changes: vec![Change::of_path(
                "/srv/old".as_ref(),
                ChangeKind::Deleted,
                Some("file 0644 1 B".to_owned()),
                None,
            )],
            effects: Vec::new(),
            verdict: Verdict::judge(&[], &Containment::Full, &[]),
            containment: Containment::Full,
        }
    }

    #[test]
    fn a_report_reads_from_top_to_bottom() {
        assert_eq!(
            report(&record(), Detail::Brief, Palette::PLAIN),
            "make install ended with status 0 after 1.2 s\n\
             changes: 1 deleted\n\
             \x20 deleted   /srv/old  file 0644 1 B\n\
             effects: none\n\
             verdict: safe to roll back, safe to commit\n"
        );
        assert_eq!(
            next_steps(&record(), false, Palette::PLAIN),
            "kept as 0123abcd; nothing outside has changed\n\
             \x20 tentative diff 0123abcd      shows the changes line by line\n\
             \x20 tentative commit 0123abcd    applies them\n\
             \x20 tentative rollback 0123abcd  discards them\n"
        );
        assert!(
            next_steps(&record(), true, Palette::PLAIN)
                .ends_with(" discards them\nit is inside another transaction: decide before that ends\n")
        );
    }

    #[test]
    fn signals_are_named() {
        let mut record = record();
        record.exit_status = Some(137);
        assert_eq!(
            ending(&record, Detail::Brief, Palette::PLAIN),
            "make install ended with status 137 (128 + SIGKILL) after 1.2 s"
        );
        // A script as an argument is not shown whole, unless everything is asked for.
        record.program = vec!["x".repeat(1000)];
        assert!(ending(&record, Detail::Brief, Palette::PLAIN).contains("xx… ended with"));
        assert!(ending(&record, Detail::Full, Palette::PLAIN).contains("xx ended with"));
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let coloured = report(&record(), Detail::Full, Palette::COLOUR);
        assert!(coloured.contains('\x1b'));
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').map_or("", |(_, rest)| rest);
        }
        plain.push_str(rest);
        assert_eq!(plain, report(&record(), Detail::Full, Palette::PLAIN));
    }

    #[test]
    fn nobody_is_told_that_nothing_changed_when_something_did() {
        use tentative::{containment::Gap, effect::Decision};

        let mut escaped = effects::tests::effect(Layer::World, Class::Escaped, "connect", "tcp 1.2.3.4:5");
        escaped.decision = Decision::Allowed;
        let mut record = record();
        assert_eq!(outside(&record), "nothing outside has changed");
        assert_eq!(unchanged(&record), "nothing was changed");
        record.containment = Containment::from_gaps(vec![Gap::without(Layer::World)]);
        assert_eq!(outside(&record), "none of its changes is in place; nothing is known about world");
        record.effects.push(escaped);
        assert_eq!(outside(&record), "none of its changes is in place, but 1 effect cannot be taken back");
        assert_eq!(unchanged(&record), "no file was changed, and 1 effect cannot be taken back");
        record.containment = Containment::from_gaps(vec![Gap::without(Layer::Files)]);
        assert_eq!(outside(&record), "what it did to files is in place, since they were not contained");
        record.changes.clear();
        assert!(report(&record, Detail::Brief, Palette::PLAIN).contains("changes: not known"));
    }
}

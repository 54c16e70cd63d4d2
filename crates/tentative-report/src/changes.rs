//! The first part of a report: what a commit would apply, deletions first.

use std::collections::BTreeMap;

use tentative::{
    change::{Change, ChangeKind, Subject},
    layer::Layer,
};

use crate::{
    Detail,
    paint::Palette,
    printable::printable,
    units::{count, counted},
};

/// The order in which kinds are shown: what is lost first.
pub const ORDER: [ChangeKind; 5] = [
    ChangeKind::Deleted,
    ChangeKind::Modified,
    ChangeKind::Renamed,
    ChangeKind::Created,
    ChangeKind::Metadata,
];

/// How many changes of one kind a brief text lists.
const BRIEF_LINES: usize = 20;

/// The widest subject that others are aligned to; longer ones stand out.
const WIDEST: usize = 60;

/// The kind's word in a report.
#[must_use]
pub const fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Deleted => "deleted",
        ChangeKind::Created => "created",
        ChangeKind::Modified => "modified",
        ChangeKind::Renamed => "renamed",
        ChangeKind::Metadata => "metadata",
    }
}

/// The path or name of a change, as it is.
#[must_use]
pub fn subject(change: &Change) -> &str {
    match &change.subject {
        Subject::Path(path) => path,
        Subject::Name(name) => name,
    }
}

/// How many of each kind, in words: `2 deleted, 1 created`; `none` without changes.
#[must_use]
pub fn tally(changes: &[Change]) -> String {
    let parts: Vec<String> = ORDER
        .into_iter()
        .filter_map(|kind| {
            let number = changes.iter().filter(|change| change.kind == kind).count();
            (number > 0).then(|| format!("{} {}", count(number as u64), word(kind)))
        })
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// The part of the report about changes, each line ended by a newline.
#[must_use]
pub fn render(changes: &[Change], detail: Detail, palette: Palette) -> String {
    let mut text = format!("{} {}\n", palette.heading("changes:"), tally(changes));
    let shown: Vec<Line<'_>> = match detail {
        Detail::Full => changes.iter().map(|change| Line { change, below: 0 }).collect(),
        Detail::Brief => fold_directories(changes),
    };
    for kind in ORDER {
        let lines: Vec<&Line<'_>> = shown.iter().filter(|line| line.change.kind == kind).collect();
        let limit = if detail == Detail::Brief { BRIEF_LINES } else { usize::MAX };
        let width = lines.iter().take(limit).map(|line| line.width()).filter(|&width| width <= WIDEST).max();
        for line in lines.iter().take(limit) {
            line.render(width.unwrap_or(0), palette, &mut text);
        }
        if lines.len() > limit {
            let more = format!("  … and {} more {}", count((lines.len() - limit) as u64), word(kind));
            text.push_str(&palette.change(kind, &more));
            text.push('\n');
        }
    }
    text
}

/// One line: a change, and how many changes below it the line stands for.
struct Line<'a> {
    change: &'a Change,
    below: u64,
}

impl Line<'_> {
    fn name(&self) -> String {
        let safe = printable(subject(self.change));
        let directory = is_whole(self.change);
        if directory { format!("{}/", safe.trim_end_matches('/')) } else { safe.into_owned() }
    }

    fn width(&self) -> usize {
        self.name().chars().count()
    }

    fn render(&self, width: usize, palette: Palette, text: &mut String) {
        let change = self.change;
        let name = self.name();
        let padding = " ".repeat(width.saturating_sub(name.chars().count()));
        // The layer is worth a word only where it is not the obvious one.
        let layer = if change.layer == Layer::Files { String::new() } else { format!("{}: ", change.layer) };
        let head = palette.change(change.kind, &format!("  {:<8}  ", word(change.kind)));
        let mut details = details(change);
        if self.below > 0 {
            details.push_str(&format!(", with {} below", counted(self.below, "entry", "entries")));
        }
        let line = format!("{head}{layer}{name}{padding}  {}", palette.faint(&details));
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn details(change: &Change) -> String {
    let before = change.before.as_deref().map(printable);
    let after = change.after.as_deref().map(printable);
    match (change.kind, before, after) {
        (ChangeKind::Renamed, Some(before), Some(after)) => format!("was {before}; {after}"),
        (ChangeKind::Renamed, Some(before), None) => format!("was {before}"),
        (_, Some(before), Some(after)) if before == after => after.into_owned(),
        (_, Some(before), Some(after)) => format!("{before} -> {after}"),
        (_, Some(only), None) | (_, None, Some(only)) => only.into_owned(),
        (_, None, None) => String::new(),
    }
}

/// Whether it is a directory that came with what is in it.
fn is_whole(change: &Change) -> bool {
    matches!(change.kind, ChangeKind::Created | ChangeKind::Renamed)
        && matches!(change.subject, Subject::Path(_))
        && change.after.as_deref().is_some_and(|after| after.starts_with("directory"))
}

/// Leaves out what came with a directory that was created or renamed itself, and counts it there.
fn fold_directories(changes: &[Change]) -> Vec<Line<'_>> {
    let path = |change: &'_ Change| subject(change).trim_end_matches('/').to_owned();
    let whole: BTreeMap<String, &Change> =
        changes.iter().filter(|change| is_whole(change)).map(|change| (path(change), change)).collect();
    let mut below: BTreeMap<String, u64> = BTreeMap::new();
    let mut kept = Vec::with_capacity(changes.len());
    for change in changes {
        match outermost_above(&whole, change) {
            Some(directory) => *below.entry(directory).or_default() += 1,
            None => kept.push(change),
        }
    }
    let folded = |change| if is_whole(change) { below.get(&path(change)).copied().unwrap_or(0) } else { 0 };
    kept.into_iter().map(|change| Line { change, below: folded(change) }).collect()
}

/// The outermost of these directories that the change came with.
fn outermost_above(whole: &BTreeMap<String, &Change>, change: &Change) -> Option<String> {
    let Subject::Path(path) = &change.subject else { return None };
    let ends = path.match_indices('/').map(|(end, _)| end).filter(|&end| end > 0);
    ends.map(|end| path.split_at(end))
        .find(|(ancestor, rest)| whole.get(*ancestor).is_some_and(|it| came_with(it, change, rest)))
        .map(|(ancestor, _)| ancestor.to_owned())
}

/// Whether a change says no more than that of the directory around it: it is as new, or was moved along and is as it was.
fn came_with(directory: &Change, change: &Change, rest: &str) -> bool {
    if directory.kind != change.kind {
        return false;
    }
    match (&directory.before, &change.before, &change.after) {
        _ if change.kind == ChangeKind::Created => true,
        (Some(from), Some(before), Some(after)) if change.kind == ChangeKind::Renamed => {
            before.strip_prefix(from.as_str()) == Some(rest) && !after.contains(", ")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: ChangeKind, path: &str, before: Option<&str>, after: Option<&str>) -> Change {
        Change::of_path(path.as_ref(), kind, before.map(str::to_owned), after.map(str::to_owned))
    }

    #[test]
    fn deletions_come_first_and_created_trees_are_one_line() {
        let mut changes = vec![
            file(ChangeKind::Created, "/srv/venv", None, Some("directory 0755")),
            file(ChangeKind::Created, "/srv/venv/bin", None, Some("directory 0755")),
            file(ChangeKind::Created, "/srv/venv/bin/python", None, Some("symlink to python3")),
            file(ChangeKind::Modified, "/srv/a.py", Some("file 0644 10 B"), Some("file 0644 12 B")),
            file(ChangeKind::Deleted, "/srv/old", Some("file 0600 1 B"), None),
            file(ChangeKind::Renamed, "/srv/new", Some("/srv/was"), Some("file 0644 3 B")),
        ];
        assert_eq!(
            render(&changes, Detail::Brief, Palette::PLAIN),
            "changes: 1 deleted, 1 modified, 1 renamed, 3 created\n\
             \x20 deleted   /srv/old  file 0600 1 B\n\
             \x20 modified  /srv/a.py  file 0644 10 B -> file 0644 12 B\n\
             \x20 renamed   /srv/new  was /srv/was; file 0644 3 B\n\
             \x20 created   /srv/venv/  directory 0755, with 2 entries below\n"
        );
        changes.extend([
            file(ChangeKind::Renamed, "/srv/docs", Some("/srv/doc"), Some("directory 0755")),
            file(ChangeKind::Renamed, "/srv/docs/a", Some("/srv/doc/a"), Some("file 0644 1 B")),
            file(
                ChangeKind::Renamed,
                "/srv/docs/b",
                Some("/srv/doc/b"),
                Some("file 0644 1 B, other content"),
            ),
            file(ChangeKind::Renamed, "/srv/docs/c", Some("/srv/elsewhere/c"), Some("file 0644 1 B")),
            file(ChangeKind::Created, "/srv/docs/d", None, Some("file 0644 1 B")),
        ]);
        let text = render(&changes, Detail::Brief, Palette::PLAIN);
        assert!(
            text.contains(
                "  renamed   /srv/docs/   was /srv/doc; directory 0755, with 1 entry below\n\
                 \x20 renamed   /srv/docs/b  was /srv/doc/b; file 0644 1 B, other content\n\
                 \x20 renamed   /srv/docs/c  was /srv/elsewhere/c; file 0644 1 B\n"
            ) && text.contains("  created   /srv/docs/d  "),
            "{text}"
        );
        changes.retain(|change| change.kind == ChangeKind::Created);
        assert_eq!(render(&changes, Detail::Full, Palette::PLAIN).lines().count(), 5);
        assert_eq!(render(&[], Detail::Full, Palette::PLAIN), "changes: none\n");
    }

    #[test]
    fn a_brief_text_counts_what_it_leaves_out_of_each_kind() {
        let mut changes: Vec<Change> = (0..200)
            .map(|n| file(ChangeKind::Created, &format!("/c{n}"), None, Some("file 0644 1 B")))
            .collect();
        changes.extend((0..5).map(|n| file(ChangeKind::Deleted, &format!("/d{n}"), Some("file"), None)));
        let text = render(&changes, Detail::Brief, Palette::PLAIN);
        assert_eq!(text.matches("  deleted   /d").count(), 5);
        assert!(text.ends_with("  … and 180 more created\n"), "{text}");
    }
}

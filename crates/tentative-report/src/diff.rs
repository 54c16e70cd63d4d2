//! Differences of files as `diff` prints them: unified text, sizes of binaries, symbolic links, modes, deletions.
//!
//! The headers are git's, so that what reads git's diffs reads these.

use std::fmt::Write as _;

use similar::{Change, ChangeTag, TextDiff};

use crate::{paint::Palette, printable, units::bytes};

/// How large a file may be on either side for its lines to be compared.
pub const TEXT_LIMIT: u64 = 16 << 20;

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// One side of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// There is nothing.
    Absent,
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Length in bytes.
        size: u64,
        /// What is in it; none when it is longer than [`TEXT_LIMIT`] or was not read.
        content: Option<Vec<u8>>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: String,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A FIFO, socket or device.
    Other {
        /// What it is, in words.
        kind: String,
        /// Permission bits.
        mode: u32,
    },
}

impl Side {
    fn noun(&self) -> &str {
        match self {
            Side::Absent => "nothing",
            Side::File { .. } => "file",
            Side::Symlink { .. } => "symbolic link",
            Side::Directory { .. } => "directory",
            Side::Other { kind, .. } => kind,
        }
    }

    const fn mode(&self) -> Option<u32> {
        match self {
            Side::File { mode, .. } | Side::Directory { mode } | Side::Other { mode, .. } => Some(*mode),
            Side::Absent | Side::Symlink { .. } => None,
        }
    }

    /// The lines to compare: a file's text, or a link's target as one line.
    fn text(&self) -> Option<&str> {
        match self {
            Side::Absent => Some(""),
            Side::File { content: Some(content), .. } if !content.contains(&0) => {
                std::str::from_utf8(content).ok()
            }
            Side::Symlink { target } => Some(target),
            Side::File { .. } | Side::Directory { .. } | Side::Other { .. } => None,
        }
    }

    const fn size(&self) -> u64 {
        match self {
            Side::File { size, .. } => *size,
            _ => 0,
        }
    }
}

/// The difference of one path, each line ended by a newline. `renamed_from` is the old path of a renamed file.
#[must_use]
pub fn unified(
    path: &str,
    renamed_from: Option<&str>,
    before: &Side,
    after: &Side,
    palette: Palette,
) -> String {
    let shown = printable::printable(path);
    let old = renamed_from.map_or_else(|| shown.clone(), printable::printable);
    let mut text = palette.heading(&format!("diff --tentative a{old} b{shown}"));
    text.push('\n');
    if renamed_from.is_some() {
        let _ = write!(text, "rename from {old}\nrename to {shown}\n");
    }
    heading(before, after, &mut text);
    let same_kind = before.noun() == after.noun();
    if same_kind || *before == Side::Absent || *after == Side::Absent {
        body(&old, &shown, before, after, palette, &mut text);
    } else {
        body(&old, &shown, before, &Side::Absent, palette, &mut text);
        body(&old, &shown, &Side::Absent, after, palette, &mut text);
    }
    text
}

/// What changed about the path itself: it came, it went, it is something else, it has another mode.
fn heading(before: &Side, after: &Side, text: &mut String) {
    let mode = |side: &Side| side.mode().map_or_else(String::new, |mode| format!(" mode {mode:04o}"));
    let line = match (before, after) {
        (Side::Absent, side) => format!("new {}{}\n", side.noun(), mode(side)),
        (side, Side::Absent) => format!("deleted {}{}\n", side.noun(), mode(side)),
        (old, new) if old.noun() != new.noun() => {
            format!("old {}{}\nnew {}{}\n", old.noun(), mode(old), new.noun(), mode(new))
        }
        (Side::Symlink { .. }, Side::Symlink { .. }) => "symbolic link\n".to_owned(),
        (old, new) if old.mode() != new.mode() => {
            format!("old mode {:04o}\nnew mode {:04o}\n", old.mode().unwrap_or(0), new.mode().unwrap_or(0))
        }
        _ => String::new(),
    };
    text.push_str(&line);
}

fn body(old: &str, new: &str, before: &Side, after: &Side, palette: Palette, text: &mut String) {
    match (before, after) {
        (Side::File { content: Some(was), .. }, Side::File { content: Some(is), .. }) if was == is => {}
        (
            Side::File { .. } | Side::Symlink { .. } | Side::Absent,
            Side::File { .. } | Side::Symlink { .. } | Side::Absent,
        ) => match (before.text(), after.text()) {
            (Some(was), Some(is)) => lines(old, new, before, after, (was, is), palette, text),
            _ => {
                let _ = writeln!(text, "binary content: {} -> {}", bytes(before.size()), bytes(after.size()));
            }
        },
        _ => {}
    }
}

fn lines(
    old: &str,
    new: &str,
    before: &Side,
    after: &Side,
    (was, is): (&str, &str),
    palette: Palette,
    text: &mut String,
) {
    if was == is {
        return;
    }
    let from = if *before == Side::Absent { "/dev/null".to_owned() } else { format!("a{old}") };
    let to = if *after == Side::Absent { "/dev/null".to_owned() } else { format!("b{new}") };
    let _ = writeln!(text, "{}", palette.heading(&format!("--- {from}")));
    let _ = writeln!(text, "{}", palette.heading(&format!("+++ {to}")));
    // A carriage return ends no line for what reads diffs.
    let (old, new): (Vec<&str>, Vec<&str>) =
        (was.split_inclusive('\n').collect(), is.split_inclusive('\n').collect());
    let diff = TextDiff::configure().timeout(std::time::Duration::from_secs(2)).diff_slices(&old, &new);
    for group in diff.grouped_ops(CONTEXT) {
        let changes: Vec<Change<&str>> = group.iter().flat_map(|op| diff.iter_changes(op)).collect();
        let ranges =
            format!("@@ -{} +{} @@", range(&changes, Change::old_index), range(&changes, Change::new_index));
        let _ = writeln!(text, "{}", palette.diff_line('@', &ranges));
        for change in changes {
            let mark = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            let content = change.value().strip_suffix('\n');
            let line = format!("{mark}{}", printable::printable_line(content.unwrap_or(change.value())));
            let _ = writeln!(text, "{}", palette.diff_line(mark, &line));
            if content.is_none() {
                let _ = writeln!(text, "\\ No newline at end of file");
            }
        }
    }
}

/// Where the lines of a hunk are on one side. From the lines themselves: the operations of `similar` 2.7 say otherwise once
/// it has moved some of them to join others.
fn range<'a>(changes: &[Change<&'a str>], index: fn(&Change<&'a str>) -> Option<usize>) -> String {
    let mut indexes = changes.iter().filter_map(index);
    let Some(first) = indexes.next() else {
        // All of the file is context where there is any.
        return "0,0".to_owned();
    };
    match 1 + indexes.count() {
        1 => (first + 1).to_string(),
        count => format!("{},{count}", first + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, content: &[u8]) -> Side {
        Side::File { mode, size: content.len() as u64, content: Some(content.to_vec()) }
    }

    fn plain(before: &Side, after: &Side) -> String {
        unified("/srv/a", None, before, after, Palette::PLAIN)
    }

    #[test]
    fn text_is_compared_line_by_line() {
        assert_eq!(
            plain(&file(0o644, b"one\ntwo\n"), &file(0o644, b"one\nthree\x1b[2J\n")),
            "diff --tentative a/srv/a b/srv/a\n--- a/srv/a\n+++ b/srv/a\n@@ -1,2 +1,2 @@\n one\n-two\n+three\\x1b[2J\n"
        );
        assert_eq!(
            plain(&Side::Absent, &file(0o755, b"x")),
            "diff --tentative a/srv/a b/srv/a\nnew file mode 0755\n--- /dev/null\n+++ b/srv/a\n@@ -0,0 +1 @@\n+x\n\
             \\ No newline at end of file\n"
        );
    }

    #[test]
    fn hunks_are_where_their_lines_are() {
        assert!(
            plain(&file(0o644, b"c\nb\n"), &file(0o644, b"b\nb\n"))
                .ends_with("@@ -1,2 +1,2 @@\n-c\n b\n+b\n")
        );
        assert!(plain(&file(0o644, b""), &file(0o644, b"b\n")).ends_with("@@ -0,0 +1 @@\n+b\n"));
        assert!(
            plain(&file(0o644, b"a\rb\nc\n"), &file(0o644, b"a\rb\nd\r"))
                .ends_with("@@ -1,2 +1,2 @@\n a\\rb\n-c\n+d\\r\n\\ No newline at end of file\n")
        );
    }

    #[test]
    fn what_is_not_text_is_told_by_its_size() {
        assert_eq!(
            plain(&file(0o644, b"\0\x01"), &file(0o644, b"\0\x01\x02")),
            "diff --tentative a/srv/a b/srv/a\nbinary content: 2 B -> 3 B\n"
        );
        assert_eq!(
            plain(&Side::Absent, &Side::File { mode: 0o600, size: 1 << 30, content: None }),
            "diff --tentative a/srv/a b/srv/a\nnew file mode 0600\nbinary content: 0 B -> 1.1 GB\n"
        );
    }

    #[test]
    fn kinds_and_modes_are_named() {
        let link = Side::Symlink { target: "../b".to_owned() };
        assert_eq!(
            plain(&file(0o644, b""), &file(0o755, b"")),
            "diff --tentative a/srv/a b/srv/a\nold mode 0644\nnew mode 0755\n"
        );
        assert_eq!(
            plain(&file(0o644, b"x\n"), &link),
            "diff --tentative a/srv/a b/srv/a\nold file mode 0644\nnew symbolic link\n--- a/srv/a\n+++ /dev/null\n\
             @@ -1 +0,0 @@\n-x\n--- /dev/null\n+++ b/srv/a\n@@ -0,0 +1 @@\n+../b\n\\ No newline at end of file\n"
        );
        assert_eq!(
            plain(&Side::Directory { mode: 0o755 }, &Side::Absent),
            "diff --tentative a/srv/a b/srv/a\ndeleted directory mode 0755\n"
        );
        assert_eq!(
            unified("/b", Some("/a"), &file(0o644, b"x"), &file(0o644, b"x"), Palette::PLAIN),
            "diff --tentative a/a b/b\nrename from /a\nrename to /b\n"
        );
    }
}

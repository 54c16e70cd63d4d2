//! The table of `tentative list`: one line for each transaction in the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tentative::record::State;

use crate::{
    paint::Palette,
    printable::{command_line, shortened},
    summary,
    units::{age, bytes, count},
};

/// What the table says of one transaction; also its JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// 8 hexadecimal digits.
    pub id: String,
    /// Where it is in its life.
    pub state: State,
    /// The program and its arguments.
    pub program: Vec<String>,
    /// How the program ended; none while it runs.
    pub exit_status: Option<i32>,
    /// Wall-clock start, nanoseconds since 1970.
    pub started_ns: u64,
    /// Bytes that it takes in the store.
    pub size_bytes: u64,
    /// How many changes wait for the decision.
    pub changes: u64,
    /// How many crossings were recorded.
    pub effects: u64,
}

/// Columns: title, and whether the cells are numbers.
const COLUMNS: [(&str, bool); 7] = [
    ("ID", false),
    ("STATE", false),
    ("AGE", true),
    ("SIZE", true),
    ("CHANGES", true),
    ("STATUS", true),
    ("PROGRAM", false),
];

/// Characters of a program that fit a line of the table; the document has all of it.
const LONGEST_PROGRAM: usize = 60;

/// The table with its heading, each line ended by a newline. `now_ns` is the wall-clock time to count ages from.
#[must_use]
pub fn table(rows: &[Row], now_ns: u64, palette: Palette) -> String {
    let cells: Vec<[String; 7]> = rows.iter().map(|row| cells(row, now_ns)).collect();
    let mut widths = COLUMNS.map(|(title, _)| title.len());
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = palette.faint(&aligned(&COLUMNS.map(|(title, _)| title.to_owned()), &widths));
    text.push('\n');
    for row in &cells {
        let line = aligned(row, &widths);
        let (id, rest) = line.split_at(row[0].len());
        text.push_str(&format!("{}{rest}\n", palette.literal(id)));
    }
    text
}

fn cells(row: &Row, now_ns: u64) -> [String; 7] {
    [
        row.id.clone(),
        summary::state(row.state).to_owned(),
        match row.started_ns {
            // Its record is not there, or not readable.
            0 => "-".to_owned(),
            started_ns => age(Duration::from_nanos(now_ns.saturating_sub(started_ns))),
        },
        bytes(row.size_bytes),
        count(row.changes),
        row.exit_status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        shortened(&command_line(&row.program), LONGEST_PROGRAM).into_owned(),
    ]
}

fn aligned(cells: &[String; 7], widths: &[usize; 7]) -> String {
    let mut line = String::new();
    for ((cell, &width), (_, number)) in cells.iter().zip(widths).zip(COLUMNS) {
        let padding = " ".repeat(width - cell.chars().count());
        if number {
            line.push_str(&padding);
            line.push_str(cell);
        } else {
            line.push_str(cell);
            line.push_str(&padding);
        }
        line.push_str("  ");
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |id: &str, size_bytes, program: &[&str]| Row {
            id: id.to_owned(),
            state: State::Pending,
            program: program.iter().map(|&word| word.to_owned()).collect(),
            exit_status: Some(0),
            started_ns: 1,
            size_bytes,
            changes: 3,
            effects: 0,
        };
        let rows = [row("0123abcd", 12, &["true"]), row("89abcdef", 31_400_000, &["sh", "-c", "a b"])];
        assert_eq!(
            table(&rows, 7_200_000_000_001, Palette::PLAIN),
            "ID        STATE    AGE   SIZE  CHANGES  STATUS  PROGRAM\n\
             0123abcd  pending  2 h   12 B        3       0  true\n\
             89abcdef  pending  2 h  31 MB        3       0  sh -c 'a b'\n"
        );
    }
}

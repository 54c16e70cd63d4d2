//! The JSON documents: each is one object with `"format": "tentative/1"`, ended by a newline.
//!
//! The schemas in docs/reference describe every document; a test holds them together.

use serde::Serialize;
use serde_json::{Value, json};
use tentative::{
    record::{FORMAT, Record, State},
    verdict::Judgement,
};

use crate::listing::Row;

/// What `run --json FILE` and `show --json` write.
#[must_use]
pub fn record(record: &Record) -> String {
    document(record)
}

/// What `list --json` prints.
#[must_use]
pub fn list(rows: &[Row]) -> String {
    document(&json!({ "format": FORMAT, "transactions": rows }))
}

/// What `commit --json` and `rollback --json` print: the decision that was carried out, or why it was not.
#[must_use]
pub fn decision(id: &str, state: State, refused: Option<&Judgement>) -> String {
    let refused = refused.map_or(Value::Null, |judgement| json!({ "reasons": judgement.reasons }));
    document(&json!({ "format": FORMAT, "id": id, "state": state, "refused": refused }))
}

/// One transaction that `recover` did something with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// 8 hexadecimal digits.
    pub id: String,
    /// What it is now.
    pub state: State,
    /// A sentence that says what was done.
    pub done: String,
}

/// What `recover --json` prints.
#[must_use]
pub fn recover(recovered: &[Recovery]) -> String {
    document(&json!({ "format": FORMAT, "recovered": recovered }))
}

/// One line of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A short name that stays the same (`user-namespace`).
    pub name: String,
    /// What is tried, in words.
    pub title: String,
    /// What came of it.
    pub result: CheckResult,
    /// What was found, in words.
    pub found: String,
    /// How to get what is missing; none when nothing is.
    pub remedy: Option<String>,
}

/// What came of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// It works.
    Works,
    /// It does not, and tentative does without it.
    Degraded,
    /// It does not, and the default containment cannot be had without it.
    Missing,
}

/// What `doctor --json` prints.
#[must_use]
pub fn doctor(checks: &[Check]) -> String {
    let usable = checks.iter().all(|check| check.result != CheckResult::Missing);
    document(&json!({ "format": FORMAT, "usable": usable, "checks": checks }))
}

fn document(value: &impl Serialize) -> String {
    let mut text =
        serde_json::to_string_pretty(value).expect("records have string keys and serialise always");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::record as example;

    #[test]
    fn a_record_has_the_fields_of_the_interface_in_order() {
        let text = record(&example());
        let keys: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("  \"").and_then(|rest| rest.split_once('"')))
            .map(|(key, _)| key)
            .collect();
        assert_eq!(
            keys,
            [
                "format",
                "id",
                "state",
                "program",
                "exit_status",
                "started_ns",
                "duration_ns",
                "changes",
                "effects",
                "verdict",
                "containment"
            ]
        );
        assert_eq!(serde_json::from_str::<Record>(&text).expect("reads back"), example());
    }

    #[test]
    fn every_document_names_its_format() {
        let refused = Judgement::from_reasons(vec!["/x was changed meanwhile".to_owned()]);
        for text in
            [list(&[]), decision("0123abcd", State::Pending, Some(&refused)), recover(&[]), doctor(&[])]
        {
            let value: Value = serde_json::from_str(&text).expect("is JSON");
            assert_eq!(value["format"], FORMAT);
        }
    }
}

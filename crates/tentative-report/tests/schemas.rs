//! Documents made from records with everything in them fit the schemas in docs/reference/json.

use std::{fs, path::Path};

use serde_json::Value;
use tentative::{
    change::{Change, ChangeKind, Subject},
    containment::{Containment, Gap},
    effect::{Class, Decision, Effect, Frame},
    layer::Layer,
    record::{FORMAT, Record, State},
    verdict::{Judgement, Verdict},
};
use tentative_report::{
    json::{self, Check, CheckResult, Recovery},
    listing::Row,
    pathways,
};
use tentative_testkit::schema::violations;

fn schema(name: &str) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/json");
    let text =
        fs::read_to_string(directory.join(format!("{name}.schema.json"))).expect("the schema is there");
    serde_json::from_str(&text).expect("the schema is JSON")
}

#[track_caller]
fn assert_fits(name: &str, document: &str) {
    let document = serde_json::from_str(document).expect("the document is JSON");
    assert_eq!(violations(&schema(name), &document), Vec::<String>::new());
}

fn change(kind: ChangeKind, subject: Subject) -> Change {
    let after = Some("file 0644 1 B".to_owned());
    Change { layer: Layer::Files, subject, kind, before: None, after, path_hex: None, before_hex: None }
}

fn record() -> Record {
    let effect = Effect {
        id: 1,
        layer: Layer::World,
        class: Class::Escaped,
        operation: "connect".to_owned(),
        target: "tcp 127.0.0.1:80".to_owned(),
        pid: 2,
        tid: 2,
        program: "curl".to_owned(),
        time_ns: 1,
        decision: Decision::Allowed,
        errno: None,
        count: 1,
        stack: Some(vec![Frame { file: "a.py".to_owned(), line: 1, function: "f".to_owned() }]),
        hint: Some("a hint".to_owned()),
    };
    let gap = Gap { layer: Layer::Kin, reason: "left out".to_owned() };
    let containment = Containment::from_gaps(vec![gap]);
    let kinds = [
        ChangeKind::Deleted,
        ChangeKind::Created,
        ChangeKind::Modified,
        ChangeKind::Renamed,
        ChangeKind::Metadata,
    ];
    let mut changes: Vec<Change> =
        kinds.into_iter().map(|kind| change(kind, Subject::Path("/srv/a".to_owned()))).collect();
    changes.push(change(ChangeKind::Modified, Subject::Name("environ.PATH".to_owned())));
    let mut renamed = Change::of_path(Path::new("/srv/\n"), ChangeKind::Renamed, Some("/a".to_owned()), None);
    renamed.before_hex = Some("2f61".to_owned());
    changes.push(renamed);
    Record {
        format: FORMAT.to_owned(),
        id: "0123abcd".to_owned(),
        state: State::RolledBack,
        program: vec!["sh".to_owned()],
        exit_status: Some(0),
        started_ns: 1,
        duration_ns: 1,
        changes,
        verdict: Verdict::judge(std::slice::from_ref(&effect), &containment, &["a conflict".to_owned()]),
        effects: vec![effect],
        containment,
    }
}

#[test]
fn records_fit() {
    assert_fits("record", &json::record(&record()));
    let full = Record {
        effects: Vec::new(),
        changes: Vec::new(),
        exit_status: None,
        containment: Containment::Full,
        ..record()
    };
    assert_fits("record", &json::record(&full));
}

#[test]
fn lists_and_decisions_fit() {
    let row = Row {
        id: "0123abcd".to_owned(),
        state: State::Pending,
        program: vec!["sh".to_owned()],
        exit_status: Some(1),
        started_ns: 1,
        size_bytes: 1,
        changes: 1,
        effects: 1,
    };
    assert_fits("list", &json::list(&[row]));
    assert_fits("list", &json::list(&[]));
    let refused = Judgement::from_reasons(vec!["a conflict".to_owned()]);
    assert_fits("decision", &json::decision("0123abcd", State::Pending, Some(&refused)));
    assert_fits("decision", &json::decision("0123abcd", State::Committed, None));
}

#[test]
fn the_other_documents_fit() {
    let recovery =
        Recovery { id: "0123abcd".to_owned(), state: State::Committed, done: "finished".to_owned() };
    assert_fits("recover", &json::recover(&[recovery]));
    let check = Check {
        name: "overlay".to_owned(),
        title: "overlay".to_owned(),
        result: CheckResult::Missing,
        found: "nothing".to_owned(),
        remedy: Some("modprobe overlay".to_owned()),
    };
    assert_fits("doctor", &json::doctor(&[check]));
    assert_fits("pathways", &pathways::document(tentative::pathways::table()));
}

#[test]
fn a_document_with_more_than_the_schema_says_does_not_fit() {
    let mut document: Value = serde_json::from_str(&json::record(&record())).expect("the document is JSON");
    document["surprise"] = Value::Null;
    assert_eq!(violations(&schema("record"), &document).len(), 1);
}

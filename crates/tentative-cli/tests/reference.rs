//! The reference in docs/ and what the executable says are the same.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;
use tentative_testkit::{Environment, schema::violations};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

fn reference(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name);
    fs::read_to_string(path).expect("the page is there")
}

fn printed(command: &mut Command) -> String {
    let output = command.output().expect("tentative starts");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing is said beside the document");
    String::from_utf8(output.stdout).expect("the document is text")
}

#[test]
fn the_page_of_pathways_is_the_table() {
    let environment = Environment::new();
    let page = printed(environment.command(TENTATIVE).args(["pathways", "--page"]));
    assert!(
        page == reference("pathways.md"),
        "make it again: tentative pathways --page > docs/reference/pathways.md"
    );
}

#[test]
fn every_verb_and_option_is_in_the_reference() {
    let environment = Environment::new();
    let page = reference("command-line.md");
    let help = printed(environment.command(TENTATIVE).arg("--help"));
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Verbs:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.len() >= 8, "{verbs:?}");
    for verb in verbs {
        assert!(page.contains(&format!("## {verb}")), "the reference has no section on {verb}");
        let help = printed(environment.command(TENTATIVE).args([verb, "--help"]));
        for option in help.split_whitespace().filter(|word| word.starts_with("--") && *word != "--") {
            let option: String =
                option.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '-').collect();
            assert!(page.contains(&format!("`{option}")), "the reference does not have {option} of {verb}");
        }
    }
}

#[test]
fn documents_of_an_empty_store_fit_their_schemas() {
    let environment = Environment::new();
    for verb in ["list", "recover", "doctor", "pathways"] {
        let output =
            environment.command(TENTATIVE).args([verb, "--json"]).output().expect("tentative starts");
        let document: Value = serde_json::from_slice(&output.stdout).expect("the document is JSON");
        let schema = reference(&format!("json/{verb}.schema.json"));
        let schema = serde_json::from_str(&schema).expect("the schema is JSON");
        assert_eq!(violations(&schema, &document), Vec::<String>::new(), "{verb}");
    }
}

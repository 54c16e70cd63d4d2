//! Transcripts: console blocks of a document, run for real and compared with what the document says.
//!
//! In a block, `$ ` starts a command, the lines below are what it prints (both streams, in order), and `? N` says an exit
//! status other than 0. What differs from run to run is made equal on both sides: the test's directories are
//! `/home/me` and `/home/me/project`, a number of spaces is one gap, times after `after` are one word. An id (8 hexadecimal
//! digits) in the document stands for the real one from its first appearance on. `[..]` stands for any part of a line, and
//! a line `...` for any lines.

use std::{collections::HashMap, io::Read, path::Path, process::Stdio};

use crate::{Environment, environment::PATH};

/// Closes what whoever started the tests left open (a job server's pipes), which would be in every report; then runs the
/// command.
const CLEAN_SHELL: &str = r#"for fd in /proc/$$/fd/*; do
    fd=${fd##*/}
    if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
done
eval "$1""#;

/// One command of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
    status: i32,
}

/// Runs every console block of the document, in order, in one environment; `tool` is the directory of the executable.
///
/// # Panics
///
/// When a command prints or ends differently from what the document says; the message has both.
pub fn check(document: &str, environment: &Environment, tool: &Path) {
    let steps = steps(document);
    assert!(!steps.is_empty(), "the document has a console block");
    let mut ids: HashMap<String, String> = HashMap::new();
    for step in steps {
        let command = with_real_ids(&step.command, &ids);
        let (printed, status) = run(&command, environment, tool);
        let printed: Vec<String> = printed.lines().map(|line| normal(line, environment)).collect();
        let expected: Vec<String> = step.expected.iter().map(|line| normal(line, environment)).collect();
        bind_ids(&expected, &printed, &mut ids);
        let expected: Vec<String> = expected.iter().map(|line| with_real_ids(line, &ids)).collect();
        assert!(
            matches_lines(&expected, &printed) && step.status == status,
            "line {}: $ {}\n--- the document says (? {})\n{}\n--- it printed (? {status})\n{}\n",
            step.line,
            step.command,
            step.status,
            expected.join("\n"),
            printed.join("\n"),
        );
    }
}

fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (number, line) in document.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if !inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            let command = command.to_owned();
            steps.push(Step { line: number + 1, command, expected: Vec::new(), status: 0 });
        } else if let Some(step) = steps.last_mut() {
            match line.strip_prefix("? ").and_then(|status| status.parse().ok()) {
                Some(status) => step.status = status,
                None => step.expected.push(line.to_owned()),
            }
        }
    }
    for step in &mut steps {
        while step.expected.last().is_some_and(String::is_empty) {
            step.expected.pop();
        }
    }
    steps
}

/// Runs a command line with both streams into one pipe, so that their order is kept.
fn run(command: &str, environment: &Environment, tool: &Path) -> (String, i32) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe can be made");
    let mut shell = environment.command("bash");
    shell
        .args(["-c", CLEAN_SHELL, "bash", command])
        .env("PATH", format!("{}:{PATH}", tool.display()))
        .stdin(Stdio::null())
        .stdout(writer.try_clone().expect("a descriptor can be copied"))
        .stderr(writer);
    let mut child = shell.spawn().expect("there is a shell");
    // The command holds copies of the writing end until it is dropped.
    drop(shell);
    let mut printed = String::new();
    reader.read_to_string(&mut printed).expect("the output is text");
    let status = child.wait().expect("the shell ends");
    (printed, status.code().unwrap_or(-1))
}

fn normal(line: &str, environment: &Environment) -> String {
    let line = line.replace(&environment.work().display().to_string(), "/home/me/project");
    let line = line.replace(&environment.home().display().to_string(), "/home/me");
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if let Some(after) = words.iter().rposition(|word| *word == "after") {
        let length = words[after + 1..].chunks(2).take_while(|pair| is_time(pair)).count() * 2;
        if length > 0 {
            words.splice(after + 1..after + 1 + length, ["[time]"]);
        }
    }
    words.join(" ")
}

fn is_time(pair: &[&str]) -> bool {
    matches!(pair, [number, unit]
        if number.parse::<f64>().is_ok() && ["us", "ms", "s", "min", "h", "d"].contains(&unit.trim_end_matches('.')))
}

/// The places of words of 8 hexadecimal digits.
fn ids_of(line: &str) -> Vec<&str> {
    line.split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| word.len() == 8 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
        .collect()
}

fn bind_ids(expected: &[String], printed: &[String], ids: &mut HashMap<String, String>) {
    let documented: Vec<&str> = expected.iter().flat_map(|line| ids_of(line)).collect();
    let real: Vec<&str> = printed.iter().flat_map(|line| ids_of(line)).collect();
    for (documented, real) in documented.into_iter().zip(real) {
        ids.entry(documented.to_owned()).or_insert_with(|| real.to_owned());
    }
}

fn with_real_ids(line: &str, ids: &HashMap<String, String>) -> String {
    let mut replaced = line.to_owned();
    for id in ids_of(line) {
        if let Some(real) = ids.get(id) {
            replaced = replaced.replace(id, real);
        }
    }
    replaced
}

fn matches_lines(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=printed.len()).any(|skipped| matches_lines(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, others)| matches_line(first, line) && matches_lines(rest, others)),
    }
}

fn matches_line(expected: &str, printed: &str) -> bool {
    let mut parts = expected.split("[..]");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(place) = rest.find(part) else { return false };
        rest = &rest[place + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_run() {
        let environment = Environment::new();
        let document = "text\n```console\n$ echo made 0123abcd; echo b >&2\nmade 89abcdef\nb\n\n$ echo  89abcdef; exit 3\n\
                        89abcdef\n? 3\n$ pwd; printf '1\\n2\\n3\\n'\n/home/me/project\n...\n3\n```\n";
        check(document, &environment, Path::new("/bin"));
    }

    #[test]
    fn a_transcript_that_is_not_true_fails() {
        // Outside of what panics: a failing test keeps its directory.
        let environment = Environment::new();
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check("```console\n$ echo a\nb\n```\n", &environment, Path::new("/bin"));
        }));
        let words = failed.expect_err("it is not true");
        assert!(words.downcast_ref::<String>().is_some_and(|words| words.contains("the document says")));
    }

    #[test]
    fn times_and_gaps_are_made_equal() {
        let environment = Environment::new();
        assert_eq!(normal("x  ended after 1.2 s", &environment), "x ended after [time]");
        assert_eq!(normal("ended after 2 min 5 s", &environment), "ended after [time]");
        assert!(matches_line("a [..] c", "a b b c"));
        assert!(!matches_line("a [..] c", "a b b d"));
    }
}

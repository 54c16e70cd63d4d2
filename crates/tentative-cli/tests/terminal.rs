//! The question after a run, on a real terminal: keys, Enter, Ctrl-C, end of input, hang-up; and programs that use the
//! terminal themselves.

use std::{path::Path, process::Command, thread, time::Duration};

use serde_json::Value;
use tentative_testkit::{Environment, Feature, require, terminal::Terminal};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");
const QUESTION: &str = "or [k]eep for later?";

fn tool() -> &'static Path {
    Path::new(TENTATIVE).parent().expect("the executable is in a directory")
}

/// The states of the transactions in the store.
fn states(environment: &Environment) -> Vec<String> {
    let output = environment.command(TENTATIVE).args(["list", "--json"]).output().expect("tentative starts");
    let list: Value = serde_json::from_slice(&output.stdout).expect("the list is JSON");
    let transactions = list["transactions"].as_array().expect("the list has transactions");
    transactions.iter().map(|one| one["state"].as_str().unwrap_or_default().to_owned()).collect()
}

fn made(environment: &Environment) -> bool {
    environment.work().join("made").exists()
}

/// A terminal with the question about a file that was made.
fn asked(environment: &Environment) -> Terminal {
    let terminal = Terminal::start(environment, tool());
    terminal.type_line("tentative run sh -c 'echo text > made; exit 3'; echo \"ended with $?.\"");
    terminal.wait_for(QUESTION);
    assert!(
        terminal.screen().contains("created   "),
        "the report is above the question: {}",
        terminal.screen()
    );
    assert!(!made(environment));
    terminal
}

#[test]
fn c_commits() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = asked(&environment);
    terminal.press("c");
    terminal.wait_for("ended with 3.");
    assert!(made(&environment));
    assert_eq!(states(&environment), Vec::<String>::new());
}

#[test]
fn r_rolls_back() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = asked(&environment);
    terminal.press("r");
    terminal.wait_for("ended with 3.");
    assert!(!made(&environment));
    assert_eq!(states(&environment), Vec::<String>::new());
}

#[test]
fn d_and_s_show_and_ask_again() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = asked(&environment);
    terminal.press("d");
    terminal.wait_until("the difference and the question", |screen| {
        screen.contains("+text") && screen.matches(QUESTION).count() == 2
    });
    terminal.press("s");
    terminal.wait_until("the question", |screen| screen.matches(QUESTION).count() == 3);
    terminal.press("x");
    terminal.wait_for("press c, r, d, s or k");
    terminal.press("k");
    terminal.wait_for("ended with 3.");
    assert_eq!(states(&environment), ["pending"]);
}

#[test]
fn whoever_does_not_answer_keeps() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    for key in ["Enter", "C-c", "C-d", "k"] {
        let environment = Environment::new();
        let terminal = asked(&environment);
        terminal.press(key);
        terminal.wait_for("ended with 3.");
        assert!(terminal.screen().contains("kept as "), "{key}: {}", terminal.screen());
        assert!(!made(&environment), "{key}");
        assert_eq!(states(&environment), ["pending"], "{key}");
    }
}

#[test]
fn arrow_keys_decide_nothing() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = asked(&environment);
    for key in ["Right", "Up", "F1", "C-Right"] {
        terminal.press(key);
    }
    thread::sleep(Duration::from_millis(300));
    assert!(!terminal.screen().contains("ended with 3."), "{}", terminal.screen());
    terminal.press("k");
    terminal.wait_for("ended with 3.");
    assert!(!made(&environment));
}

#[test]
fn ctrl_z_leads_to_the_shell_and_back() {
    require!(Feature::Overlay, Feature::Program("tmux"), Feature::Program("bash"));
    let environment = Environment::new();
    let terminal = Terminal::start(&environment, tool());
    terminal.type_line("exec bash --norc --noprofile");
    terminal.type_line("PS1='shell> '");
    terminal.wait_for_line("shell>");
    terminal.type_line("tentative run sh -c 'echo text > made; exit 3'; echo \"ended with $?.\"");
    terminal.wait_for(QUESTION);
    terminal.press("C-z");
    terminal.wait_for("Stopped");
    // A commit, if it were an answer.
    terminal.type_line("cd . && echo still \"a shell\"");
    terminal.wait_for("still a shell");
    assert!(!made(&environment), "{}", terminal.screen());
    assert_eq!(states(&environment), ["pending"]);
    terminal.type_line("fg");
    terminal.wait_until("the question again", |screen| screen.matches(QUESTION).count() == 2);
    terminal.press("c");
    terminal.wait_for("committed: 1 created");
    assert!(made(&environment));
}

#[test]
fn a_hang_up_keeps() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = asked(&environment);
    terminal.hang_up();
    // The process ends by the hang-up in its own time.
    for _ in 0..100 {
        if states(&environment) == ["pending"] {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("not kept: {:?}", states(&environment));
}

#[test]
fn keys_typed_before_the_question_are_no_answers() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = Terminal::start(&environment, tool());
    terminal.type_line("tentative run sh -c 'echo text > made; echo ready; sleep 1'");
    terminal.wait_for_line("ready");
    terminal.press("c");
    terminal.wait_for(QUESTION);
    thread::sleep(Duration::from_millis(300));
    assert!(!made(&environment), "{}", terminal.screen());
    terminal.press("r");
    terminal.wait_for("rolled back");
}

#[test]
fn piped_input_still_lets_the_terminal_answer() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = Terminal::start(&environment, tool());
    terminal.type_line("echo piped | tentative run sh -c 'cat > made' > out; echo \"ended with $?.\"");
    terminal.wait_for(QUESTION);
    terminal.press("c");
    terminal.wait_for("ended with 0.");
    assert_eq!(
        std::fs::read_to_string(environment.work().join("made")).expect("it was committed"),
        "piped\n"
    );
    assert_eq!(
        std::fs::read(environment.work().join("out")).expect("it is there"),
        b"",
        "nothing but the program's"
    );
}

#[test]
fn ctrl_c_ends_the_program_and_asks() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = Terminal::start(&environment, tool());
    terminal.type_line(
        "tentative run sh -c 'echo text > made; echo ready; exec sleep 60'; echo \"ended with $?.\"",
    );
    terminal.wait_for_line("ready");
    terminal.press("C-c");
    terminal.wait_for(QUESTION);
    terminal.press("r");
    terminal.wait_for("rolled back; ");
    // Ended by the same signal: a shell leaves the rest of such a line out, so this is a new one.
    terminal.type_line("echo \"status $?.\"");
    terminal.wait_for("status 130.");
    assert!(!made(&environment));
}

#[test]
fn a_shell_inside_has_job_control() {
    require!(Feature::Overlay, Feature::Program("tmux"), Feature::Program("bash"));
    let environment = Environment::new();
    let terminal = Terminal::start(&environment, tool());
    terminal.type_line("SHELL=$(command -v bash) tentative run");
    terminal.wait_for("'exit' ends the shell");
    thread::sleep(Duration::from_millis(500));
    terminal.type_line("PS1='inside> '");
    terminal.wait_for_line("inside>");
    // One job from the first word on: between two commands Ctrl-Z would reach nobody but the shell.
    terminal.type_line("sh -c 'echo \"id ${#TENTATIVE_ID}\"; exec sleep 60'");
    terminal.wait_for("id 8");
    terminal.press("C-z");
    terminal.wait_for("Stopped");
    terminal.type_line("jobs; fg");
    terminal.wait_until("the job in front again", |screen| screen.matches("sleep 60").count() >= 4);
    terminal.press("C-c");
    terminal.type_line("echo text > made; exit");
    terminal.wait_for(QUESTION);
    assert!(!made(&environment));
    terminal.press("c");
    terminal.wait_for("committed");
    assert!(made(&environment));
}

#[test]
fn an_editor_inside_has_the_terminal() {
    require!(Feature::Overlay, Feature::Program("tmux"), Feature::Program("vi"));
    let environment = Environment::new();
    environment.write("notes", "one\n");
    let terminal = Terminal::start(&environment, tool());
    terminal.type_line("TERM=screen tentative run vi notes");
    terminal.wait_for("one");
    terminal.wait_for("~");
    terminal.press("G");
    terminal.press("o");
    terminal.type_line("two");
    terminal.press("Escape");
    terminal.type_line(":wq");
    terminal.wait_for(QUESTION);
    let notes = || std::fs::read_to_string(environment.work().join("notes")).expect("it is there");
    assert_eq!(notes(), "one\n");
    terminal.press("c");
    terminal.wait_for("committed");
    assert!(notes().starts_with("one\ntwo\n"), "{:?}", notes());
}

#[test]
fn the_terminal_is_one_without_a_name() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = Terminal::start(&environment, tool());
    terminal.type_line("tentative run sh -c 'tty; test -t 0 && echo by tty > /dev/tty; echo \"is $?\"'");
    terminal.wait_for_line("not a tty");
    terminal.wait_for_line("by tty");
    terminal.wait_for("is 0");
}

#[test]
fn nothing_changed_asks_nothing() {
    require!(Feature::Overlay, Feature::Program("tmux"));
    let environment = Environment::new();
    let terminal = Terminal::start(&environment, tool());
    terminal.type_line("tentative run true; echo \"ended with $?.\"");
    terminal.wait_for("ended with 0.");
    assert!(!terminal.screen().contains(QUESTION));
    assert_eq!(states(&environment), Vec::<String>::new());
}

#[test]
fn ask_without_a_terminal_is_refused() {
    let environment = Environment::new();
    let script = format!("setsid -w {TENTATIVE} run --ask true < /dev/null 2>&1");
    let output = Command::new("sh").args(["-c", &script]).env("TENTATIVE_HOME", environment.store()).output();
    let output = output.expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("there is no terminal to ask on"), "{said}");
}

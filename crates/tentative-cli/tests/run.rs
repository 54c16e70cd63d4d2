//! `tentative run` without a terminal: modes, exit statuses, streams, the document; real programs in real sandboxes.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use serde_json::Value;
use tentative_testkit::{Environment, Feature, require, schema::violations};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

fn tentative(environment: &Environment, arguments: &[&str]) -> Output {
    environment.command(TENTATIVE).args(arguments).output().expect("tentative starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn list(environment: &Environment) -> Vec<Value> {
    let output = tentative(environment, &["list", "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).expect("the list is JSON");
    list["transactions"].as_array().expect("the list has transactions").clone()
}

#[track_caller]
fn assert_nothing_left(environment: &Environment) {
    assert_eq!(list(environment), Vec::<Value>::new());
    let left: Vec<_> = fs::read_dir(environment.store())
        .expect("the store is there")
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| name != "format" && name != "gate")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_modes_do_what_they_say() {
    require!(Feature::Overlay);
    // Mode, the program's status, whether the file is there afterwards, how many are pending.
    for (mode, status, committed, pending) in [
        ("--keep", 0, false, 1),
        ("--rollback", 0, false, 0),
        ("--commit", 0, true, 0),
        ("--commit", 3, false, 1),
        ("--commit=always", 3, true, 0),
    ] {
        let environment = Environment::new();
        let script = format!("echo text > made; exit {status}");
        let output = tentative(&environment, &["run", mode, "--", "sh", "-c", &script]);
        assert_eq!(output.status.code(), Some(status), "{mode}: {}", said(&output));
        assert_eq!(environment.work().join("made").exists(), committed, "{mode} {status}: {}", said(&output));
        assert_eq!(list(&environment).len(), pending, "{mode} {status}");
        assert!(output.stdout.is_empty(), "standard output is the program's");
    }
}

#[test]
fn without_a_terminal_it_is_kept() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let output = tentative(&environment, &["run", "touch", "made"]);
    let pending = list(&environment);
    assert_eq!(pending.len(), 1);
    let id = pending[0]["id"].as_str().expect("it has an id");
    assert!(said(&output).contains(&format!("tentative commit {id}")), "{}", said(&output));
}

#[test]
fn nothing_changed_keeps_nothing() {
    require!(Feature::Overlay);
    for mode in ["--keep", "--commit", "--rollback"] {
        let environment = Environment::new();
        let output = tentative(&environment, &["run", mode, "cat", "/etc/hostname"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("nothing was changed"), "{}", said(&output));
        assert_nothing_left(&environment);
    }
}

#[test]
fn the_programs_status_and_signal_are_ours() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    for status in [0, 1, 42, 255] {
        let output = tentative(&environment, &["run", "sh", "-c", &format!("exit {status}")]);
        assert_eq!(output.status.code(), Some(status));
    }
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("INT", 2), ("PIPE", 13)] {
        let output = tentative(&environment, &["run", "sh", "-c", &format!("kill -{name} $$")]);
        assert_eq!(output.status.signal(), Some(number), "{name}: {}", said(&output));
        assert!(!output.status.core_dumped());
    }
}

#[test]
fn streams_are_the_programs_own() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    environment.write("input", "from outside\n");
    let script = format!("{TENTATIVE} run --rollback sh -c 'cat; echo error >&2' < input");
    let output = environment.command("sh").args(["-c", &script]).output().expect("there is a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from outside\n");
    assert!(said(&output).starts_with("error\n"), "{}", said(&output));
}

#[test]
fn inside_there_is_an_id_and_the_same_directory_and_user() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let script = "echo ${#TENTATIVE_ID}; pwd; id -u; id -g; echo $HOME";
    let inside = tentative(&environment, &["run", "sh", "-c", script]);
    let outside = environment
        .command("sh")
        .args(["-c", script])
        .env("TENTATIVE_ID", "12345678")
        .output()
        .expect("a shell");
    assert_eq!(String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&outside.stdout));
}

#[test]
fn a_shell_is_started_without_a_program() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let script = format!("echo 'echo $((40 + 2)); exit 5' | SHELL=/bin/sh {TENTATIVE} run");
    let output = environment.command("sh").args(["-c", &script]).output().expect("there is a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n", "{}", said(&output));
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn programs_that_cannot_be_started_are_told_apart() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let plain = environment.write("plain", "#!/bin/sh\necho ran\n");
    let broken = environment.write("broken", "#!/no/such/interpreter\n");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let shown = |path: &Path| path.display().to_string();
    for (program, status, expected) in [
        ("no-such-program", 127, "program not found: no-such-program"),
        ("./no-such-program", 127, "program not found: ./no-such-program"),
        (&shown(&plain), 126, "may not be executed"),
        (&shown(&broken), 126, "names an interpreter that is not there"),
        (&shown(&environment.work()), 126, "is a directory"),
    ] {
        let output = tentative(&environment, &["run", "--", program]);
        assert_eq!(output.status.code(), Some(status), "{program}: {}", said(&output));
        assert!(said(&output).contains(expected), "{program}: {}", said(&output));
        assert!(said(&output).contains("\nhint: "), "{program}: {}", said(&output));
        assert_nothing_left(&environment);
    }
}

#[test]
fn a_script_without_a_first_line_is_run_by_sh_as_execvp_does() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let script = environment.write("script", "echo ran by sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let output = tentative(&environment, &["run", "--", "./script"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ran by sh\n", "{}", said(&output));
}

#[test]
fn the_time_limit_ends_the_program() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let began = Instant::now();
    let output =
        tentative(&environment, &["run", "--timeout", "300ms", "sh", "-c", "echo x > made; sleep 60"]);
    assert_eq!(output.status.code(), Some(124), "{}", said(&output));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(said(&output).contains("its time was over"), "{}", said(&output));
    assert_eq!(list(&environment).len(), 1, "the work is kept");
}

#[test]
fn a_program_that_ignores_the_time_limit_is_killed() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let script = "trap '' TERM; while :; do sleep 1; done";
    let output = tentative(&environment, &["run", "--timeout", "100ms", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(124), "{}", said(&output));
    assert_nothing_left(&environment);
}

#[test]
fn the_memory_limit_is_kept_and_its_means_named() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let script = "head -c 300000000 /dev/zero | tail -n 1 | wc -c";
    let output = tentative(&environment, &["run", "--memory-limit", "100M", "sh", "-c", script]);
    assert!(said(&output).contains("memory limit: RLIMIT_AS"), "{}", said(&output));
    assert!(
        said(&output).contains("memory exhausted") || said(&output).contains("allocate"),
        "{}",
        said(&output)
    );
}

#[test]
fn held_output_is_delivered_by_the_commit() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let script = "echo out; echo err >&2; echo text > made";
    let output = tentative(&environment, &["run", "--output", "hold", "sh", "-c", script]);
    assert!(output.stdout.is_empty() && !said(&output).contains("err\n"), "{output:?}");
    let shown = tentative(&environment, &["show", "--output"]);
    assert_eq!((shown.stdout.as_slice(), shown.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let committed = tentative(&environment, &["commit"]);
    assert_eq!(String::from_utf8_lossy(&committed.stdout), "out\n");
    assert!(said(&committed).starts_with("err\n"), "{}", said(&committed));

    let output = tentative(&environment, &["run", "--output", "hold", "--rollback", "sh", "-c", script]);
    assert!(output.stdout.is_empty(), "held output goes with a rollback");
    // Output alone is something to decide about.
    let output = tentative(&environment, &["run", "--output", "hold", "--commit", "echo", "only"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "only\n", "{}", said(&output));
    assert_nothing_left(&environment);
}

#[test]
fn layers_are_gone_without_by_name() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let output = tentative(&environment, &["run", "--without", "files", "touch", "made"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(environment.work().join("made").exists(), "not contained, as asked");
    assert!(said(&output).contains("containment: partial\n  files: "), "{}", said(&output));
    let output = tentative(&environment, &["run", "--without", "files,kin,world", "true"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_nothing_left(&environment);
}

#[test]
fn the_record_is_written_with_its_last_state() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/json/record.schema.json");
    let schema = serde_json::from_str(&fs::read_to_string(schema).expect("it is there")).expect("it is JSON");
    let file = environment.root().join("record.json");
    let name = file.display().to_string();
    for (mode, state) in [("--commit", "committed"), ("--keep", "pending"), ("--rollback", "rolled-back")] {
        let script = format!("date > made; rm -f old; echo {state}; exec 3<>/dev/tcp/127.0.0.1/1");
        let output = tentative(&environment, &["run", mode, "--json", &name, "bash", "-c", &script]);
        let document: Value =
            serde_json::from_slice(&fs::read(&file).expect("it was written")).expect("it is JSON");
        assert_eq!(violations(&schema, &document), Vec::<String>::new());
        // The program failed to connect, so `--commit` keeps it.
        let expected = if mode == "--commit" { "pending" } else { state };
        assert_eq!(document["state"], expected, "{}", said(&output));
        assert_eq!(document["exit_status"], 1);
        let effects = document["effects"].as_array().expect("effects are a list");
        assert!(effects.iter().any(|effect| effect["class"] == "blocked"), "{document:#}");
    }
    let shown = tentative(&environment, &["show", "--json"]);
    let document: Value = serde_json::from_slice(&shown.stdout).expect("it is JSON");
    assert_eq!(violations(&schema, &document), Vec::<String>::new());
}

#[test]
fn a_record_that_cannot_be_written_is_an_error_before_the_program_runs() {
    let environment = Environment::new();
    let output = tentative(&environment, &["run", "--json", "/no/such/place", "--", "touch", "made"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(said(&output).contains("cannot write /no/such/place"), "{}", said(&output));
    assert!(list(&environment).is_empty());
}

#[test]
fn confirm_is_refused_with_the_alternative() {
    let environment = Environment::new();
    let output = tentative(&environment, &["run", "--confirm", "net", "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        said(&output).contains("--confirm is not supported by this version\nhint: "),
        "{}",
        said(&output)
    );
}

#[test]
fn what_escapes_is_in_the_report() {
    require!(Feature::Overlay, Feature::Program("bash"));
    let environment = Environment::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it has an address").port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    let blocked = tentative(&environment, &["run", "bash", "-c", &script]);
    assert_eq!(blocked.status.code(), Some(1));
    assert!(said(&blocked).contains("blocked     world   connect"), "{}", said(&blocked));
    assert!(said(&blocked).contains(&format!("--allow net:127.0.0.1:{port}")), "{}", said(&blocked));
    assert!(said(&blocked).contains("safe to roll back"), "{}", said(&blocked));
    let rule = format!("net:127.0.0.1:{port}");
    let allowed = tentative(&environment, &["run", "--allow", &rule, "bash", "-c", &script]);
    assert_eq!(allowed.status.code(), Some(0), "{}", said(&allowed));
    assert!(said(&allowed).contains("escaped     world   connect"), "{}", said(&allowed));
    assert!(said(&allowed).contains("not safe to roll back"), "{}", said(&allowed));
}

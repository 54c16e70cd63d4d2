//! `tentative run` without a terminal: modes, exit statuses, streams, the document; real programs in real sandboxes.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;
use tentative::files::name;
use tentative_testkit::{Feature, Tool, require, schema::violations};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

#[track_caller]
fn assert_nothing_left(tool: &Tool) {
    assert_eq!(tool.list(), Vec::<Value>::new());
    let left: Vec<_> = fs::read_dir(tool.environment.store())
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
        let tool = Tool::new(TENTATIVE);
        let script = format!("echo text > made; exit {status}");
        let output = tool.run(&["run", mode, "--", "sh", "-c", &script]);
        assert_eq!(output.status.code(), Some(status), "{mode}: {}", output.said);
        assert_eq!(
            tool.environment.work().join("made").exists(),
            committed,
            "{mode} {status}: {}",
            output.said
        );
        assert_eq!(tool.list().len(), pending, "{mode} {status}");
        assert!(output.printed.is_empty(), "standard output is the program's");
    }
}

#[test]
fn without_a_terminal_it_is_kept() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let output = tool.run(&["run", "touch", "made"]);
    let pending = tool.list();
    assert_eq!(pending.len(), 1);
    let id = pending[0]["id"].as_str().expect("it has an id");
    output.says(&format!("tentative commit {id}"));
}

#[test]
fn nothing_changed_keeps_nothing() {
    require!(Feature::Overlay);
    for mode in ["--keep", "--commit", "--rollback"] {
        let tool = Tool::new(TENTATIVE);
        tool.run(&["run", mode, "cat", "/etc/hostname"]).ended(0).says("nothing was changed");
        assert_nothing_left(&tool);
    }
}

#[test]
fn the_programs_status_and_signal_are_ours() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    for status in [0, 1, 42, 255] {
        tool.run(&["run", "sh", "-c", &format!("exit {status}")]).ended(status);
    }
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("INT", 2), ("PIPE", 13)] {
        let output = tool.run(&["run", "sh", "-c", &format!("kill -{name} $$")]);
        assert_eq!(output.status.signal(), Some(number), "{name}: {}", output.said);
        assert!(!output.status.core_dumped());
    }
}

#[test]
fn streams_are_the_programs_own() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    tool.environment.write("input", "from outside\n");
    let script = format!("{TENTATIVE} run --rollback sh -c 'cat; echo error >&2' < input");
    let output = tool.other("sh", &["-c", &script]);
    assert_eq!(output.printed, "from outside\n");
    assert!(output.said.starts_with("error\n"), "{}", output.said);
}

#[test]
fn inside_there_is_an_id_and_the_same_directory_and_user() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let script = "echo ${#TENTATIVE_ID}; pwd; id -u; id -g; echo $HOME";
    let inside = tool.run(&["run", "sh", "-c", script]);
    let outside = tool
        .environment
        .command("sh")
        .args(["-c", script])
        .env("TENTATIVE_ID", "12345678")
        .output()
        .expect("a shell");
    assert_eq!(inside.printed.as_bytes(), outside.stdout);
}

#[test]
fn a_shell_is_started_without_a_program() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let script = format!("echo 'echo $((40 + 2)); exit 5' | SHELL=/bin/sh {TENTATIVE} run");
    let output = tool.other("sh", &["-c", &script]);
    assert_eq!(output.printed, "42\n", "{}", output.said);
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn programs_that_cannot_be_started_are_told_apart() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let plain = tool.environment.write("plain", "#!/bin/sh\necho ran\n");
    let broken = tool.environment.write("broken", "#!/no/such/interpreter\n");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let shown = |path: &Path| path.display().to_string();
    for (program, status, expected) in [
        ("no-such-program", 127, "program not found: no-such-program"),
        ("./no-such-program", 127, "program not found: ./no-such-program"),
        (&shown(&plain), 126, "may not be executed"),
        (&shown(&broken), 126, "names an interpreter that is not there"),
        (&shown(&tool.environment.work()), 126, "is a directory"),
    ] {
        let output = tool.run(&["run", "--", program]);
        assert_eq!(output.status.code(), Some(status), "{program}: {}", output.said);
        assert!(output.said.contains(expected), "{program}: {}", output.said);
        assert!(output.said.contains("\nhint: "), "{program}: {}", output.said);
        assert_nothing_left(&tool);
    }
}

#[test]
fn a_script_without_a_first_line_is_run_by_sh_as_execvp_does() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let script = tool.environment.write("script", "echo ran by sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let output = tool.run(&["run", "--", "./script"]);
    assert_eq!(output.printed, "ran by sh\n", "{}", output.said);
}

#[test]
fn the_time_limit_ends_the_program() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let began = Instant::now();
    let output = tool.run(&["run", "--timeout", "300ms", "sh", "-c", "echo x > made; sleep 60"]);
    assert_eq!(output.status.code(), Some(124), "{}", output.said);
    assert!(began.elapsed() < Duration::from_secs(5));
    output.says("its time was over");
    assert_eq!(tool.list().len(), 1, "the work is kept");
}

#[test]
fn a_program_that_ignores_the_time_limit_is_killed() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let script = "trap '' TERM; while :; do sleep 1; done";
    tool.run(&["run", "--timeout", "100ms", "sh", "-c", script]).ended(124);
    assert_nothing_left(&tool);
}

#[test]
fn the_memory_limit_is_kept_and_its_means_named() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let script = "head -c 300000000 /dev/zero | tail -n 1 | wc -c";
    let output =
        tool.run(&["run", "--memory-limit", "100M", "sh", "-c", script]).says("memory limit: RLIMIT_AS");
    assert!(output.said.contains("memory exhausted") || output.said.contains("allocate"), "{}", output.said);
}

#[test]
fn held_output_is_delivered_by_the_commit() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let script = "echo out; echo err >&2; echo text > made";
    let output = tool.run(&["run", "--output", "hold", "sh", "-c", script]);
    assert!(output.printed.is_empty() && !output.said.contains("err\n"), "{output:?}");
    let shown = tool.run(&["show", "--output"]);
    assert_eq!((shown.printed.as_str(), shown.said.as_str()), ("out\n", "err\n"));
    let committed = tool.run(&["commit"]);
    assert_eq!(committed.printed, "out\n");
    assert!(committed.said.starts_with("err\n"), "{}", committed.said);

    let output = tool.run(&["run", "--output", "hold", "--rollback", "sh", "-c", script]);
    assert!(output.printed.is_empty(), "held output goes with a rollback");
    // Output alone is something to decide about.
    let output = tool.run(&["run", "--output", "hold", "--commit", "echo", "only"]);
    assert_eq!(output.printed, "only\n", "{}", output.said);
    assert_nothing_left(&tool);
}

#[test]
fn held_output_is_in_the_report() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let output = tool.run(&["run", "--output", "hold", "echo", "only"]).ended(0);
    let output = output.says("  held        process write standard output (5 bytes)\n");
    let id = tool.list()[0]["id"].as_str().expect("it is listed").to_owned();
    output.says(&format!("hint: 'tentative show --output {id}' prints what is held"));
    for mode in ["--commit", "--rollback"] {
        let output = tool.run(&["run", mode, "--output", "hold", "echo", "only"]).ended(0);
        let output = output.says("  held        process write standard output (5 bytes)\n");
        assert!(!output.said.contains("tentative show"), "{mode}: {}", output.said);
    }
}

#[test]
fn a_renamed_file_is_not_taken_for_an_unchanged_one() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let work = tool.environment.work();
    let renamed = |script: &str| {
        let file = |name: &str, text: &str| fs::write(work.join(name), text).expect("write");
        file("a", "one\ntwo\n");
        file("b", "other\n");
        tool.run(&["run", "sh", "-c", script]).ended(0)
    };
    renamed("mv a c").says("c  was ").says("/a; file 0644 8 B\n");
    assert!(tool.run(&["diff"]).printed.lines().count() == 3, "no content");
    let is_root = tentative_testkit::feature::is_root();
    let changed = renamed("mv a c; printf 'one\\n2wo\\n' > c");
    let diff = tool.run(&["diff"]).printed;
    if is_root {
        changed.says("/a; file 0644 8 B, other content\n");
        assert!(diff.ends_with("@@ -1,2 +1,2 @@\n one\n-two\n+2wo\n"), "{diff}");
    } else {
        // His overlays do not say what a file was that is changed.
        changed.says("deleted   ").says("created   ");
        assert!(diff.contains("+2wo\n"), "{diff}");
    }
    renamed("mv a c; chmod 755 c").says("/a; file 0755 8 B, was file 0644 8 B\n");
    let over = renamed("mv a b");
    match is_root {
        true => over.says("/a; file 0644 8 B, in place of file 0644 6 B\n"),
        // Nor which one it was that took the place of another.
        false => over.says("deleted   ").says("file 0644 6 B -> file 0644 8 B\n"),
    };
}

#[test]
fn show_judges_by_what_others_have_changed_since() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let file = tool.environment.work().join("file");
    fs::write(&file, "before").expect("write");
    let id = tool.keep("echo inside > file");
    tool.run(&["show", &id]).ended(0);
    assert_eq!(tool.run(&["show", "--json"]).document()["verdict"]["commit"]["safe"], true);
    fs::write(&file, "by others").expect("write");
    let document = tool.run(&["show", "--json"]).document();
    assert_eq!(document["verdict"]["commit"]["safe"], false, "{document:#}");
}

#[test]
fn layers_are_gone_without_by_name() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let output = tool.run(&["run", "--without", "files", "touch", "made"]).ended(0);
    assert!(tool.environment.work().join("made").exists(), "not contained, as asked");
    output
        .says("changes: not known: files were not contained\n")
        .says("containment: partial\n  files: ")
        .says("what it did to files is in place, so there is nothing to decide\n");
    tool.run(&["run", "--without", "files,kin,world", "true"]).ended(0);
    assert_nothing_left(&tool);
}

#[test]
fn the_record_is_written_with_its_last_state() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/json/record.schema.json");
    let schema = serde_json::from_str(&fs::read_to_string(schema).expect("it is there")).expect("it is JSON");
    let file = tool.environment.root().join("record.json");
    let name = file.display().to_string();
    for (mode, state) in [("--commit", "committed"), ("--keep", "pending"), ("--rollback", "rolled-back")] {
        let script = format!("date > made; rm -f old; echo {state}; exec 3<>/dev/tcp/127.0.0.1/1");
        let output = tool.run(&["run", mode, "--json", &name, "bash", "-c", &script]);
        let document: Value =
            serde_json::from_slice(&fs::read(&file).expect("it was written")).expect("it is JSON");
        assert_eq!(violations(&schema, &document), Vec::<String>::new());
        // The program failed to connect, so `--commit` keeps it.
        let expected = if mode == "--commit" { "pending" } else { state };
        assert_eq!(document["state"], expected, "{}", output.said);
        assert_eq!(document["exit_status"], 1);
        let effects = document["effects"].as_array().expect("effects are a list");
        assert!(effects.iter().any(|effect| effect["class"] == "blocked"), "{document:#}");
    }
    let shown = tool.run(&["show", "--json"]);
    let document = shown.document();
    assert_eq!(violations(&schema, &document), Vec::<String>::new());
}

#[test]
fn a_renamed_directory_is_told_as_one() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let work = tool.environment.work();
    fs::create_dir_all(work.join("was/deep/empty")).expect("make");
    fs::write(work.join("was/deep/file"), "text").expect("write");
    fs::write(work.join("was/other"), "text").expect("write");
    let all = "/is/  was ";
    tool.run(&["run", "--rollback", "mv", "was", "is"])
        .says("changes: 5 renamed\n")
        .says(all)
        .says("/was; directory 0755, with 4 entries below\n");
    // What is not as it was is told besides, and nothing that is gone is left out.
    tool.run(&["run", "--rollback", "sh", "-c", "mv was is; touch is/new; chmod 700 is/deep; rm is/other"])
        .says("changes: 1 deleted, 4 renamed, 1 created\n")
        .says("/was/other  file 0644 4 B\n")
        .says("/was/deep; directory 0700, was directory 0755")
        .says("/is/new  file 0644 0 B\n");
    // One that stays has not become another.
    let stays = tool.run(&["run", "--commit", "sh", "-c", "mkdir is; mv was/other is/other"]);
    let stays = stays.says("changes: 1 renamed, 1 created\n").says("/is/other  was ");
    assert!(!stays.said.contains(all), "{}", stays.said);
    assert_eq!(fs::read_to_string(work.join("is/other")).expect("it was committed"), "text");
}

#[test]
fn documents_have_every_path_to_the_byte() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let work = tool.environment.work();
    let names: [&[u8]; 5] = [b"plain", b"a\\x0ab", b"a\nb", b"a\xffb", b"a\\xffb"];
    fs::write(work.join(OsStr::from_bytes(b"was\x01")), "text").expect("write");
    let script = r"touch plain 'a\x0ab' $'a\nb' $'a\xffb' 'a\xffb'; mv $'was\x01' $'is\x02'";
    tool.run(&["run", "--keep", "bash", "-c", script]).ended(0);
    let document = tool.run(&["show", "--json"]).document();
    let changes = document["changes"].as_array().expect("changes are a list");
    let exact =
        |text: &Value, hex: &Value| hex.as_str().map_or_else(|| Some(text.as_str()?.into()), name::from_hex);
    let paths: BTreeSet<PathBuf> =
        changes.iter().filter_map(|change| exact(&change["path"], &change["path_hex"])).collect();
    for name in names.into_iter().chain([&b"is\x02"[..]]) {
        assert!(paths.contains(&work.join(OsStr::from_bytes(name))), "{name:?}: {document:#}");
    }
    for change in changes.iter().filter(|change| change["kind"] == "renamed") {
        let old = exact(&change["before"], &change["before_hex"]);
        assert_eq!(old, Some(work.join(OsStr::from_bytes(b"was\x01"))), "{document:#}");
    }
}

#[test]
fn a_record_that_cannot_be_written_is_an_error_before_the_program_runs() {
    let tool = Tool::new(TENTATIVE);
    tool.run(&["run", "--json", "/no/such/place", "--", "touch", "made"])
        .ended(125)
        .says("cannot write /no/such/place");
    assert!(tool.list().is_empty());
}

#[test]
fn without_a_record_what_was_there_stays() {
    let tool = Tool::new(TENTATIVE);
    let file = tool.environment.root().join("record.json");
    fs::write(&file, "older").expect("write");
    tool.run(&["run", "--json", &file.display().to_string(), "--", "no-such-program"]).ended(127);
    assert_eq!(fs::read_to_string(&file).expect("read"), "older");
    let beside = fs::read_dir(tool.environment.root()).expect("list");
    assert!(
        beside.filter_map(Result::ok).all(|entry| !entry.file_name().to_string_lossy().contains(".new-"))
    );
}

#[test]
fn confirm_is_refused_with_the_alternative() {
    let tool = Tool::new(TENTATIVE);
    let output = tool.run(&["run", "--confirm", "net", "true"]).ended(125);
    assert!(output.said.contains("--confirm is not supported by this version\nhint: "), "{}", output.said);
}

#[test]
fn what_escapes_is_in_the_report() {
    require!(Feature::Overlay, Feature::Program("bash"));
    let tool = Tool::new(TENTATIVE);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it has an address").port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    tool.run(&["run", "bash", "-c", &script])
        .ended(1)
        .says("blocked     world   connect")
        .says(&format!("--allow net:127.0.0.1:{port}"))
        .says("safe to roll back");
    let denied = format!("net:127.0.0.1:{port}");
    let output = tool.run(&["run", "--allow", "net:127.0.0.0/8", "--deny", &denied, "bash", "-c", &script]);
    let output = output.ended(1).says("blocked     world   connect");
    assert!(!output.said.contains(&format!("--allow {denied}")), "{}", output.said);
    let rule = format!("net:127.0.0.1:{port}");
    let script = format!("{script}; echo text > made");
    tool.run(&["run", "--allow", &rule, "bash", "-c", &script])
        .ended(0)
        .says("escaped     world   connect")
        .says("not safe to roll back")
        .says("none of its changes is in place, but 1 effect cannot be taken back");
    let output = tool.run(&["rollback"]).ended(0);
    assert!(output.said.ends_with("; none of its changes is in place, but 1 effect cannot be taken back\n"));
}

/// As runners inside leave it when they are killed with the program: in a directory that was there, and in a new one.
#[test]
fn what_runners_inside_leave_is_no_change() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let work = tool.environment.work();
    let script = format!(
        "mkdir -p tree; for at in . tree; do mkdir -m 700 $at/.tentative-7 $at/.tentative-7/0123abcd
         : > $at/.tentative-7/0123abcd.owner; TENTATIVE_HOME=$PWD/$at/store {TENTATIVE} list; done; echo x > tree/kept"
    );
    tool.run(&["run", "--commit", "--", "sh", "-ec", &script]).ended(0).says("changes: 2 created");
    let names = |path: &Path| -> Vec<_> {
        fs::read_dir(path)
            .expect("it is there")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    };
    assert_eq!((names(&work), names(&work.join("tree"))), (vec!["tree".to_owned()], vec!["kept".to_owned()]));
    // What only looks like it is a program's own.
    let script = "mkdir -m 700 .tentative-7; echo x > .tentative-7/mine; mkdir -m 755 .tentative-8";
    tool.run(&["run", "--commit", "--", "sh", "-ec", script]).ended(0);
    assert!(work.join(".tentative-7/mine").exists() && work.join(".tentative-8").exists());
}

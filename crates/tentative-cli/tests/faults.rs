//! What can go wrong with a decision or a machine: each is an error that names the cause and the way out, and the work is
//! kept.

use std::{fs, os::unix::fs::PermissionsExt, process::Output};

use serde_json::Value;
use tentative_testkit::{Environment, Feature, require, schema::violations};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

fn tentative(environment: &Environment, arguments: &[&str]) -> Output {
    environment.command(TENTATIVE).args(arguments).output().expect("tentative starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a script, keeps it, and returns the id.
fn keep(environment: &Environment, script: &str) -> String {
    let output = tentative(environment, &["run", "--keep", "sh", "-c", script]);
    let said = said(&output);
    let (_, after) = said.split_once("kept as ").unwrap_or_else(|| panic!("it is kept: {said}"));
    after.chars().take(8).collect()
}

fn pending(environment: &Environment) -> usize {
    let output = tentative(environment, &["list", "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).expect("the list is JSON");
    list["transactions"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_second_decision_about_the_same_transaction_is_refused() {
    require!(Feature::Overlay);
    for (first, second) in [("commit", "commit"), ("commit", "rollback"), ("rollback", "commit")] {
        let environment = Environment::new();
        let id = keep(&environment, "echo text > made");
        assert_eq!(tentative(&environment, &[first, &id]).status.code(), Some(0));
        let output = tentative(&environment, &[second, &id]);
        assert_eq!(output.status.code(), Some(125), "{}", said(&output));
        assert!(said(&output).contains(&format!("no transaction '{id}'\nhint: ")), "{}", said(&output));
    }
}

#[test]
fn several_pending_ones_are_listed() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let ids = [keep(&environment, "echo > one"), keep(&environment, "echo > two")];
    for verb in ["commit", "rollback"] {
        let output = tentative(&environment, &[verb]);
        assert_eq!(output.status.code(), Some(125));
        assert!(said(&output).contains("2 transactions are pending; which one?"), "{}", said(&output));
        assert!(ids.iter().all(|id| said(&output).contains(id.as_str())), "{}", said(&output));
    }
    // The latest is shown without a question.
    let shown = tentative(&environment, &["show"]);
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with(&ids[1]), "{shown:?}");
    assert_eq!(pending(&environment), 2);
}

#[test]
fn a_beginning_of_an_id_is_enough_unless_it_is_ambiguous() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let mut ids: Vec<String> = Vec::new();
    // Two of 17 begin with the same digit.
    while ids.len() < 17 {
        ids.push(keep(&environment, &format!("echo > made{}", ids.len())));
        let first = |id: &String| id.chars().next();
        let last = ids.last().and_then(first);
        if ids.iter().filter(|id| first(id) == last).count() == 2 {
            break;
        }
    }
    let last = ids.pop().expect("at least one was made");
    let ambiguous = tentative(&environment, &["rollback", &last[..1]]);
    assert_eq!(ambiguous.status.code(), Some(125));
    assert!(
        said(&ambiguous).contains("is ambiguous") && said(&ambiguous).contains(&last),
        "{}",
        said(&ambiguous)
    );
    let unique = (1..=8).find(|&length| !ids.iter().any(|id| id.starts_with(&last[..length])));
    let unique = &last[..unique.expect("ids differ")];
    assert_eq!(tentative(&environment, &["rollback", unique]).status.code(), Some(0));
    assert_eq!(pending(&environment), ids.len());
}

#[test]
fn a_conflict_names_each_path_and_keeps_the_work() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let file = environment.write("file", "old\n");
    environment.write("gone", "old\n");
    let id = keep(&environment, "echo ours > file; echo ours > new; echo ours > gone");
    fs::write(&file, "theirs\n").expect("the file is ours");
    environment.write("new", "theirs\n");
    fs::remove_file(environment.work().join("gone")).expect("the file is ours");
    let output = tentative(&environment, &["commit", "--json", &id]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(120), "{said}");
    for expected in [
        "cannot be committed; nothing was changed",
        "file was changed by others meanwhile",
        "new was made by others meanwhile",
        "gone was removed by others meanwhile",
        &format!("hint: the work is kept as {id}"),
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let document: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(
        (document["state"].as_str(), document["refused"]["reasons"].as_array().map(Vec::len)),
        (Some("pending"), Some(3))
    );
    let schema = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference/json/decision.schema.json");
    let schema = serde_json::from_str(&fs::read_to_string(schema).expect("it is there")).expect("it is JSON");
    assert_eq!(violations(&schema, &document), Vec::<String>::new());
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "theirs\n");
    assert_eq!(pending(&environment), 1);
    // The way out works.
    fs::remove_file(environment.work().join("new")).expect("the file is ours");
    assert_eq!(tentative(&environment, &["rollback", &id]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "theirs\n");
}

#[test]
fn a_conflict_in_a_run_that_commits_keeps_the_work() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let file = environment.write("file", "old\n");
    // Somebody outside, while the program runs: it waits for the change that it cannot see coming.
    let script = format!(
        "{TENTATIVE} run --commit sh -c 'echo ours > file; touch ready; sleep 2' & sleep 1; echo theirs > {}; wait $!",
        file.display()
    );
    let output = environment.command("sh").args(["-c", &script]).output().expect("there is a shell");
    assert_eq!(output.status.code(), Some(120), "{}", said(&output));
    assert!(said(&output).contains("not safe to commit"), "{}", said(&output));
    assert!(said(&output).contains("hint: the work is kept as "), "{}", said(&output));
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "theirs\n");
    assert_eq!(pending(&environment), 1);
}

#[test]
fn a_transaction_that_runs_cannot_be_decided() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let mut running = environment
        .command(TENTATIVE)
        .args(["run", "--rollback", "sh", "-c", "echo ready; read line; exit 0"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("tentative starts");
    let mut ready = [0_u8; 6];
    std::io::Read::read_exact(running.stdout.as_mut().expect("a pipe"), &mut ready).expect("it runs");
    let listed = tentative(&environment, &["list", "--json"]);
    let list: Value = serde_json::from_slice(&listed.stdout).expect("the list is JSON");
    let id = list["transactions"][0]["id"].as_str().expect("it is listed").to_owned();
    assert_eq!(list["transactions"][0]["state"], "running");
    for verb in ["commit", "rollback"] {
        let output = tentative(&environment, &[verb, &id]);
        assert_eq!(output.status.code(), Some(125), "{}", said(&output));
        assert!(said(&output).contains("is running or in use"), "{}", said(&output));
    }
    drop(running.stdin.take());
    assert!(running.wait().expect("it ends").success());
}

#[test]
fn without_user_namespaces_the_remedy_is_named() {
    require!(Feature::UserNamespaces);
    let environment = Environment::new();
    let script = format!("echo 0 > /proc/sys/user/max_user_namespaces && exec {TENTATIVE} run touch made");
    let output = environment
        .command("unshare")
        .args(["-Ur", "sh", "-c", &script])
        .output()
        .expect("there is an unshare");
    assert_eq!(output.status.code(), Some(122), "{}", said(&output));
    assert!(said(&output).contains("hint: 'tentative doctor' finds out"), "{}", said(&output));
    assert!(said(&output).contains("--without files,kin,world"), "{}", said(&output));
    assert!(!environment.work().join("made").exists(), "it did not run");
    assert_eq!(pending(&environment), 0);
}

/// Runs a script on a file system of 2 MB that holds the store as well. Root only.
fn on_a_small_disk(environment: &Environment, script: &str) -> String {
    let script = format!(
        "exec 2>&1; mkdir small && mount -t tmpfs -o size=2m tmpfs small && cd small && \
         export TENTATIVE_HOME=$PWD/.store && {script}"
    );
    with_tentative(environment, &script)
}

#[test]
fn a_disk_that_gets_full_inside_is_the_programs_error_and_the_work_is_kept() {
    require!(Feature::Overlay, Feature::Root);
    let environment = Environment::new();
    let printed = on_a_small_disk(
        &environment,
        "echo old > file; head -c 100000 /dev/zero > filler; \
         tentative run --keep sh -c 'echo new > file; cat /dev/zero > big; echo last > last'; echo status $?; \
         cat file; rm filler; tentative list; tentative diff | head -3; tentative commit; echo status $?; \
         cat file; ls -A",
    );
    assert!(printed.contains("No space left on device"), "{printed}");
    assert!(printed.contains("kept as ") && printed.contains("\nstatus 1\nold\n"), "{printed}");
    assert!(printed.ends_with("\nstatus 0\nnew\n.store\nbig\nfile\nlast\n"), "{printed}");
}

/// Runs a program that has changed a file when its store, a disk of its own, is filled; `then` goes on after it.
/// Root only.
fn with_a_store_that_fills_up(environment: &Environment, mode: &str, script: &str, then: &str) -> String {
    environment.write("file", "old\n");
    let script = format!(
        "exec 2>&1; mkdir store && mount -t tmpfs -o size=1m tmpfs store && export TENTATIVE_HOME=$PWD/store; \
         (sleep 1; cat /dev/zero > store/filler 2> /dev/null) & \
         tentative run {mode} sh -c '{script}'; echo status $?; wait; cat file; {then}"
    );
    with_tentative(environment, &script)
}

/// Runs a shell script that can say `tentative`, in a mount namespace of its own.
fn with_tentative(environment: &Environment, script: &str) -> String {
    let tool = std::path::Path::new(TENTATIVE).parent().expect("the executable is in a directory");
    let path = format!("{}:{}", tool.display(), tentative_testkit::environment::PATH);
    let output = environment
        .command("unshare")
        .args(["-m", "sh", "-c", script])
        .env("PATH", path)
        .output()
        .expect("there is an unshare");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_store_that_fills_up_meanwhile_keeps_the_work() {
    require!(Feature::Overlay, Feature::Root);
    // Few changes fit into the room that was set aside; the list of many does not.
    for count in [1, 2000] {
        for mode in ["--keep", "--commit"] {
            let environment = Environment::new();
            let script = format!(
                "echo new > file; mkdir many; for i in $(seq {count}); do echo > many/a-file-that-has-a-long-name-$i; \
                 done; sleep 2"
            );
            let printed = with_a_store_that_fills_up(
                &environment,
                mode,
                &script,
                "tentative list; rm store/filler; tentative commit; echo status $?; cat file; ls many | wc -l",
            );
            // A commit may still find room in what was set aside.
            let committed = mode == "--commit" && printed.contains("\nstatus 0\nnew\nnothing is pending\n");
            let kept =
                printed.contains(if mode == "--keep" { "\nstatus 0\nold\n" } else { "\nstatus 120\nold\n" })
                    && !printed.contains("nothing is pending")
                    && printed.contains("\nstatus 0\nnew\n");
            assert!(committed || kept, "{mode} {count}: {printed}");
            assert!(printed.ends_with(&format!("\nnew\n{count}\n")), "{mode} {count}: {printed}");
        }
    }
}

#[test]
fn a_commit_that_has_no_room_is_refused_and_works_later() {
    require!(Feature::Overlay, Feature::Root);
    let environment = Environment::new();
    // A file with two names is written in place, which needs room for what it grows by.
    let printed = on_a_small_disk(
        &environment,
        "head -c 400000 /dev/zero > file; ln file twin; \
         tentative run --keep sh -c 'head -c 400000 /dev/zero >> file' > /dev/null; \
         cat /dev/zero > filler; tentative commit; echo status $?; wc -c file; tentative list; \
         rm filler; tentative commit; echo status $?; wc -c twin; ls -A",
    );
    assert!(printed.contains("\nstatus 120\n400000 file\n"), "{printed}");
    assert!(printed.contains("hint: the work is kept as "), "{printed}");
    assert!(printed.contains("\nstatus 0\n800000 twin\n"), "{printed}");
}

#[test]
fn a_store_that_is_full_before_the_run_is_named() {
    require!(Feature::Overlay, Feature::Root);
    let environment = Environment::new();
    let script = format!(
        "mkdir small && mount -t tmpfs -o size=64k tmpfs small && export TENTATIVE_HOME=$PWD/small && \
         head -c 100000 /dev/zero > small/filler 2>/dev/null; exec {TENTATIVE} run touch made"
    );
    let output = environment
        .command("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .expect("there is an unshare");
    assert_eq!(output.status.code(), Some(122), "{}", said(&output));
    assert!(said(&output).contains("hint: the disk is full: free some space"), "{}", said(&output));
    assert!(!environment.work().join("made").exists());
}

#[test]
fn what_the_user_may_not_change_is_refused_and_kept() {
    require!(Feature::Overlay, Feature::OrdinaryUser);
    let environment = Environment::new();
    environment.write("closed/file", "old\n");
    let id = keep(&environment, "echo new > closed/file; echo > closed/other");
    let closed = environment.work().join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).expect("the directory is ours");
    let output = tentative(&environment, &["commit", &id]);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("the directory is ours");
    assert_eq!(output.status.code(), Some(120), "{}", said(&output));
    assert_eq!(pending(&environment), 1);
}

#[test]
fn kill_9_of_the_runner_leaves_nothing_after_the_next_start() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let mut running = environment
        .command(TENTATIVE)
        .args(["run", "sh", "-c", "echo text > made; echo ready; sleep 60"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("tentative starts");
    let mut ready = [0_u8; 6];
    std::io::Read::read_exact(running.stdout.as_mut().expect("a pipe"), &mut ready).expect("it runs");
    running.kill().expect("it is ours");
    running.wait().expect("it ended");
    let output = tentative(&environment, &["list"]);
    assert!(said(&output).contains("its process had died; discarded"), "{}", said(&output));
    assert!(said(&output).ends_with("nothing is pending\n"), "{}", said(&output));
    assert!(!environment.work().join("made").exists());
}

#[test]
fn what_a_deleted_store_has_left_elsewhere_is_swept_and_nothing_else() {
    require!(Feature::Overlay, Feature::Root);
    let environment = Environment::new();
    // Three stores with something pending on the same file system: one is deleted by hand, one is there, one is on a disk
    // that is elsewhere for a while. Of a fourth, which is deleted, something runs.
    let script = "exec 2>&1; mkdir other away hidden; mount -t tmpfs tmpfs other; mount -t tmpfs tmpfs hidden; cd other; \
         export TENTATIVE_HOME; \
         for store in gone there hidden; do TENTATIVE_HOME=$OLDPWD/$store; tentative run --keep touch of-$store; done; \
         TENTATIVE_HOME=$OLDPWD/running; tentative run --keep sh -c 'echo runs > of-running; sleep 4' & \
         sleep 2; \
         rm -rf $OLDPWD/gone $OLDPWD/running; mount --move $OLDPWD/hidden $OLDPWD/away; \
         TENTATIVE_HOME=$OLDPWD/there; \
         echo before $(ls .tentative-0 | wc -l); tentative doctor | grep 'stores that are gone'; \
         tentative recover; echo after $(ls .tentative-0 | wc -l); wait; tentative recover; \
         echo last $(ls .tentative-0 | wc -l); \
         mount --move $OLDPWD/away $OLDPWD/hidden; \
         tentative commit; TENTATIVE_HOME=$OLDPWD/hidden tentative commit; ls -A";
    let printed = with_tentative(&environment, script);
    assert!(printed.contains("\nbefore 8\nwithout  nothing is left of stores that are gone: "), "{printed}");
    assert!(printed.contains("/gone is gone; what it had on another file system is removed\n"), "{printed}");
    assert!(!printed.contains("/hidden is gone"), "{printed}");
    assert!(printed.contains("\nafter 6\n") && printed.contains("\nlast 4\n"), "{printed}");
    assert!(printed.ends_with("\nof-hidden\nof-there\n"), "{printed}");
}

#[test]
fn kill_9_of_a_runner_without_kin_leaves_no_process_after_the_next_start() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    // A sleep that nothing else on this machine sleeps for, in a session of its own.
    let seconds = format!("1{}.5", std::process::id());
    let script = format!("setsid sleep {seconds} & echo ready; sleep {seconds}");
    let mut running = environment
        .command(TENTATIVE)
        .args(["run", "--without", "kin", "sh", "-c", &script])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("tentative starts");
    let mut ready = [0_u8; 6];
    std::io::Read::read_exact(running.stdout.as_mut().expect("a pipe"), &mut ready).expect("it runs");
    let sleeping = || {
        let entries = fs::read_dir("/proc").expect("it is mounted").flatten();
        let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(format!("sleep\0{seconds}\0").as_bytes())).count()
    };
    // Both are there a moment after the word.
    for _ in 0..100 {
        if sleeping() == 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(sleeping(), 2);
    running.kill().expect("it is ours");
    running.wait().expect("it ended");
    let output = tentative(&environment, &["list"]);
    assert!(said(&output).contains("its process had died; discarded"), "{}", said(&output));
    assert_eq!(sleeping(), 0);
}

#[test]
fn what_is_kept_can_be_mounted_again() {
    require!(Feature::Overlay, Feature::Root);
    let environment = Environment::new();
    let id = keep(&environment, "echo text > made");
    let plan = fs::read_to_string(environment.store().join(&id).join("plan.json")).expect("there is a plan");
    let plan: Value = serde_json::from_str(&plan).expect("it is JSON");
    let covers = plan["covers"].as_array().expect("a list");
    let holds = |cover: &&Value| {
        let path = cover["path"].as_str().expect("a path");
        cover["kind"]["kind"] == "overlay" && environment.work().starts_with(path)
    };
    let cover = covers.iter().filter(holds).max_by_key(|cover| cover["path"].as_str().map(str::len));
    let cover = cover.expect("the work directory is covered");
    let part = |name: &str| cover["kind"][name].as_str().expect("a path").to_owned();
    let below = environment
        .work()
        .strip_prefix(cover["path"].as_str().expect("a path"))
        .expect("below it")
        .to_owned();
    let mount = format!(
        "mount -t overlay -o userxattr,lowerdir={},upperdir={},workdir={} overlay /mnt",
        part("lower"),
        part("upper"),
        part("work")
    );
    let script = format!("{mount} && cat /mnt/{}/made", below.display());
    let output =
        environment.command("unshare").args(["-m", "sh", "-c", &script]).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "text\n", "{}", said(&output));
    // With the mark the kernel refuses.
    let script = format!("mkdir -p {0}/work/incompat/volatile && {mount}", part("work"));
    let output =
        environment.command("unshare").args(["-m", "sh", "-c", &script]).output().expect("it starts");
    assert!(!output.status.success(), "the mark means something");
}

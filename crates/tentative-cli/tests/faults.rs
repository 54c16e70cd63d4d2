//! What can go wrong with a decision or a machine: each is an error that names the cause and the way out, and the work is
//! kept.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;
use tentative_testkit::{Feature, Tool, require, schema::violations};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

#[test]
fn a_second_decision_about_the_same_transaction_is_refused() {
    require!(Feature::Overlay);
    for (first, second) in [("commit", "commit"), ("commit", "rollback"), ("rollback", "commit")] {
        let tool = Tool::new(TENTATIVE);
        let id = tool.keep("echo text > made");
        tool.run(&[first, &id]).ended(0);
        tool.run(&[second, &id]).ended(125).says(&format!("no transaction '{id}'\nhint: "));
    }
}

#[test]
fn several_pending_ones_are_listed() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let ids = [tool.keep("echo > one"), tool.keep("echo > two")];
    for verb in ["commit", "rollback"] {
        let ran = tool.run(&[verb]).ended(125).says("2 transactions are pending; which one?");
        ran.says(&ids[0]).says(&ids[1]);
    }
    // The latest is shown without a question.
    let shown = tool.run(&["show"]);
    assert!(shown.printed.starts_with(&ids[1]), "{shown:?}");
    assert_eq!(tool.list().len(), 2);
}

#[test]
fn a_beginning_of_an_id_is_enough_unless_it_is_ambiguous() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let mut ids: Vec<String> = Vec::new();
    // Two of 17 begin with the same digit.
    while ids.len() < 17 {
        ids.push(tool.keep(&format!("echo > made{}", ids.len())));
        let first = |id: &String| id.chars().next();
        let last = ids.last().and_then(first);
        if ids.iter().filter(|id| first(id) == last).count() == 2 {
            break;
        }
    }
    let last = ids.pop().expect("at least one was made");
    tool.run(&["rollback", &last[..1]]).ended(125).says("is ambiguous").says(&last);
    let unique = (1..=8).find(|&length| !ids.iter().any(|id| id.starts_with(&last[..length])));
    let unique = &last[..unique.expect("ids differ")];
    tool.run(&["rollback", unique]).ended(0);
    assert_eq!(tool.list().len(), ids.len());
}

#[test]
fn a_conflict_names_each_path_and_keeps_the_work() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let file = tool.environment.write("file", "old\n");
    tool.environment.write("gone", "old\n");
    let id = tool.keep("echo ours > file; echo ours > new; echo ours > gone");
    fs::write(&file, "theirs\n").expect("the file is ours");
    tool.environment.write("new", "theirs\n");
    fs::remove_file(tool.environment.work().join("gone")).expect("the file is ours");
    let mut refused = tool.run(&["commit", "--json", &id]).ended(120);
    for expected in [
        "cannot be committed; nothing was changed",
        "file was changed by others meanwhile",
        "new was made by others meanwhile",
        "gone was removed by others meanwhile",
        &format!("hint: the work is kept as {id}"),
    ] {
        refused = refused.says(expected);
    }
    let document = refused.document();
    assert_eq!(
        (document["state"].as_str(), document["refused"]["reasons"].as_array().map(Vec::len)),
        (Some("pending"), Some(3))
    );
    let schema = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference/json/decision.schema.json");
    let schema = serde_json::from_str(&fs::read_to_string(schema).expect("it is there")).expect("it is JSON");
    assert_eq!(violations(&schema, &document), Vec::<String>::new());
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "theirs\n");
    assert_eq!(tool.list().len(), 1);
}

#[test]
fn what_others_made_or_locked_can_be_got_out_of_the_way() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let file = tool.environment.write("file", "old\n");
    let new = tool.environment.work().join("new");
    let id = tool.keep("echo ours > file; echo ours > new");
    fs::write(&new, "theirs\n").expect("a test may write there");
    let lock = fs::File::open(&file).expect("it is there");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("nobody else has it");
    let way_out =
        "move away what others made, wait until the locks are released and commit again, or roll back";
    tool.run(&["commit"]).ended(120).says(&format!("hint: the work is kept as {id}; {way_out}\n"));
    fs::rename(&new, new.with_extension("theirs")).expect("it is ours");
    let way_out = "wait until the locks are released and commit again, or roll back";
    tool.run(&["commit"]).ended(120).says(&format!("hint: the work is kept as {id}; {way_out}\n"));
    drop(lock);
    tool.run(&["commit"]).ended(0);
    for path in [&file, &new] {
        assert_eq!(fs::read_to_string(path).expect("it is there"), "ours\n");
    }
}

#[test]
fn what_others_changed_or_removed_takes_another_run() {
    require!(Feature::Overlay);
    for theirs in ["echo theirs >> file", "rm file", "mv file away; mv away file"] {
        let tool = Tool::new(TENTATIVE);
        tool.environment.write("file", "old\n");
        let run = "touch file; echo ours >> file";
        let id = tool.keep(run);
        tool.other("sh", &["-c", theirs]).ended(0);
        let way_out = format!(
            "run it again to have it on top of what others did; 'tentative diff {id}' shows what this run did, \
             'tentative rollback {id}' discards it\n"
        );
        tool.run(&["commit", &id]).ended(120).says(&format!("hint: the work is kept as {id}; {way_out}"));
        // Whatever is done to the file, it is not the one of before.
        tool.other("sh", &["-c", "echo old > file"]).ended(0);
        tool.run(&["commit", &id]).ended(120).says(&way_out);
        tool.environment.write("file", "theirs\n");
        let shown = tool.run(&["diff", &id]).ended(0);
        assert!(shown.printed.contains("\n+ours\n"), "{shown:?}");
        shown.says("note: ").says("/file was ").says("; it is compared with ");
        tool.run(&["run", "--commit", "sh", "-c", run]).ended(0);
        tool.run(&["rollback", &id]).ended(0);
        let file = tool.environment.work().join("file");
        assert_eq!(fs::read_to_string(file).expect("it is there"), "theirs\nours\n", "{theirs}");
    }
}

#[test]
fn a_conflict_in_a_run_that_commits_keeps_the_work() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let file = tool.environment.write("file", "old\n");
    // Somebody outside, while the program runs: it waits for the change that it cannot see coming.
    let script = format!(
        "{TENTATIVE} run --commit sh -c 'echo ours > file; touch ready; sleep 2' & sleep 1; echo theirs > {}; wait $!",
        file.display()
    );
    let refused = tool.other("sh", &["-c", &script]).ended(120);
    refused.says("not safe to commit").says("hint: the work is kept as ");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "theirs\n");
    assert_eq!(tool.list().len(), 1);
}

#[test]
fn a_transaction_that_runs_cannot_be_decided() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let mut running = tool.start(&["run", "--rollback", "sh", "-c", "echo ready; read line; exit 0"]);
    let listed = tool.list();
    let id = listed[0]["id"].as_str().expect("it is listed").to_owned();
    assert_eq!(listed[0]["state"], "running");
    for verb in ["commit", "rollback"] {
        tool.run(&[verb, &id]).ended(125).says("is running or in use");
    }
    drop(running.stdin.take());
    assert!(running.wait().expect("it ends").success());
}

#[test]
fn without_user_namespaces_the_remedy_is_named() {
    require!(Feature::UserNamespaces);
    let tool = Tool::new(TENTATIVE);
    let script = format!("echo 0 > /proc/sys/user/max_user_namespaces && exec {TENTATIVE} run touch made");
    let refused = tool.other("unshare", &["-Ur", "sh", "-c", &script]).ended(122);
    refused.says("hint: 'tentative doctor' finds out").says("--without files,kin,world");
    assert!(!tool.environment.work().join("made").exists(), "it did not run");
    assert_eq!(tool.list().len(), 0);
}

/// Runs a script on a file system of 2 MB that holds the store as well. Root only.
fn on_a_small_disk(tool: &Tool, script: &str) -> String {
    let script = format!(
        "exec 2>&1; mkdir small && mount -t tmpfs -o size=3m tmpfs small && cd small && \
         export TENTATIVE_HOME=$PWD/.store && {script}"
    );
    tool.with_mounts(&script).printed
}

#[test]
fn a_disk_that_gets_full_inside_is_the_programs_error_and_the_work_is_kept() {
    require!(Feature::Overlay, Feature::Root);
    let tool = Tool::new(TENTATIVE);
    let printed = on_a_small_disk(
        &tool,
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
fn with_a_store_that_fills_up(tool: &Tool, mode: &str, script: &str, then: &str) -> String {
    tool.environment.write("file", "old\n");
    let script = format!(
        "exec 2>&1; mkdir store && mount -t tmpfs -o size=1m tmpfs store && export TENTATIVE_HOME=$PWD/store; \
         (sleep 1; cat /dev/zero > store/filler 2> /dev/null) & \
         tentative run {mode} sh -c '{script}'; echo status $?; wait; cat file; {then}"
    );
    tool.with_mounts(&script).printed
}

/// A number of at most four digits as reports have it.
fn counted(number: u32) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

#[test]
fn a_store_that_fills_up_meanwhile_keeps_the_work() {
    require!(Feature::Overlay, Feature::Root);
    // Few changes fit into the room that was set aside; the list of many does not.
    for count in [1, 2000] {
        for mode in ["--keep", "--commit"] {
            let tool = Tool::new(TENTATIVE);
            let script = format!(
                "echo new > file; mkdir many; for i in $(seq {count}); do echo > many/a-file-that-has-a-long-name-$i; \
                 done; sleep 2"
            );
            let printed = with_a_store_that_fills_up(
                &tool,
                mode,
                &script,
                "tentative list; rm store/filler; tentative show > shown; tentative commit; echo status $?; cat file; \
                 ls many | wc -l",
            );
            // A commit may still find room in what was set aside.
            let committed = mode == "--commit" && printed.contains("\nstatus 0\nnew\nnothing is pending\n");
            let kept =
                printed.contains(if mode == "--keep" { "\nstatus 0\nold\n" } else { "\nstatus 120\nold\n" })
                    && !printed.contains("nothing is pending")
                    && printed.contains("\nstatus 0\nnew\n");
            assert!(committed || kept, "{mode} {count}: {printed}");
            if kept {
                // The list had no room; it is made again.
                let shown = fs::read_to_string(tool.environment.work().join("shown")).expect("it was shown");
                assert!(
                    shown.contains(&format!("changes: 1 modified, {} created\n", counted(count + 1))),
                    "{shown}"
                );
                assert!(printed.contains(&format!("  {}       0  sh -c", counted(count + 2))), "{printed}");
            }
            assert!(printed.ends_with(&format!("\nnew\n{count}\n")), "{mode} {count}: {printed}");
        }
    }
}

#[test]
fn a_commit_that_has_no_room_is_refused_and_works_later() {
    require!(Feature::Overlay, Feature::Root);
    let tool = Tool::new(TENTATIVE);
    // A file with two names is written in place, which needs room for what it grows by.
    let printed = on_a_small_disk(
        &tool,
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
    let tool = Tool::new(TENTATIVE);
    let script = format!(
        "mkdir small && mount -t tmpfs -o size=64k tmpfs small && export TENTATIVE_HOME=$PWD/small && \
         head -c 100000 /dev/zero > small/filler 2>/dev/null; exec {TENTATIVE} run touch made"
    );
    tool.with_mounts(&script).ended(122).says("hint: the disk is full: free some space");
    assert!(!tool.environment.work().join("made").exists());
}

#[test]
fn what_the_user_may_not_change_is_refused_and_kept() {
    require!(Feature::Overlay, Feature::OrdinaryUser);
    let tool = Tool::new(TENTATIVE);
    tool.environment.write("closed/file", "old\n");
    let id = tool.keep("echo new > closed/file; echo > closed/other");
    let closed = tool.environment.work().join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).expect("the directory is ours");
    let refused = tool.run(&["commit", &id]);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("the directory is ours");
    refused.ended(120);
    assert_eq!(tool.list().len(), 1);
}

#[test]
fn kill_9_of_the_runner_leaves_nothing_after_the_next_start() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let mut running = tool.start(&["run", "sh", "-c", "echo text > made; echo ready; sleep 60"]);
    running.kill().expect("it is ours");
    running.wait().expect("it ended");
    let listed = tool.run(&["list"]).says("its process had died; discarded");
    assert!(listed.said.ends_with("nothing is pending\n"), "{listed:?}");
    assert!(!tool.environment.work().join("made").exists());
}

#[test]
fn what_a_deleted_store_has_left_elsewhere_is_swept_and_nothing_else() {
    require!(Feature::Overlay, Feature::Root);
    let tool = Tool::new(TENTATIVE);
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
    let printed = tool.with_mounts(script).printed;
    assert!(printed.contains("\nbefore 8\nwithout  nothing is left of stores that are gone: "), "{printed}");
    assert!(printed.contains("/gone is gone; what it had on another file system is removed\n"), "{printed}");
    assert!(!printed.contains("/hidden is gone"), "{printed}");
    assert!(printed.contains("\nafter 6\n") && printed.contains("\nlast 4\n"), "{printed}");
    assert!(printed.ends_with("\nof-hidden\nof-there\n"), "{printed}");
}

#[test]
fn kill_9_of_a_runner_without_kin_leaves_no_process_after_the_next_start() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    // A sleep that nothing else on this machine sleeps for, in a session of its own.
    let seconds = format!("1{}.5", std::process::id());
    let script = format!("setsid sleep {seconds} & echo ready; sleep {seconds}");
    let mut running = tool.start(&["run", "--without", "kin", "sh", "-c", &script]);
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
    tool.run(&["list"]).says("its process had died; discarded");
    assert_eq!(sleeping(), 0);
}

#[test]
fn what_is_kept_can_be_mounted_again() {
    require!(Feature::Overlay, Feature::Root);
    let tool = Tool::new(TENTATIVE);
    let id = tool.keep("echo text > made");
    let plan =
        fs::read_to_string(tool.environment.store().join(&id).join("plan.json")).expect("there is a plan");
    let plan: Value = serde_json::from_str(&plan).expect("it is JSON");
    let covers = plan["covers"].as_array().expect("a list");
    let holds = |cover: &&Value| {
        let path = cover["path"].as_str().expect("a path");
        cover["kind"]["kind"] == "overlay" && tool.environment.work().starts_with(path)
    };
    let cover = covers.iter().filter(holds).max_by_key(|cover| cover["path"].as_str().map(str::len));
    let cover = cover.expect("the work directory is covered");
    let part = |name: &str| cover["kind"][name].as_str().expect("a path").to_owned();
    let below = tool
        .environment
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
    let mounted = tool.with_mounts(&script);
    assert_eq!(mounted.printed, "text\n", "{}", mounted.said);
    // With the mark the kernel refuses.
    let script = format!("mkdir -p {0}/work/incompat/volatile && {mount}", part("work"));
    assert!(!tool.with_mounts(&script).status.success(), "the mark means something");
}

#[test]
fn what_no_path_reaches_is_refused_kept_and_discarded() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let deep =
        "p=$(printf 'a-directory/%.0s' $(seq 250)); mkdir -p one/$p two/$p; mv two one/$p; echo > beside";
    let id = tool.keep(deep);
    tool.run(&["commit", &id])
        .ended(120)
        .says("is nested deeper than a path can name")
        .says(&format!("hint: the work is kept as {id}; 'tentative rollback {id}' discards it"));
    assert!(!tool.environment.work().join("beside").exists());
    tool.run(&["rollback", &id]).ended(0);
    tool.run(&["run", "--rollback", "--", "sh", "-c", deep]).ended(0).says("rolled back");
    assert_eq!(tool.list().len(), 0);
}

/// What nobody may change, and what its file system does not keep, is found out before the commit point.
#[test]
fn what_cannot_be_written_is_refused_before_anything_is_changed() {
    require!(Feature::Root, Feature::Overlay, Feature::Program("chattr"));
    let tool = Tool::new(TENTATIVE);
    let work = tool.environment.work();
    let script = r#"
        set -e; mkdir -p memory disk/closed; mount -t ramfs none memory; echo one > memory/file
        trap 'chattr -a disk/log; chattr -i disk/closed; umount memory' EXIT
        echo one > disk/log; echo one > disk/closed/file; chattr +a disk/log; chattr +i disk/closed
        try() { tentative run --commit=always -- sh -c "$1" 2> said && exit 1; grep -o "$2" said; tentative rollback 2> /dev/null; }
        try 'echo two >> disk/log' 'can only be appended to'
        # Its directory may not be changed, which takes writing in place.
        tentative run --commit -- sh -c 'echo two >> disk/closed/file' 2> /dev/null
        try 'python3 -c "import os; os.setxattr(\"memory/file\", \"user.test\", b\"x\")"' 'extended attribute user.test'
        cat disk/log disk/closed/file memory/file; ls disk/closed
    "#;
    let ran = tool.with_mounts(script);
    assert_eq!(
        ran.printed,
        "can only be appended to\nextended attribute user.test\none\none\ntwo\none\nfile\n",
        "{} in {}",
        ran.said,
        work.display()
    );
}

/// Has a commit killed right after its commit point.
#[cfg(feature = "crash-points")]
fn decide(tool: &Tool, script: &str) -> String {
    let id = tool.keep(script);
    let mut command = tool.command(&["commit", &id]);
    let status = command.env("TENTATIVE_CRASH_AT", "journal-committed:1").status().expect("it starts");
    assert!(!status.success(), "are the crash points compiled in?");
    id
}

#[test]
fn a_directory_that_others_replaced_refuses_the_commit_and_can_be_put_back() {
    require!(Feature::Overlay);
    for ours in ["echo new >> a/f", "rm a/f", "echo x > a/new", "echo x > t; mv t a/f"] {
        let tool = Tool::new(TENTATIVE);
        tool.environment.write("a/f", "A\n");
        tool.environment.write("z/f", "precious\n");
        let id = tool.keep(ours);
        tool.other("sh", &["-c", "mv a a_old; mv z a"]).ended(0);
        tool.run(&["commit", &id])
            .ended(120)
            .says("a is another directory than at the beginning")
            .says("put the directories back that others moved and commit again, or roll back");
        let file = tool.environment.work().join("a/f");
        assert_eq!(fs::read_to_string(file).expect("it is theirs"), "precious\n");
        assert!(!tool.environment.work().join("a/new").exists());
        tool.other("sh", &["-c", "mv a z; mv a_old a"]).ended(0);
        tool.run(&["commit", &id]).ended(0);
    }
}

#[test]
#[cfg(feature = "crash-points")]
fn what_is_committed_and_cannot_be_finished_says_what_to_do() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    tool.environment.write("a/f", "A\n");
    let victim = tool.environment.write("victim/f", "precious\n");
    let id = decide(&tool, "echo new >> a/f");
    tool.other("sh", &["-c", "mv a a_old; ln -s victim a"]).ended(0);
    let stuck = tool.run(&["recover"]).ended(120);
    assert!(stuck.printed.contains("a is not the directory that it was"), "{stuck:?}");
    assert!(stuck.printed.contains("put it back, or make an empty one there"), "{stuck:?}");
    assert_eq!(tool.list()[0]["state"], "committing");
    tool.run(&["rollback", &id])
        .ended(120)
        .says("is committed already")
        .says("'tentative recover' finishes it");
    tool.run(&["commit", &id]).ended(120).says("is committed already");
    assert_eq!(fs::read_to_string(&victim).expect("it is there"), "precious\n");
    tool.other("sh", &["-c", "rm a; mv a_old a"]).ended(0);
    tool.run(&["recover"]).ended(0);
    let file = tool.environment.work().join("a/f");
    assert_eq!(fs::read_to_string(file).expect("it is there"), "A\nnew\n");
    assert_eq!(tool.list().len(), 0);
}

#[test]
#[cfg(feature = "crash-points")]
fn what_others_wrote_after_the_commit_point_is_named() {
    require!(Feature::Overlay);
    let tool = Tool::new(TENTATIVE);
    let file = tool.environment.write("file", "old\n");
    let id = decide(&tool, "echo new >> file");
    tool.other("sh", &["-c", "echo theirs >> file"]).ended(0);
    let recovered = tool.run(&["recover"]).ended(0);
    let kept = format!("file.tentative-{id}-theirs");
    assert!(recovered.printed.contains("what others made there meanwhile is kept as "), "{recovered:?}");
    assert!(recovered.printed.contains(&kept), "{recovered:?}");
    assert_eq!(fs::read_to_string(file.with_file_name(kept)).expect("it is there"), "old\ntheirs\n");
    assert_eq!(fs::read_to_string(file).expect("it is there"), "old\nnew\n");
}

//! Live transplants, memory only. Each case runs in a process of its own with one thread.

#![expect(clippy::multiple_unsafe_ops_per_block, reason = "tiny pokes into this test's own mappings")]

use std::{
    hint::black_box,
    io::{Seek, SeekFrom, Write},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use tentative_sys::transplant::{Begun, Branch, Elsewhere, Ended, Ending, Identity, Step, Wishes, begin};
use tentative_testkit::cases::{self, Case};

const CASES: &[Case] = &[
    ("commit_brings_memory", commit_brings_memory),
    ("rollback_leaves_memory", rollback_leaves_memory),
    ("payload_crosses_a_rollback", payload_crosses_a_rollback),
    ("a_payload_that_is_too_large_is_none", a_payload_that_is_too_large_is_none),
    ("large_mappings_arrive", large_mappings_arrive),
    ("mappings_go_and_change", mappings_go_and_change),
    ("descriptors_arrive", descriptors_arrive),
    ("offsets_and_directory_arrive", offsets_and_directory_arrive),
    ("exit_and_crash_are_endings", exit_and_crash_are_endings),
    ("timeout_is_an_ending", timeout_is_an_ending),
    ("children_refuse_the_commit", children_refuse_the_commit),
    ("frozen_branches_wait_for_a_decision", frozen_branches_wait_for_a_decision),
    ("transactions_nest", transactions_nest),
    ("only_the_branch_asks", only_the_branch_asks),
    ("signal_state_arrives", signal_state_arrives),
    ("standing_arrives_or_nothing_does", standing_arrives_or_nothing_does),
    ("another_identity_refuses_the_commit", another_identity_refuses_the_commit),
    ("a_pending_signal_refuses_the_commit", a_pending_signal_refuses_the_commit),
    ("another_group_refuses_the_commit", another_group_refuses_the_commit),
    ("deep_stacks_arrive", deep_stacks_arrive),
    ("a_thousand_leave_nothing", a_thousand_leave_nothing),
];

fn main() -> ExitCode {
    cases::main(CASES, |_, command| command.status().expect("spawn").success())
}

/// Runs `inside` in a branch that commits; panics unless the commit succeeds.
fn committed(inside: impl FnOnce()) {
    match begin(&Wishes::default()).expect("begin") {
        Begun::Inside(mut branch) => {
            inside();
            branch.commit().expect("commit");
        }
        other => panic!("{other:?}"),
    }
}

/// Runs `inside` in a branch and returns how it ended.
fn ended(wishes: &Wishes<'_>, inside: impl FnOnce(&mut Branch)) -> Ended {
    match begin(wishes).expect("begin") {
        Begun::Inside(mut branch) => {
            inside(&mut branch);
            branch.rollback(b"")
        }
        Begun::Ended(ended) => ended,
        Begun::Frozen(_) => panic!("nobody asked to decide"),
    }
}

fn commit_brings_memory() {
    let pid = std::process::id();
    let mut list = vec![1, 2, 3];
    let first = list.as_ptr();
    let mut text = String::from("before");
    committed(|| {
        list[0] = 10;
        text = format!("after {}", list[0]);
    });
    assert_eq!((list.as_slice(), text.as_str()), ([10, 2, 3].as_slice(), "after 10"));
    assert_eq!((list.as_ptr(), std::process::id()), (first, pid));
}

fn rollback_leaves_memory() {
    let mut list = vec![1, 2, 3];
    let end = ended(&Wishes::default(), |_| list.push(4));
    assert_eq!(list, [1, 2, 3]);
    assert_eq!(end.ending, Ending::Asked);
}

fn payload_crosses_a_rollback() {
    let big: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
    match begin(&Wishes::default()).expect("begin") {
        Begun::Inside(mut branch) => branch.rollback(&big),
        Begun::Ended(end) => assert_eq!(end.payload.as_deref(), Some(big.as_slice())),
        Begun::Frozen(_) => panic!("frozen"),
    }
}

fn a_payload_that_is_too_large_is_none() {
    // Zeros that nobody has touched take no memory.
    let huge = vec![0; (1 << 30) + 1];
    match begin(&Wishes::default()).expect("begin") {
        Begun::Inside(mut branch) => branch.rollback(&huge),
        Begun::Ended(end) => assert_eq!((end.ending, end.payload), (Ending::Asked, None)),
        Begun::Frozen(_) => panic!("frozen"),
    }
}

fn large_mappings_arrive() {
    let mut blocks: Vec<Vec<u64>> = vec![vec![7; 1 << 18]];
    let mut sparse: Vec<u8> = Vec::new();
    committed(|| {
        for number in 0..50u64 {
            blocks.push((0..1 << 17).map(|index| index * number).collect());
        }
        blocks[0][1 << 17] = 8;
        sparse = vec![0; 1 << 30];
        sparse[1 << 29] = 3;
    });
    assert_eq!((blocks[0][0], blocks[0][1 << 17]), (7, 8));
    for (number, block) in (0u64..).zip(&blocks[1..]) {
        assert!((0u64..).zip(block).all(|(index, value)| *value == index * number));
    }
    assert_eq!((sparse[1 << 29], sparse[(1 << 29) + 4096], sparse.len()), (3, 0, 1 << 30));
    drop(sparse);
    drop(blocks);
    black_box(vec![1u8; 1 << 20]);
}

fn mappings_go_and_change() {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
    let page = 4096;
    let both = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: fresh mappings of this test's own.
    let map =
        || unsafe { mmap_anonymous(std::ptr::null_mut(), 4 * page, both, MapFlags::PRIVATE) }.expect("mmap");
    let (gone, locked, replaced) = (map().cast::<u8>(), map().cast::<u8>(), map().cast::<u8>());
    // SAFETY: inside the mappings just made.
    unsafe {
        gone.write(1);
        locked.write(2);
        replaced.write(3);
        replaced.add(page).write(4);
    }
    committed(|| {
        // SAFETY: the test's own mappings.
        unsafe {
            munmap(gone.cast(), 4 * page).expect("munmap");
            locked.write(20);
            mprotect(locked.cast(), page, MprotectFlags::READ).expect("mprotect");
            rustix::mm::madvise(replaced.cast(), page, rustix::mm::Advice::LinuxDontNeed).expect("madvise");
            replaced.add(2 * page).write(5);
        }
    });
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    assert!(!maps.contains(&format!("{:x}-", gone as usize)), "the unmapped range is gone");
    let line = maps.lines().find(|line| line.starts_with(&format!("{:x}-", locked as usize))).expect("kept");
    assert!(line.contains("r--p"), "{line}");
    // SAFETY: still mapped and readable.
    let values =
        unsafe { (locked.read(), replaced.read(), replaced.add(page).read(), replaced.add(2 * page).read()) };
    assert_eq!(values, (20, 0, 4, 5));
}

fn descriptors_arrive() {
    let directory = tempdir();
    let (kept, closed) = (file(&directory, "kept"), file(&directory, "closed"));
    let mut fresh = None;
    let mut pipe = None;
    let mut closed = Some(closed);
    committed(|| {
        closed = None;
        let mut made = file(&directory, "fresh");
        made.write_all(b"12345").expect("write");
        fresh = Some(made);
        pipe = Some(std::io::pipe().expect("pipe"));
    });
    assert!(closed.is_none());
    let mut fresh = fresh.expect("arrived");
    assert_eq!(fresh.stream_position().expect("position"), 5);
    fresh.write_all(b"6").expect("still writable");
    assert_eq!(std::fs::read(directory.join("fresh")).expect("read"), b"123456");
    let (mut reader, mut writer) = pipe.expect("arrived");
    writer.write_all(b"x").expect("pipe");
    let mut byte = [0];
    std::io::Read::read_exact(&mut reader, &mut byte).expect("pipe");
    drop(kept);
    std::fs::remove_dir_all(directory).expect("clean up");
}

fn offsets_and_directory_arrive() {
    let directory = tempdir();
    let mut shared = file(&directory, "shared");
    shared.write_all(b"0123456789").expect("write");
    committed(|| {
        shared.seek(SeekFrom::Start(3)).expect("seek");
        std::env::set_current_dir(&directory).expect("chdir");
    });
    assert_eq!(shared.stream_position().expect("position"), 3);
    assert_eq!(std::env::current_dir().expect("cwd"), directory);
    std::env::set_current_dir("/").expect("chdir");
    std::fs::remove_dir_all(directory).expect("clean up");
}

fn exit_and_crash_are_endings() {
    let end = ended(&Wishes::default(), |_| {
        // SAFETY: ends the branch at once.
        unsafe { libc::_exit(7) }
    });
    assert_eq!(end.ending, Ending::Exited(7));
    let end = ended(&Wishes::default(), |_| std::process::abort());
    assert_eq!(end.ending, Ending::Killed(libc::SIGABRT));
}

fn timeout_is_an_ending() {
    let wishes = Wishes { timeout: Some(std::time::Duration::from_millis(100)), ..Wishes::default() };
    let end = ended(&wishes, |_| {
        loop {
            std::thread::park();
        }
    });
    assert_eq!(end.ending, Ending::TimedOut);
}

fn children_refuse_the_commit() {
    let refused;
    match begin(&Wishes::default()).expect("begin") {
        Begun::Inside(mut branch) => {
            let mut child = Command::new("/bin/sleep").arg("60").spawn().expect("spawn");
            let error = branch.commit().expect_err("a child runs");
            assert_eq!((error.refusal.step, error.refusal.subject), (Step::Children, child.id() as usize));
            child.kill().expect("kill");
            child.wait().expect("wait");
            refused = true;
            branch.commit().expect("nothing runs any more");
        }
        other => panic!("{other:?}"),
    }
    assert!(refused);
}

fn frozen_branches_wait_for_a_decision() {
    let wishes = Wishes { decide: true, ..Wishes::default() };
    for take in [true, false] {
        let mut value = vec![1];
        let mut touched = Vec::new();
        match begin(&wishes).expect("begin") {
            Begun::Inside(mut branch) => {
                value.push(2);
                branch.commit().expect("decided to commit");
                assert!(take);
                assert_eq!(value, [1, 2]);
                assert!(touched.is_empty(), "what the decision changed is gone");
            }
            Begun::Frozen(frozen) => {
                assert_eq!(value, [1]);
                touched.push(vec![9; 10_000]);
                if take {
                    let begun = frozen.commit();
                    panic!("the commit was refused: {begun:?}");
                }
                assert_eq!(frozen.rollback().ending, Ending::Asked);
                assert_eq!(value, [1]);
                assert_eq!(touched.len(), 1);
            }
            Begun::Ended(end) => panic!("{end:?}"),
        }
    }
}

fn transactions_nest() {
    let mut trail = Vec::new();
    committed(|| {
        trail.push("outer");
        committed(|| trail.push("inner"));
        let end = ended(&Wishes::default(), |_| trail.push("never"));
        assert_eq!(end.ending, Ending::Asked);
        trail.push("after");
    });
    assert_eq!(trail, ["outer", "inner", "after"]);
}

fn only_the_branch_asks() {
    let mut seen = Vec::new();
    let mut outer = match begin(&Wishes::default()).expect("begin") {
        Begun::Inside(branch) => branch,
        other => panic!("{other:?}"),
    };
    assert_eq!(outer.place().check(), Ok(()));
    committed(|| seen.push(outer.place().check()));
    let child = status_of_child(|| i32::from(outer.place().check() != Err(Elsewhere::Child)));
    assert_eq!(child, 0);
    let by_thread = std::thread::scope(|scope| scope.spawn(|| outer.place().check()).join().expect("join"));
    seen.push(by_thread);
    // Not one of them may ask: it would stop, and nobody would let it go on.
    let refused = status_of_child(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| outer.measure()));
        i32::from(asked.is_ok())
    });
    assert_eq!(refused, 0);
    outer.commit().expect("commit");
    assert_eq!(seen, [Err(Elsewhere::Inner), Err(Elsewhere::Thread)]);
    // In the origin the next one is on the same level again.
    committed(|| seen.clear());
    assert!(seen.is_empty());
}

/// Runs a function in a forked child that ends with what it returns.
fn status_of_child(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the process has one thread, and the child ends by itself.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let status = child();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the word is valid, and the child is this process's own.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    libc::WEXITSTATUS(status)
}

fn signal_state_arrives() {
    extern "C" fn handler(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = handler;
    committed(|| {
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
        // SAFETY: sets this process's own mask.
        unsafe { libc::umask(0o027) };
    });
    // SAFETY: reads the handler back by replacing it.
    let old = unsafe { libc::signal(libc::SIGUSR2, libc::SIG_DFL) };
    assert_eq!(old, handler as libc::sighandler_t);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::umask(0o022) }, 0o027);
}

/// What a process may change of how it stands: nice, processors, subreaper, personality, slack of its timers, who
/// may look at its memory.
fn standing() -> [i64; 8] {
    // SAFETY: the calls ask for numbers.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: zero bytes are a set of no processors.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is of the size that is given.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    // SAFETY: counts the members of a set.
    let processors = unsafe { libc::CPU_COUNT(&set) };
    let mut reaper = 0i32;
    // SAFETY: the kernel writes one word.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut reaper) };
    // SAFETY: asks.
    let personality = unsafe { libc::personality(0xffff_ffff) };
    // SAFETY: asks.
    let (slack, policy) = unsafe { (libc::prctl(libc::PR_GET_TIMERSLACK), libc::sched_getscheduler(0)) };
    // SAFETY: asks.
    let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
    // SAFETY: asks.
    let renounced = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
    [nice, processors, reaper, personality, slack, policy, dumpable, renounced].map(i64::from)
}

fn stand_differently() {
    // SAFETY: zero bytes are a set of no processors.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is of the size that is given, and holds the number of a processor.
    unsafe {
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set), 0);
    }
    let batch = libc::sched_param { sched_priority: 0 };
    // SAFETY: the calls take numbers, and one structure that is read.
    unsafe {
        assert_eq!(libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const batch), 0);
        assert_eq!(libc::setpriority(libc::PRIO_PROCESS, 0, 7), 0);
        assert_eq!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1), 0);
        assert_ne!(libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong), -1);
        assert_eq!(libc::prctl(libc::PR_SET_TIMERSLACK, 70_000), 0);
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    }
}

fn standing_arrives_or_nothing_does() {
    let before = standing();
    let end = ended(&Wishes::default(), |_| stand_differently());
    assert_eq!((end.ending, standing()), (Ending::Asked, before));
    match begin(&Wishes::default()).expect("begin") {
        Begun::Inside(mut branch) => {
            stand_differently();
            let mut child = Command::new("/bin/sleep").arg("60").spawn().expect("spawn");
            branch.commit().expect_err("a child runs");
            child.kill().expect("kill");
            child.wait().expect("wait");
            branch.rollback(b"")
        }
        Begun::Ended(end) => assert_eq!((end.ending, standing()), (Ending::Asked, before)),
        Begun::Frozen(_) => panic!("frozen"),
    }
    committed(stand_differently);
    let mut after = standing();
    assert_eq!(
        after,
        [7, 1, 1, i64::from(libc::ADDR_NO_RANDOMIZE), 70_000, i64::from(libc::SCHED_BATCH), 0, 1]
    );
    // An ordinary user's process that nobody may look at cannot look at its own pages either, as a commit does.
    // SAFETY: sets an attribute of this process.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }, 0);
    after[6] = 1;
    // A clone does not inherit the subreaper's flag: the next branch has it all the same.
    let mut inside = [0; 8];
    committed(|| inside = standing());
    assert_eq!((inside, standing()), (after, after));
}

fn another_identity_refuses_the_commit() {
    let root = rustix::process::geteuid().is_root();
    let mut refused = Vec::new();
    if root {
        refused.push(refusal(|| {
            // SAFETY: changes the branch's own ids.
            assert_eq!(unsafe { libc::setresgid(65_534, 65_534, 65_534) }, 0);
            // SAFETY: as above.
            assert_eq!(unsafe { libc::setresuid(65_534, 65_534, 65_534) }, 0);
        }));
        let groups = [1u32, 2, 3];
        // SAFETY: the kernel reads three words.
        refused.push(refusal(|| assert_eq!(unsafe { libc::setgroups(3, groups.as_ptr()) }, 0)));
        // SAFETY: drops a capability from the branch's bounding set.
        refused.push(refusal(|| assert_eq!(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, 5) }, 0)));
        // SAFETY: asks for ids.
        assert_eq!(unsafe { (libc::getuid(), libc::getgid(), libc::geteuid()) }, (0, 0, 0));
        assert_eq!(refused[..2], [(Step::Identity, Identity::Ids as usize); 2]);
        assert_eq!(refused.pop(), Some((Step::Identity, Identity::Capabilities as usize)));
    }
    let filtered = refusal(|| {
        // SAFETY: the filter allows every call.
        unsafe {
            let mut allow = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
            let program = libc::sock_fprog { len: 1, filter: &raw mut allow };
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program), 0);
        }
    });
    assert_eq!(filtered, (Step::Identity, Identity::Filters as usize));
}

/// What the commit of a branch that does this is refused for.
fn refusal(inside: impl FnOnce()) -> (Step, usize) {
    let end = ended(&Wishes::default(), |branch| {
        inside();
        let refused = branch.commit().expect_err("refused").refusal;
        branch.rollback(
            &[(refused.step as u32).to_ne_bytes(), (refused.subject as u32).to_ne_bytes()].concat(),
        );
    });
    let payload = end.payload.expect("handed over");
    let number = |at: usize| u32::from_ne_bytes(payload[at..at + 4].try_into().expect("a word"));
    let steps = [Step::Identity, Step::Group, Step::PendingSignal];
    let step = steps.into_iter().find(|step| *step as u32 == number(0)).expect("one of these");
    (step, number(4) as usize)
}

fn a_pending_signal_refuses_the_commit() {
    let refused = refusal(|| {
        // SAFETY: zero bytes are a set of no signals.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: blocks a signal of this thread's and raises it.
        unsafe {
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::raise(libc::SIGUSR1);
        }
    });
    assert_eq!(refused, (Step::PendingSignal, libc::SIGUSR1 as usize));
}

fn another_group_refuses_the_commit() {
    let refused = refusal(|| {
        let mut child = Command::new("/bin/sleep").arg("60").process_group(0).spawn().expect("spawn");
        // SAFETY: moves the branch into its child's group.
        let moved = unsafe { libc::setpgid(0, child.id() as libc::pid_t) };
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(moved, 0);
    });
    assert_eq!(refused, (Step::Group, 0));
}

fn deep_stacks_arrive() {
    #[inline(never)]
    fn dive(depth: u32, bottom: &mut dyn FnMut()) -> u64 {
        let frame = black_box([u64::from(depth); 512]);
        if depth == 0 {
            bottom();
            return frame[0];
        }
        dive(depth - 1, bottom) + frame[511]
    }
    let mut branch = match begin(&Wishes::default()).expect("begin") {
        Begun::Inside(branch) => branch,
        other => panic!("{other:?}"),
    };
    let depth = 900;
    let sum = dive(depth, &mut || {
        branch.commit().expect("commit");
    });
    assert_eq!(sum, u64::from(depth) * u64::from(depth + 1) / 2);
}

fn a_thousand_leave_nothing() {
    let count = |path: &str| std::fs::read_dir(path).expect("list").count();
    let maps = || std::fs::read_to_string("/proc/self/maps").expect("maps").lines().count();
    let mut number = 0;
    committed(|| number += 1);
    let before = (count("/proc/self/fd"), maps());
    for round in 0..500 {
        committed(|| number += 1);
        let end = ended(&Wishes::default(), |_| number += 1000);
        assert_eq!((end.ending, number), (Ending::Asked, round + 2));
    }
    assert_eq!((count("/proc/self/fd"), maps()), before);
    let children = format!("/proc/self/task/{}/children", std::process::id());
    assert_eq!(std::fs::read_to_string(children).expect("children"), "");
}

fn file(directory: &std::path::Path, name: &str) -> std::fs::File {
    std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(directory.join(name))
        .expect("open")
}

fn tempdir() -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("transplant-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("create");
    path.canonicalize().expect("canonical")
}

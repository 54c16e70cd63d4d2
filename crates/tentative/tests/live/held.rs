//! What a branch holds of the system's when it commits: locks, sockets, its standing and identity.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
};

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use tentative::transaction::{Begun, CommitRefused, Identity, Refusal, begin};
use tentative_testkit::cases::Case;

use crate::{committed, options, work};

pub(crate) const CASES: &[Case] = &[
    ("locks_are_held_after_the_commit", locks_are_held_after_the_commit),
    ("a_lock_that_somebody_has_refuses_the_commit", a_lock_that_somebody_has_refuses_the_commit),
    ("a_refused_commit_takes_no_lock", a_refused_commit_takes_no_lock),
    ("sockets_of_the_sandbox_refuse_the_commit", sockets_of_the_sandbox_refuse_the_commit),
    ("sockets_of_nobodys_network_arrive", sockets_of_nobodys_network_arrive),
    ("standing_arrives_from_a_sandbox", standing_arrives_from_a_sandbox),
    ("another_identity_in_a_sandbox_refuses", another_identity_in_a_sandbox_refuses),
];

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).expect("open")
}

/// Whether another process can have a lock on the whole file, of each kind.
fn is_free(path: &Path) -> [bool; 2] {
    let script = "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\nfor lock in fcntl.flock, fcntl.lockf:\n \
                  try: lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n except OSError: print('held')\n";
    let said = Command::new("python3").arg("-c").arg(script).arg(path).output().expect("python3");
    let said = String::from_utf8(said.stdout).expect("words");
    let words: Vec<bool> = said.lines().map(|line| line == "free").collect();
    words.try_into().expect("two words")
}

/// What a commit is refused for, after this was done inside; all of it is rolled back.
fn refusal<T>(inside: impl FnOnce() -> T) -> String {
    match begin(&options()).expect("begin") {
        Begun::Inside(mut branch) => {
            let held = inside();
            let refused = branch.commit().expect_err("refused");
            drop(held);
            branch.rollback(refused.to_string().as_bytes())
        }
        Begun::Ended(ended) => String::from_utf8(ended.payload.expect("reasons")).expect("words"),
        Begun::Frozen(_) => panic!("nobody asked to decide"),
    }
}

fn locks_are_held_after_the_commit() {
    let (known, fresh, range) = (work().join("known"), work().join("fresh"), work().join("range"));
    let inherited = open(&known);
    let of_range = open(&range);
    let mut made = None;
    committed(|| {
        flock(&inherited, FlockOperation::LockExclusive).expect("lock what is inherited");
        fcntl_lock(&of_range, FlockOperation::NonBlockingLockExclusive).expect("lock as a process");
        let mut file = open(&fresh);
        file.write_all(b"content").expect("write");
        flock(&file, FlockOperation::LockShared).expect("lock what is new");
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).expect("lock as a process");
        made = Some(file);
    });
    assert_eq!(
        (is_free(&known), is_free(&range), is_free(&fresh)),
        ([false, true], [true, false], [false; 2])
    );
    // They go as they would have gone.
    flock(&inherited, FlockOperation::Unlock).expect("unlock");
    drop((of_range, made));
    assert_eq!([known, range, fresh].map(|path| is_free(&path)), [[true; 2]; 3]);
    // A lock that both have stays where it is.
    flock(&inherited, FlockOperation::LockExclusive).expect("lock outside");
    committed(|| flock(&inherited, FlockOperation::LockExclusive).expect("lock inside as well"));
    committed(|| flock(&inherited, FlockOperation::LockShared).expect("another kind inside"));
    flock(open(&work().join("known")), FlockOperation::NonBlockingLockShared).expect("it is shared by now");
}

/// Somebody else who holds a lock on a file until it is killed.
fn holder(path: &Path, call: &str) -> std::process::Child {
    let script = format!(
        "import fcntl, sys, time\nfile = open(sys.argv[1], 'r+')\nfcntl.{call}(file, fcntl.LOCK_EX)\n\
         print(flush=True)\ntime.sleep(60)"
    );
    let mut command = Command::new("python3");
    let command = command.arg("-c").arg(script).arg(path).stdout(std::process::Stdio::piped());
    let mut holder = command.spawn().expect("python3");
    let mut said = [0];
    holder.stdout.take().expect("piped").read_exact(&mut said).expect("it has the lock");
    holder
}

fn a_lock_that_somebody_has_refuses_the_commit() {
    for call in ["flock", "lockf"] {
        let path = work().join(call);
        let file = open(&path);
        let mut somebody = holder(&path, call);
        let refused = refusal(|| match call {
            "flock" => flock(&file, FlockOperation::NonBlockingLockExclusive).expect("free inside"),
            _ => fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).expect("free inside"),
        });
        somebody.kill().expect("kill");
        somebody.wait().expect("wait");
        let name = format!("the lock on {} (descriptor {})", path.display(), file.as_raw_fd());
        assert!(refused.contains(&name) && refused.contains("held by somebody else"), "{refused}");
        committed(|| flock(&file, FlockOperation::NonBlockingLockExclusive).expect("free inside"));
    }
}

fn a_refused_commit_takes_no_lock() {
    let (free, taken, fresh) = (work().join("free"), work().join("taken"), work().join("fresh"));
    let files = [open(&free), open(&taken)];
    flock(&files[0], FlockOperation::LockShared).expect("lock outside");
    let mut somebody = holder(&taken, "flock");
    File::create(&fresh).expect("create");
    let refused = refusal(|| {
        let made = open(&fresh);
        fcntl_lock(&made, FlockOperation::NonBlockingLockExclusive).expect("lock inside");
        for file in &files {
            flock(file, FlockOperation::NonBlockingLockExclusive).expect("lock inside");
        }
        made
    });
    somebody.kill().expect("kill");
    somebody.wait().expect("wait");
    assert!(refused.contains("held by somebody else"), "{refused}");
    assert_eq!(is_free(&fresh), [true; 2]);
    flock(open(&free), FlockOperation::NonBlockingLockShared).expect("the origin's own is shared as before");
    assert_eq!(is_free(&free), [false, true]);
}

fn sockets_of_the_sandbox_refuse_the_commit() {
    let listening = refusal(|| TcpListener::bind("127.0.0.1:0").expect("bind"));
    assert!(listening.contains("(tcp 127.0.0.1:") && listening.contains(", listening)"), "{listening}");
    assert!(listening.contains("belongs to the sandbox's network; close it"), "{listening}");
    let connected = refusal(|| {
        let listener = TcpListener::bind("[::1]:0").expect("bind");
        let address = listener.local_addr().expect("address");
        (TcpStream::connect(address).expect("connect"), listener.accept().expect("accept"))
    });
    assert!(connected.contains("connected to [::1]:"), "{connected}");
    let bound = refusal(|| UdpSocket::bind("127.0.0.1:0").expect("bind"));
    assert!(bound.contains("(udp 127.0.0.1:"), "{bound}");
    let path = work().join("socket");
    let unix = refusal(|| UnixListener::bind(&path).expect("bind"));
    assert!(unix.contains(&format!("(unix {}, listening)", path.display())), "{unix}");
    let unix = refusal(|| UnixDatagram::bind(work().join("datagrams")).expect("bind"));
    assert!(unix.contains("datagrams)"), "{unix}");
    // What is closed before the commit keeps nobody from it.
    committed(|| drop(TcpListener::bind("127.0.0.1:0").expect("bind")));
}

fn sockets_of_nobodys_network_arrive() {
    let mut pair = None;
    let mut unused = None;
    committed(|| {
        pair = Some(UnixStream::pair().expect("pair"));
        let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
        unused = Some(rustix::net::socket(family, kind, None).expect("socket"));
    });
    let (mut one, mut other) = pair.expect("arrived");
    one.write_all(b"x").expect("write");
    let mut byte = [0];
    other.read_exact(&mut byte).expect("read");
    assert!(byte == *b"x" && unused.is_some());
}

fn standing_arrives_from_a_sandbox() {
    let standing = || {
        let nice = rustix::process::getpriority_process(None).expect("nice");
        let processors = rustix::thread::sched_getaffinity(None).expect("processors").count();
        (nice, processors, rustix::process::child_subreaper().expect("subreaper"))
    };
    let before = standing();
    let refused = refusal(|| {
        rustix::process::setpriority_process(None, 9).expect("nice");
        TcpListener::bind("127.0.0.1:0").expect("bind")
    });
    assert!(refused.contains("listening"), "{refused}");
    assert_eq!(standing(), before);
    let mut inside = before;
    committed(|| {
        rustix::process::setpriority_process(None, 9).expect("nice");
        let mut one = rustix::thread::CpuSet::new();
        one.set(rustix::thread::sched_getcpu());
        rustix::thread::sched_setaffinity(None, &one).expect("processors");
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("subreaper");
        inside = standing();
    });
    assert_eq!((inside.0, inside.1, inside.2.is_some()), (9, 1, true));
    assert_eq!(standing(), inside);
}

fn another_identity_in_a_sandbox_refuses() {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user's sandbox knows one user, and gives up its capabilities before the code runs.
        return;
    }
    let words = |what| CommitRefused { reasons: vec![Refusal::Identity(what)] }.to_string();
    let user = rustix::process::Uid::from_raw(65_534);
    let refused = refusal(|| rustix::thread::set_thread_res_uid(user, user, user).expect("setresuid"));
    assert_eq!(refused, words(Identity::Ids));
    let refused = refusal(|| {
        let mut sets = rustix::thread::capabilities(None).expect("capabilities");
        sets.effective.remove(rustix::thread::CapabilitySet::CHOWN);
        rustix::thread::set_capabilities(None, sets).expect("drop one");
    });
    assert_eq!(refused, words(Identity::Capabilities));
    assert!(rustix::process::getuid().is_root());
}

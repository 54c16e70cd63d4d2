//! Descriptors of a live process: what a branch has of them, what a commit brings, and at which numbers.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::{fd::AsRawFd, unix::fs::PermissionsExt as _},
    path::PathBuf,
    process::Command,
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tentative::{
    change::Subject,
    transaction::{Begun, Cause, Committed, Refusal, begin},
};
use tentative_testkit::cases::Case;

use crate::{change_while_a_branch_runs, committed, ended, options, work};

pub(crate) const CASES: &[Case] = &[
    ("inherited_files_are_reopened", inherited_files_are_reopened),
    ("deleted_files_are_copied_and_brought_back", deleted_files_are_copied_and_brought_back),
    ("deleted_files_share_and_part_as_outside", deleted_files_share_and_part_as_outside),
    ("large_deleted_files_keep_their_holes", large_deleted_files_keep_their_holes),
    ("deleted_files_that_others_changed_refuse", deleted_files_that_others_changed_refuse),
    ("a_file_deleted_inside_keeps_its_content", a_file_deleted_inside_keeps_its_content),
    ("new_files_arrive_open", new_files_arrive_open),
    ("a_file_that_may_not_be_opened_again_refuses", a_file_that_may_not_be_opened_again_refuses),
    ("what_shares_an_open_file_goes_on_sharing_it", what_shares_an_open_file_goes_on_sharing_it),
    ("a_file_opened_again_at_its_number_is_the_new_one", a_file_opened_again_at_its_number_is_the_new_one),
    ("descriptors_arrive_under_a_lowered_limit", descriptors_arrive_under_a_lowered_limit),
    ("only_the_programs_descriptors_are_changes", only_the_programs_descriptors_are_changes),
    ("a_number_in_use_outside_refuses_the_commit", a_number_in_use_outside_refuses_the_commit),
];

fn inherited_files_are_reopened() {
    let path = work().join("shared");
    let mut file = fs::File::options().read(true).write(true).create_new(true).open(&path).expect("open");
    file.write_all(b"0123456789").expect("write");
    let end = ended(&options(), |_| {
        file.seek(SeekFrom::Start(2)).expect("seek");
        file.write_all(b"xx").expect("write inside");
    });
    assert_eq!(end.cause, Cause::Asked);
    assert_eq!(
        (fs::read(&path).expect("read"), file.stream_position().expect("tell")),
        (b"0123456789".to_vec(), 10)
    );
    committed(|| {
        file.seek(SeekFrom::Start(2)).expect("seek");
        file.write_all(b"yy").expect("write inside");
    });
    assert_eq!(
        (fs::read(&path).expect("read"), file.stream_position().expect("tell")),
        (b"01yy456789".to_vec(), 4)
    );
    file.write_all(b"zz").expect("still the same file");
    assert_eq!(fs::read(&path).expect("read"), b"01yyzz6789");
}

fn a_file_that_may_not_be_opened_again_refuses() {
    let path = work().join("closed");
    let mut file = fs::File::create_new(&path).expect("create");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).expect("close it to everybody");
    let mut inside = None;
    committed(|| inside = Some(file.write_all(b"inside ").is_ok()));
    file.write_all(b"outside").expect("the origin's is as it was");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("open it again");
    let everything = rustix::process::geteuid().is_root();
    assert_eq!(inside, Some(everything), "root may open it");
    let wanted = if everything { "inside outside" } else { "outside" };
    assert_eq!(fs::read_to_string(&path).expect("read"), wanted);
}

fn deleted(name: &str) -> fs::File {
    let path = work().join(name);
    let file = fs::File::options().read(true).write(true).create_new(true).open(&path).expect("open");
    fs::remove_file(path).expect("remove");
    file
}

/// Content and offset of a file, without moving it.
fn state(file: &mut fs::File) -> (Vec<u8>, u64) {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; file.metadata().expect("stat").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("read");
    (bytes, file.stream_position().expect("tell"))
}

fn identity(file: &fs::File) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let found = file.metadata().expect("stat");
    (found.dev(), found.ino())
}

fn deleted_files_are_copied_and_brought_back() {
    let mut file = deleted("nameless");
    file.write_all(b"0123456789").expect("write");
    file.seek(SeekFrom::Start(4)).expect("seek");
    // Somebody else who holds the very same open file.
    let mut other = file.try_clone().expect("dup");
    let before = identity(&file);
    let end = ended(&options(), |_| {
        assert_eq!(state(&mut file), (b"0123456789".to_vec(), 4), "the copy inside");
        file.write_all(b"xxxxxxxxxxxx").expect("write inside");
    });
    assert_eq!(end.cause, Cause::Asked);
    assert_eq!(state(&mut file), (b"0123456789".to_vec(), 4));
    committed(|| {
        file.write_all(b"YY").expect("write inside");
        file.set_len(7).expect("truncate inside");
    });
    assert_eq!(state(&mut file), (b"0123YY6".to_vec(), 6));
    assert_eq!(state(&mut other), (b"0123YY6".to_vec(), 6));
    assert_eq!((identity(&file), identity(&other)), (before, before));
    committed(|| file.set_len(0).expect("truncate inside"));
    assert_eq!(state(&mut file), (Vec::new(), 6));
    committed(|| {
        file.seek(SeekFrom::Start(0)).expect("seek");
        file.write_all(&b"long ".repeat(50_000)).expect("write inside");
    });
    assert_eq!(state(&mut other), (b"long ".repeat(50_000), 250_000));
    // Nothing was changed: the offset that others moved meanwhile is theirs.
    other.seek(SeekFrom::Start(1)).expect("seek");
    committed(|| ());
    assert_eq!(state(&mut file).1, 1);
}

fn deleted_files_share_and_part_as_outside() {
    use std::os::fd::AsRawFd as _;
    let mut first = deleted("shared");
    first.write_all(b"base").expect("write");
    let mut second = first.try_clone().expect("dup");
    let mut third = None;
    let mut apart = None;
    committed(|| {
        second.write_all(b"+inside").expect("write inside");
        assert_eq!(state(&mut first), (b"base+inside".to_vec(), 11), "one open file inside");
        third = Some(first.try_clone().expect("dup inside"));
        let path = format!("/proc/self/fd/{}", first.as_raw_fd());
        let mut again = fs::File::open(path).expect("open again inside");
        again.seek(SeekFrom::Start(2)).expect("seek");
        apart = Some(again);
    });
    let (mut third, mut apart) = (third.expect("arrived"), apart.expect("arrived"));
    assert_eq!(identity(&first), identity(&apart));
    assert_eq!(state(&mut apart), (b"base+inside".to_vec(), 2));
    first.seek(SeekFrom::Start(3)).expect("seek");
    assert_eq!((state(&mut second).1, state(&mut third).1, state(&mut apart).1), (3, 3, 2));
    // Closed inside at the number that the origin had it at, kept at another.
    let number = first.as_raw_fd();
    committed(move || {
        drop((first, second));
        third.write_all(b"E").expect("write inside");
        assert_eq!(
            state(&mut apart).0,
            b"basEinside".to_vec()[..3].iter().chain(b"E+inside").copied().collect::<Vec<u8>>()
        );
    });
    assert!(fs::metadata(format!("/proc/self/fd/{number}")).is_err(), "closed by the commit");
}

fn large_deleted_files_keep_their_holes() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let file = deleted("sparse");
    let (far, length) = (3 << 30, (3 << 30) + 4096);
    file.write_all_at(&[1; 4096], 0).expect("write");
    file.write_all_at(&[2; 4096], far).expect("write");
    committed(|| {
        assert!(file.metadata().expect("stat").blocks() * 512 < 1 << 20, "the copy has the holes");
        file.write_all_at(b"inside", 1 << 30).expect("write inside");
    });
    let (mut middle, mut end) = ([0; 8], [0; 4]);
    file.read_exact_at(&mut middle, 1 << 30).expect("read");
    file.read_exact_at(&mut end, far).expect("read");
    assert_eq!((&middle, &end), (b"inside\0\0", &[2; 4]));
    let found = file.metadata().expect("stat");
    assert_eq!(found.len(), length);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
}

fn deleted_files_that_others_changed_refuse() {
    use std::os::fd::AsRawFd as _;
    let mut file = deleted("contested");
    file.write_all(b"base").expect("write");
    let theirs = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    let mut somebody = change_while_a_branch_runs(&theirs);
    match begin(&options()).expect("begin") {
        Begun::Inside(mut branch) => {
            file.write_all(b" ours").expect("write inside");
            std::thread::sleep(std::time::Duration::from_millis(2500));
            let refused = branch.commit().expect_err("somebody else changed it");
            assert!(refused.to_string().contains("deleted file"), "{refused}");
            assert_eq!(state(&mut file), (b"base ours".to_vec(), 9), "the branch goes on with its own");
            branch.rollback(b"")
        }
        Begun::Ended(end) => assert_eq!(end.cause, Cause::Asked),
        Begun::Frozen(_) => panic!("frozen"),
    }
    somebody.wait().expect("wait");
    assert_eq!(state(&mut file), (b"theirs\n".to_vec(), 4));
}

fn a_file_deleted_inside_keeps_its_content() {
    let path = work().join("doomed");
    let mut file = fs::File::options().read(true).write(true).create_new(true).open(&path).expect("open");
    file.write_all(b"base").expect("write");
    let before = identity(&file);
    committed(|| {
        file.write_all(b"+inside").expect("write inside");
        fs::remove_file(&path).expect("remove inside");
    });
    assert!(!path.exists());
    assert_eq!((state(&mut file), identity(&file)), ((b"base+inside".to_vec(), 11), before));
}

fn new_files_arrive_open() {
    // Enough of them that one has every number which the origin itself uses while it looks at the branch.
    let paths: Vec<PathBuf> = (0..40).map(|number| work().join(format!("fresh-{number}"))).collect();
    let mut kept = Vec::new();
    committed(|| {
        for path in &paths {
            let mut file =
                fs::File::options().read(true).write(true).create_new(true).open(path).expect("open");
            file.write_all(b"inside ").expect("write");
            kept.push(file);
        }
    });
    assert_eq!(kept.len(), paths.len());
    for (path, mut file) in paths.iter().zip(kept) {
        file.write_all(b"outside").expect("write outside");
        assert_eq!(fs::read_to_string(path).expect("read"), "inside outside");
        file.seek(SeekFrom::Start(0)).expect("seek");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "inside outside");
    }
}

/// Moves the offset by one descriptor and reads it by another.
fn shares_offset(one: &fs::File, other: &fs::File) -> bool {
    let (mut one, mut other) = (one, other);
    [3, 1].into_iter().all(|at| {
        one.seek(SeekFrom::Start(at)).expect("seek");
        other.stream_position().expect("position") == at
    })
}

fn what_shares_an_open_file_goes_on_sharing_it() {
    let (path, kept) = (work().join("shared"), work().join("inherited"));
    fs::write(&kept, "inherited").expect("write");
    let inherited = fs::File::open(&kept).expect("open");
    let twin = inherited.try_clone().expect("duplicate");
    let mut made = Vec::new();
    committed(|| {
        let new = fs::File::create_new(&path).expect("create");
        made = vec![new.try_clone().expect("duplicate"), inherited.try_clone().expect("duplicate"), new];
    });
    assert!(shares_offset(&made[0], &made[2]), "both made inside");
    assert!(shares_offset(&inherited, &made[1]), "one made inside of an inherited one");
    assert!(shares_offset(&inherited, &twin), "both inherited");
    committed(|| ());
    assert!(shares_offset(&made[0], &made[2]), "both inherited by another transaction");
}

fn a_file_opened_again_at_its_number_is_the_new_one() {
    let path = work().join("log");
    fs::write(&path, "hello").expect("write");
    let mut file = Some(fs::File::open(&path).expect("open"));
    let twin = file.as_ref().expect("open").try_clone().expect("duplicate");
    let number = file.as_ref().map(AsRawFd::as_raw_fd);
    committed(|| {
        drop(file.take());
        file = Some(fs::File::options().append(true).open(&path).expect("open again"));
        assert_eq!(file.as_ref().map(AsRawFd::as_raw_fd), number, "the lowest free number");
    });
    let mut file = file.expect("arrived");
    file.write_all(b" more").expect("it can be written");
    assert_eq!(fs::read_to_string(&path).expect("read"), "hello more");
    // Apart from the one that it came together with, with the same flags.
    let mut again = Some(twin.try_clone().expect("duplicate"));
    committed(|| {
        drop(again.take());
        again = Some(fs::File::open(&path).expect("open again"));
    });
    assert!(!shares_offset(&twin, &again.expect("arrived")));
}

fn limit_numbers(current: u64) {
    let all = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..all })
        .expect("a limit below the hard one");
}

fn descriptors_arrive_under_a_lowered_limit() {
    let path = work().join("low");
    let mut made = Vec::new();
    committed(|| {
        made.push(fs::File::create(&path).expect("create"));
        made.push(fcntl_dupfd_cloexec(&made[0], 300).expect("above the new limit").into());
        limit_numbers(64);
    });
    assert_eq!(getrlimit(Resource::Nofile).current, Some(64));
    ended(&options(), |branch| {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().expect("spawn inside");
        branch.commit().expect_err("refused");
        child.kill().expect("kill inside");
        child.wait().expect("wait inside");
    });
    assert_eq!(getrlimit(Resource::Nofile).current, Some(64), "after a refused commit");
    assert!(made[1].as_raw_fd() >= 300 && shares_offset(&made[0], &made[1]));
    committed(|| made.push(fs::File::create(&path).expect("create below the limit")));
    made[2].write_all(b"text").expect("it arrived");
    // No number is left above the program's.
    let last = u64::try_from(made[1].as_raw_fd() + 1).ok();
    setrlimit(Resource::Nofile, Rlimit { current: last, maximum: last }).expect("lower both");
    committed(|| made.push(fs::File::create(&path).expect("create below the limit")));
    made[3].write_all(b"text").expect("it arrived");
}

fn only_the_programs_descriptors_are_changes() {
    let path = work().join("one");
    let mut made: Vec<fs::File> = Vec::new();
    let opened = |done: &Committed| -> Vec<String> {
        let names = done.report.changes.iter().filter_map(|change| match &change.subject {
            Subject::Name(name) => Some(name.clone()),
            Subject::Path(_) => None,
        });
        names.filter(|name| name.starts_with("descriptor.")).collect()
    };
    // Wherever the limit puts the transaction's own: at 896, at 172, and at 32, in the middle of the program's.
    for (limit, from) in [(1024, 1000), (300, 290), (64, 50)] {
        limit_numbers(limit);
        let mut inside = Vec::new();
        let done = committed(|| {
            let file = fs::File::create(&path).expect("create");
            made.push(fcntl_dupfd_cloexec(&file, from).expect("above the transaction's own").into());
            inside.push(format!("descriptor.{}", made.last().expect("just made").as_raw_fd()));
        });
        assert_eq!(opened(&done), inside, "with {limit} numbers");
    }
}

fn a_number_in_use_outside_refuses_the_commit() {
    // The keeper's link, at least, is at the lowest of the numbers that transactions take for themselves.
    committed(|| ());
    match begin(&options()).expect("begin") {
        Begun::Inside(mut branch) => {
            let file = fs::File::open("/dev/null").expect("open");
            let taken = fcntl_dupfd_cloexec(&file, 896).expect("a number that is free here");
            let refused = branch.commit().expect_err("refused");
            assert!(
                matches!(refused.reasons[..], [Refusal::DescriptorTaken { number }] if number == taken.as_raw_fd())
            );
            drop(taken);
            branch.commit().expect("free again");
        }
        other => panic!("{other:?}"),
    }
}

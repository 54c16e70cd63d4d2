//! Files with several names, one of which another file took: the other names keep theirs, whatever times the new one has.

use std::{fs, os::unix::fs::MetadataExt as _};

use tentative_testkit::{Feature, Tool, require};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

/// What replaces `a`, of which `b` is another name, and what the two hold then.
const REPLACED: &[(&str, &str, &str)] = &[
    ("echo new > n; mv n a", "new\n", "one\n"),
    ("echo new > n; touch -a -r a n; mv n a", "new\n", "one\n"),
    ("cp -p a n; echo more >> n; mv n a", "one\nmore\n", "one\n"),
    ("cp -a a n; mv n a", "one\n", "one\n"),
    ("rm a; echo new > a; touch -a -r b a", "new\n", "one\n"),
    ("rm a; echo new > a; echo more >> b", "new\n", "one\nmore\n"),
    ("sed -i s/one/two/ a; touch -a -r b a; echo more >> b", "two\n", "one\nmore\n"),
    ("cp -p a n; echo more >> n; mv n b", "one\n", "one\nmore\n"),
];

/// What changes the one file.
const CHANGED: &[(&str, &str)] = &[
    ("echo more >> a", "one\nmore\n"),
    ("echo new > b", "new\n"),
    ("cat a b; echo more >> b", "one\nmore\n"),
];

/// Runs it, perhaps looks at what it did, and commits it; both contents, and whether they are one file.
fn committed(script: &str, looks_first: bool) -> (String, String, bool) {
    let tool = Tool::new(TENTATIVE);
    let (a, b) = (tool.environment.work().join("a"), tool.environment.work().join("b"));
    fs::write(&a, "one\n").expect("it works");
    fs::hard_link(&a, &b).expect("it works");
    tool.run(&["run", "--", "sh", "-ec", script]).ended(0);
    if looks_first {
        // Reads the files outside and inside, which sets the times of access of both where they are not kept.
        tool.run(&["diff"]).ended(0);
        for path in [&a, &b] {
            fs::read(path).expect("it works");
        }
    }
    tool.run(&["commit"]).ended(0);
    let same = fs::metadata(&a).expect("it works").ino() == fs::metadata(&b).expect("it works").ino();
    (fs::read_to_string(a).expect("it works"), fs::read_to_string(b).expect("it works"), same)
}

#[test]
fn a_file_that_takes_a_name_leaves_the_other_names_alone() {
    require!(Feature::Overlay);
    for looks_first in [false, true] {
        for (script, a, b) in REPLACED {
            let wanted = ((*a).to_owned(), (*b).to_owned(), false);
            assert_eq!(committed(script, looks_first), wanted, "{script}, {looks_first}");
        }
        for (script, content) in CHANGED {
            let wanted = ((*content).to_owned(), (*content).to_owned(), true);
            assert_eq!(committed(script, looks_first), wanted, "{script}, {looks_first}");
        }
    }
}

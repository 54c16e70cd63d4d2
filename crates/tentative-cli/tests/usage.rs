//! Wrong command lines: each is an error of one line that names what is wrong, with hints, and the status 125.

use std::process::Output;

use tentative_testkit::Environment;

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

fn tentative(environment: &Environment, arguments: &[&str]) -> Output {
    environment.command(TENTATIVE).args(arguments).output().expect("tentative starts")
}

#[track_caller]
fn assert_usage_error(arguments: &[&str], expected: &str) {
    let environment = Environment::new();
    let output = tentative(&environment, arguments);
    let said = String::from_utf8(output.stderr).expect("errors are text");
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "errors go to standard error");
    assert!(said.starts_with("error: ") && said.contains(expected), "{said}");
    assert!(said.lines().skip(1).all(|line| line.starts_with("hint: ")), "{said}");
    assert!(said.lines().count() > 1, "a way out is named: {said}");
}

#[test]
fn verbs_that_are_not_there_are_refused() {
    for verb in ["undo", "review", "export", "apply", "effects", "gc"] {
        assert_usage_error(&[verb], &format!("{verb} is not supported by this version"));
    }
    for option in ["--session=x", "--on=0123abcd", "--require-reversible"] {
        assert_usage_error(&["run", option, "true"], "is not supported by this version");
    }
    for verb in ["halp", "-x"] {
        assert_usage_error(&[verb], verb);
    }
    assert_usage_error(&["help", "halp"], "halp");
}

#[test]
fn help_is_what_was_asked_for() {
    let environment = Environment::new();
    for (asked, same) in [(&["help"][..], &["--help"][..]), (&["help", "run"], &["run", "--help"])] {
        let output = tentative(&environment, asked);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(output.stdout, tentative(&environment, same).stdout);
    }
}

#[test]
fn values_that_are_none_are_refused() {
    assert_usage_error(&["run", "--allow", "nett", "true"], "unknown kind 'nett'");
    assert_usage_error(&["run", "--allow", "net:*.example.org", "true"], "'*.example.org' would match less");
    assert_usage_error(
        &["run", "--deny", "net:*.example.org:443", "true"],
        "'*.example.org' would match less",
    );
    for (path, what) in [
        ("/etc/passwd", "no device"),
        ("/etc", "a directory"),
        ("/proc/self/exe", "a symbolic link"),
        ("/dev/no-such-device", "not there"),
    ] {
        let rule = format!("device:{path}");
        assert_usage_error(&["run", "--allow", &rule, "true"], &format!("'{path}' is {what}"));
    }
    assert_usage_error(&["run", "--deny", "listen", "true"], "'listen' needs a target");
    assert_usage_error(&["run", "--without", "file", "true"], "layers that can be left out are files");
    assert_usage_error(&["run", "--without", "memory", "true"], "always has its own memory");
    assert_usage_error(&["run", "--timeout", "soon", "true"], "'soon' is no time");
    assert_usage_error(&["run", "--memory-limit", "much", "true"], "'much' is no size");
    assert_usage_error(&["run", "--output", "later", "true"], "later");
    assert_usage_error(&["run", "--ask", "--keep", "true"], "cannot be used with");
    assert_usage_error(&["run", "--commit=never", "true"], "never");
    assert_usage_error(&["show", "--json", "--output"], "cannot be used with");
}

#[test]
fn transactions_that_are_not_there_are_refused() {
    for verb in ["show", "diff", "commit", "rollback"] {
        assert_usage_error(&[verb], "no transaction is pending");
        assert_usage_error(&[verb, "0123abcd"], "no transaction '0123abcd'");
        assert_usage_error(&[verb, ""], "no transaction ''");
        assert_usage_error(&[verb, "../../etc"], "no transaction '../../etc'");
    }
}

#[test]
fn no_arguments_print_the_help_as_an_error() {
    let environment = Environment::new();
    let output = tentative(&environment, &[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage: tentative <VERB>"));
}

#[test]
fn help_and_version_are_what_was_asked_for() {
    let environment = Environment::new();
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let output = tentative(&environment, arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty());
        assert!(!output.stdout.contains(&0x1b), "no colour without a terminal");
    }
    let version = tentative(&environment, &["--version"]).stdout;
    assert_eq!(String::from_utf8_lossy(&version), format!("tentative {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let environment = Environment::new();
    let script = format!("{TENTATIVE} pathways --json | head -1; test ${{PIPESTATUS[0]}} = 141");
    let output = environment.command("bash").args(["-c", &script]).output().expect("there is a bash");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_store_that_cannot_be_used_is_named_with_the_way_out() {
    let environment = Environment::new();
    let file = environment.write("file", "not a directory");
    let output = environment
        .command(TENTATIVE)
        .arg("list")
        .env("TENTATIVE_HOME", file)
        .output()
        .expect("tentative starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(122), "{said}");
    assert!(
        said.contains("error: cannot open the store") && said.contains("hint: set TENTATIVE_HOME"),
        "{said}"
    );

    std::fs::write(environment.store().join("format"), "another 7\n").expect("the store is ours");
    let output = tentative(&environment, &["list"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(122), "{said}");
    assert!(said.contains("unknown format") && said.contains("hint: another version"), "{said}");
}

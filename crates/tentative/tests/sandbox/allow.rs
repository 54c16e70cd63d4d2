//! What a policy allows happens outside, once, and is recorded as escaped.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use tentative::{
    effect::{Class, Decision},
    policy::{Action, Kind, Policy, Rule},
    program::{Ended, How, ProgramOptions},
};

use crate::{
    program::{crossings, run_and_roll_back},
    reach::{Outside, PYTHON, options, programs},
    runner::Test,
};

pub(crate) const TESTS: &[Test] = &[
    ("connections_are_made_by_the_monitor", connections_are_made_by_the_monitor),
    ("datagrams_are_sent_by_the_monitor", datagrams_are_sent_by_the_monitor),
    ("unix_sockets_are_reached", unix_sockets_are_reached),
    ("signals_are_sent", signals_are_sent),
    ("a_port_is_served_to_the_host", a_port_is_served_to_the_host),
    ("a_later_rule_denies", a_later_rule_denies),
    ("what_stays_inside_is_not_recorded", what_stays_inside_is_not_recorded),
    ("a_far_host_is_unreachable", a_far_host_is_unreachable),
    ("only_devices_are_shown", only_devices_are_shown),
];

/// The parameters of the outside, as it printed them.
struct Parameters(String);

impl Parameters {
    fn word(&self, name: &str) -> String {
        let (_, rest) = self.0.split_once(&format!("\"{name}\": ")).unwrap();
        rest.split([',', '}']).next().unwrap().trim_matches('"').to_owned()
    }
}

fn rule(action: Action, text: &str) -> Rule {
    Rule { action, kind: text.parse().unwrap() }
}

fn run_allowed(attempt: &str, parameters: &str, rules: Vec<Rule>) -> Ended {
    let policy = Policy { rules };
    run_and_roll_back(&ProgramOptions { policy, ..options(attempt, parameters) }).unwrap()
}

/// Makes an attempt that is allowed and checks that it succeeded, was recorded and reached `contact`.
fn reaches(attempt: &str, operation: &str, allowed: impl Fn(&Parameters) -> String, contact: &str) {
    let mut outside = Outside::start();
    let parameters = Parameters(outside.parameters.clone());
    let ended = run_allowed(attempt, &parameters.0, vec![rule(Action::Allow, &allowed(&parameters))]);
    assert_eq!(ended.how, How::Exited(0), "{attempt}: {:?}", crossings(&ended));
    let effects = crossings(&ended);
    let effect =
        effects.iter().find(|effect| effect.class == Class::Escaped).unwrap_or_else(|| panic!("{attempt}"));
    assert_eq!((effect.operation.as_str(), effect.decision), (operation, Decision::Allowed), "{attempt}");
    assert!(!ended.record.verdict.rollback.safe, "{attempt}");
    let state = outside.state();
    assert!(state.contains(contact), "{attempt}: {state}");
}

fn connections_are_made_by_the_monitor() {
    let port = |parameters: &Parameters| format!("net:127.0.0.1:{}", parameters.word("tcp"));
    reaches("tcp", "connect", port, "\"tcp\": 1");
    reaches("without_waiting", "connect", port, "\"tcp\": 1");
    reaches("tcp", "connect", |parameters| format!("net:localhost:{}", parameters.word("tcp")), "\"tcp\": 1");
    reaches("tcp", "connect", |_| "net".to_owned(), "\"tcp\": 1");
    reaches("tcp6", "connect", |parameters| format!("net:[::1]:{}", parameters.word("tcp6")), "\"tcp6\": 1");
}

fn datagrams_are_sent_by_the_monitor() {
    let port = |parameters: &Parameters| format!("net:127.0.0.1:{}", parameters.word("udp"));
    reaches("udp_sendto", "sendto", port, "\"udp\": 1");
    reaches("udp_sendmsg", "sendmsg", port, "\"udp\": 1");
    reaches("udp_sendmmsg", "sendmmsg", port, "\"udp\": 1");
    reaches("udp_connect", "connect", port, "\"udp\": 2");
}

fn unix_sockets_are_reached() {
    reaches("unix_path", "connect", |p| format!("unix:{}/stream.sock", p.word("base")), "\"path\": 1");
    reaches("unix_name", "connect", |p| format!("unix:@tentative-{}", p.word("pid")), "\"name\": 1");
    reaches(
        "unix_datagram",
        "sendto",
        |p| format!("unix:{}/datagram.sock", p.word("base")),
        "\"datagram\": 1",
    );
}

fn signals_are_sent() {
    reaches("signal", "kill", |parameters| format!("signal:{}", parameters.word("victim")), "[10] before");
}

fn a_port_is_served_to_the_host() {
    // Taken for a moment to find one that is free.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let parameters = format!("{{\"free\": {port}}}");
    let script = programs().join("reach.py");
    let mut client =
        Command::new(PYTHON).arg(&script).args(["fetch", &parameters]).stdin(Stdio::null()).spawn().unwrap();
    let ended = run_allowed("serve", &parameters, vec![rule(Action::Allow, &format!("listen:{port}"))]);
    let fetched = client.wait().unwrap();
    assert_eq!(ended.how, How::Exited(0), "{:?}", crossings(&ended));
    assert!(fetched.success());
    assert!(
        crossings(&ended).iter().any(|effect| effect.operation == "bind" && effect.class == Class::Escaped)
    );
}

fn a_later_rule_denies() {
    let mut outside = Outside::start();
    let parameters = Parameters(outside.parameters.clone());
    let denied = format!("net:127.0.0.1:{}", parameters.word("tcp"));
    let rules = vec![rule(Action::Allow, "net"), rule(Action::Deny, &denied)];
    let before = outside.state();
    let ended = run_allowed("tcp", &parameters.0, rules);
    assert_eq!(ended.how, How::Exited(1));
    assert_eq!(outside.state(), before);
}

fn what_stays_inside_is_not_recorded() {
    let ended = run_and_roll_back(&options("both_sides", "{}")).unwrap();
    assert_eq!(ended.how, How::Exited(0));
    assert_eq!(crossings(&ended), []);
}

fn a_far_host_is_unreachable() {
    let ended = run_and_roll_back(&options("far", "{}")).unwrap();
    let effects = crossings(&ended);
    let [effect] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(effect.target, "tcp 192.0.2.1:80");
    assert_eq!(effect.errno, Some(101));
    assert_eq!(effect.hint.as_deref(), Some("--allow net:192.0.2.1:80"));
}

/// The rule's text says so before; this is what the sandbox itself does about anything else.
fn only_devices_are_shown() {
    let directory = tempfile::TempDir::new_in("/var/tmp").unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "content").unwrap();
    symlink("/dev/zero", &link).unwrap();
    let shown = |path: &Path| {
        let kind = Kind::Device(path.to_owned());
        let policy = Policy { rules: vec![Rule { action: Action::Allow, kind }] };
        let argv = ["/bin/sh", "-c", "test -c /dev/null && : > /dev/null"].map(Into::into).into();
        run_and_roll_back(&ProgramOptions { policy, argv, ..ProgramOptions::default() })
    };
    for path in [&file, &link, directory.path(), &directory.path().join("none")] {
        assert!(shown(path).is_err(), "{}", path.display());
        assert_eq!(fs::read_to_string(&file).unwrap(), "content");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    for node in ["/dev/null", "/dev/zero", "/dev/loop-control", "/dev/fuse"].map(Path::new) {
        if node.exists() {
            let ended = shown(node).unwrap();
            assert_eq!(ended.how, How::Exited(0), "{}", node.display());
            assert!(ended.record.changes.is_empty(), "{:?}", ended.record.changes);
        }
    }
}

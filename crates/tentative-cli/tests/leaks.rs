//! Nothing is left of a run: no process, mount or file. Alone in its file, since what others do at the same time counts.

use tentative_testkit::{
    Environment, Feature,
    leaks::{Baseline, Leaks},
    require,
};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

#[test]
fn nothing_is_left_of_a_run() {
    require!(Feature::Overlay);
    let environment = Environment::new();
    let baseline = Baseline::take(&environment);
    for mode in ["--rollback", "--commit"] {
        let script = "echo text > made; sleep 60 & setsid sleep 60 & exit 0";
        let mut command = environment.command(TENTATIVE);
        let output = command.args(["run", mode, "sh", "-c", script]).output().expect("tentative starts");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let mut leaks = baseline.leaks();
    leaks.files.retain(|path| !path.ends_with("format") && !path.ends_with("gate"));
    assert_eq!(leaks, Leaks::default());
}

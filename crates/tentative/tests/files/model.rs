//! Random operations, plainly and in a transaction that commits: the same tree in the end.
//!
//! Repeats a failure by its number; `TENTATIVE_MODEL_ROUNDS` asks for more of them.

use std::{env, fs, path::Path, process::Command};

use tentative::files::stage::{StageOptions, stage};

use crate::{inside::Place, tree};

const ROUNDS: u64 = 25;

const SETUP: &str = "umask 022; mkdir -p d/e w; for f in a b c d/a d/b d/e/a w/a; do echo $f > $f; done; ln -s a s; [ $(id -u) != 0 ] || ln a d/l; sleep 0.02";

/// A small generator; its numbers only have to differ from round to round.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn path(&mut self) -> &'static str {
        const PATHS: [&str; 14] =
            ["a", "b", "c", "n", "s", "d", "d/a", "d/b", "d/l", "d/e", "d/e/a", "d/e/n", "w/a", "w/n"];
        PATHS[usize::try_from(self.below(14)).unwrap()]
    }

    /// One operation that may fail, in which case it fails in both worlds. Directories are not renamed, which is the
    /// monitor's work; an ordinary user has no links, since the kernel
    /// parts them inside.
    fn operation(&mut self, links: bool) -> String {
        let (one, other, number) = (self.path(), self.path(), self.below(1000));
        match self.below(if links { 12 } else { 11 }) {
            0 => format!("[ -d {one} ] || echo {number} > {one}"),
            1 => format!("[ ! -f {one} ] || echo {number} >> {one}"),
            2 => format!("rm -rf {one}"),
            3 => format!("mkdir -p {one}"),
            4 | 5 => format!("[ -d {one} ] || [ -d {other} ] || mv -fT {one} {other}"),
            6 => format!("rm -rf {one}; ln -s {other} {one}"),
            7 => format!(
                "[ ! -e {one} ] || chmod {} {one}",
                ["700", "755", "711", "750"][usize::try_from(number % 4).unwrap()]
            ),
            8 => format!("[ ! -f {one} ] || truncate -s {number} {one}"),
            9 => format!("rm -rf {one}; mkdir {one}; echo {number} > {one}/x"),
            10 => format!("[ ! -f {one} ] || {{ cp {one} t; mv -fT t {one}; }}"),
            _ => format!("[ -d {one} ] || [ -e {other} ] || ln {one} {other}"),
        }
    }
}

fn sh(directory: &Path, script: &str) {
    let output = Command::new("sh").arg("-c").arg(script).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn model_of_random_operations() {
    let rounds =
        env::var("TENTATIVE_MODEL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let links = rustix::process::geteuid().is_root();
    for round in 0..rounds {
        let mut random = Random(round + 1);
        random.below(1);
        let count = 1 + random.below(25);
        let operations: Vec<String> =
            (0..count).map(|_| format!("{{ {}; }} 2>/dev/null", random.operation(links))).collect();
        let script = format!("umask 022\n{}\ntrue", operations.join("\n"));

        let plain = tempfile::tempdir().unwrap();
        let _opened = tentative_testkit::Opened::below(plain.path());
        let ground = plain.path().join("ground");
        fs::create_dir(&ground).unwrap();
        sh(&ground, SETUP);
        sh(&ground, &script);
        let place = Place::new();
        sh(&place.ground, SETUP);
        let before = tree::look(&place.ground);
        let (mut transaction, _) = place.after(&script);
        if round % 2 == 0 {
            transaction.keep().unwrap();
        }
        assert_eq!(
            tree::differences(&tree::look(&place.ground), &before),
            [""; 0],
            "round {round}: {script}"
        );
        let staged = stage(transaction, StageOptions::default()).map_err(|(_, error)| error);
        let staged = staged.unwrap_or_else(|error| panic!("round {round}: {script}: {error:?}"));
        let steps = staged.steps().to_vec();
        let applied = staged.publish().unwrap().apply();
        applied
            .unwrap_or_else(|error| panic!("round {round}: {script}: {error:?} {steps:#?}"))
            .finish()
            .unwrap();
        let differences = tree::differences(&tree::look(&place.ground), &tree::look(&ground));
        assert!(differences.is_empty(), "round {round}: {script}: {differences:#?} {steps:#?}");
    }
}

//! The transcripts in README.md and in docs/guide are true: each is run as it is written.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tentative_testkit::{Environment, Feature, require, transcript};

const TENTATIVE: &str = env!("CARGO_BIN_EXE_tentative");

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What the transcripts find in their working directory.
fn prepared() -> Environment {
    let environment = Environment::new();
    environment.write("settings.toml", "debug = false\n");
    environment.write("notes.txt", "note\n");
    environment.write(
        "install.sh",
        "echo \"installing\"\n\
         echo \"debug = true\" >> settings.toml\n\
         mkdir plugins && echo \"print('hello')\" > plugins/hello.py\n\
         rm notes.txt\n\
         curl --silent http://127.0.0.1:8000/telemetry || true\n",
    );
    environment
}

fn check(document: &Path) {
    let text = fs::read_to_string(document).expect("the document is there");
    let tool = Path::new(TENTATIVE).parent().expect("the executable is in a directory");
    transcript::check(&text, &prepared(), tool);
}

#[test]
fn the_readme_is_true() {
    require!(Feature::Overlay, Feature::Program("curl"));
    check(&repository().join("README.md"));
}

#[test]
fn the_guides_are_true() {
    require!(Feature::Overlay, Feature::Program("curl"));
    let Ok(guides) = fs::read_dir(repository().join("docs/guide")) else { return };
    for guide in guides {
        let path = guide.expect("the directory can be read").path();
        if fs::read_to_string(&path).is_ok_and(|text| text.contains("```console")) {
            check(&path);
        }
    }
}

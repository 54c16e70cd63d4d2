//! A transaction whose code is a shell script. Never leaves a mount, process or directory behind.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tentative::{
    files::plan::{Plan, Privilege},
    store::{Store, Transaction},
};

const DIRECTORY: &str = "TENTATIVE_TEST_DIRECTORY";
const START: &str = "--- script";
const SCRIPT: &str = "TENTATIVE_TEST_SCRIPT";

/// A store and a directory to play in, on the same file system.
pub(crate) struct Place {
    pub(crate) store: Store,
    pub(crate) ground: PathBuf,
    _opened: tentative_testkit::Opened,
    _directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        let directory = tempfile::Builder::new().prefix("tentative-test-").tempdir().unwrap();
        let ground = directory.path().join("ground");
        fs::create_dir(&ground).unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let opened = tentative_testkit::Opened::below(directory.path());
        Place { store, ground, _opened: opened, _directory: directory }
    }

    /// A transaction with its plan.
    pub(crate) fn begin(&self) -> (Transaction, Plan) {
        let transaction = self.store.create().unwrap();
        let plan = Plan::make(&transaction, Privilege::detect()).unwrap();
        transaction.save_plan(&plan).unwrap();
        (transaction, plan)
    }

    /// A transaction in which the script ran in the ground directory and ended well.
    pub(crate) fn after(&self, script: &str) -> (Transaction, Plan) {
        let (transaction, plan) = self.begin();
        let output = run(&transaction, &self.ground, script);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        (transaction, plan)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that failed leaves its transaction; its directories on other file systems are not in the store.
        let recovered = self.store.recover();
        assert!(recovered.is_ok() || std::thread::panicking(), "{recovered:?}");
        for summary in self.store.list().unwrap_or_default() {
            if let Ok(transaction) = self.store.load(&summary.id) {
                transaction.discard().unwrap();
            }
        }
    }
}

/// Runs a script inside the transaction's mounts.
pub(crate) fn run(transaction: &Transaction, directory: &Path, script: &str) -> Output {
    let root = transaction.dir().join("root");
    fs::create_dir_all(&root).unwrap();
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if Privilege::detect() == Privilege::User {
        command.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    let mut output = command
        .arg(env::current_exe().unwrap())
        .args(["--exact", "inside::enter", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, transaction.dir())
        .env(SCRIPT, format!("cd '{}'\necho; echo {START}\n{script}", directory.display()))
        .output()
        .unwrap();
    fs::remove_dir(&root).unwrap();
    // What the test harness printed before the script took its place.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some((_, after)) = text.split_once(&format!("{START}\n")) {
        output.stdout = after.as_bytes().to_vec();
    }
    output
}

#[test]
#[ignore = "runs in the mount namespace that `run` makes"]
fn enter() {
    let directory = PathBuf::from(env::var_os(DIRECTORY).unwrap());
    let plan: Plan = serde_json::from_slice(&fs::read(directory.join("plan.json")).unwrap()).unwrap();
    let root = directory.join("root");
    plan.mount(&root).unwrap();
    for name in ["dev", "proc"] {
        rustix::mount::mount_bind_recursive(format!("/{name}"), root.join(name)).unwrap();
    }
    plan.mount_devices(&root).unwrap();
    rustix::process::chroot(&root).unwrap();
    rustix::process::chdir("/").unwrap();
    let error = Command::new("/bin/sh").arg("-c").arg(env::var_os(SCRIPT).unwrap()).exec();
    panic!("{error}");
}

//! A hermetic environment: a directory of its own with a home and a store, and commands that see nothing else of the
//! tester's environment.
//!
//! A test that fails keeps its directory and prints the commands that repeat it.

use std::{
    cell::RefCell,
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Where programs are looked for: the system's own directories, nobody's additions.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A test's own home, store and work directory.
#[derive(Debug)]
pub struct Environment {
    directory: Option<TempDir>,
    root: PathBuf,
    commands: RefCell<Vec<String>>,
}

impl Environment {
    /// Makes the directories below the system's directory for temporary files.
    #[must_use]
    pub fn new() -> Environment {
        Environment::below(&std::env::temp_dir())
    }

    /// Makes the directories below a given one, for tests about a certain file system.
    ///
    /// # Panics
    ///
    /// When they cannot be made.
    #[must_use]
    pub fn below(parent: &Path) -> Environment {
        let directory = tempfile::Builder::new()
            .prefix("tentative-test-")
            .tempdir_in(parent)
            .expect("a test may make a directory");
        let root = directory.path().canonicalize().expect("a new directory has a path");
        for name in ["home", "store", "work"] {
            fs::create_dir(root.join(name)).expect("a test may make a directory");
        }
        Environment { directory: Some(directory), root, commands: RefCell::default() }
    }

    /// The directory that holds all others.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The home directory.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// The store: `TENTATIVE_HOME` of every command.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// An empty directory to work in, where every command starts.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Writes a file below the work directory, with the directories on the way to it; returns its path.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(name);
        let parent = path.parent().expect("a file below the work directory has a parent");
        fs::create_dir_all(parent).expect("a test may make a directory");
        fs::write(&path, content).expect("a test may write below its directory");
        path
    }

    /// A command with a cleared environment: `PATH`, `HOME`, `TENTATIVE_HOME`, a UTF-8 locale, nothing else.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let program = program.as_ref();
        self.commands.borrow_mut().push(program.to_string_lossy().into_owned());
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.home())
            .env("TENTATIVE_HOME", self.store())
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .current_dir(self.work());
        command
    }

    /// Gives everything in here to an ordinary user and lets a command run as him. Root only.
    ///
    /// # Panics
    ///
    /// When the directories cannot be given away.
    pub fn run_as(&self, command: &mut Command, uid: u32) {
        let given = Command::new("chown").arg("-R").arg(format!("{uid}:{uid}")).arg(&self.root).status();
        assert!(given.expect("there is a chown").success(), "root may give its files away");
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o755)).expect("root may change modes");
        command.uid(uid).gid(uid);
    }
}

impl Default for Environment {
    fn default() -> Environment {
        Environment::new()
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        let Some(directory) = self.directory.take() else { return };
        if !std::thread::panicking() {
            // What the test ended may still be tidying up after itself in there.
            for _ in 0..250 {
                crate::opened::open_up(directory.path());
                if fs::remove_dir_all(directory.path()).is_ok() || !directory.path().exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            crate::places::remove_of(directory.path());
            return;
        }
        let kept = directory.keep();
        let mut text = format!("the failing test's directory is kept: {}\n", kept.display());
        for command in self.commands.borrow().iter() {
            text += &format!(
                "  env -i -C '{0}/work' PATH={PATH} HOME='{0}/home' TENTATIVE_HOME='{0}/store' {command} …\n",
                kept.display()
            );
        }
        // Already failing: if standard error is gone, there is nobody to tell.
        drop(std::io::stderr().write_all(text.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_see_nothing_of_the_testers_environment() {
        let environment = Environment::new();
        let printed = environment.command("env").output().unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        let mut names: Vec<_> = printed.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LANG", "PATH", "TENTATIVE_HOME", "TERM"]);
    }

    #[test]
    fn the_directory_goes_with_the_environment() {
        let environment = Environment::new();
        let root = environment.root().to_owned();
        environment.write("deep/file", "text");
        drop(environment);
        assert!(!root.exists());
    }

    #[test]
    fn a_command_can_run_as_an_ordinary_user() {
        crate::require!(crate::Feature::Root);
        let environment = Environment::new();
        let mut command = environment.command("sh");
        environment.run_as(&mut command, 60_123);
        let output = command.args(["-c", "id -u && touch made && id -G"]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "60123\n60123\n");
        assert!(environment.work().join("made").exists());
    }
}

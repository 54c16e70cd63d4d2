//! What a test needs of the machine, found by trying and never by asking for a version.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Something that a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// To be root of the machine.
    Root,
    /// Not to be root.
    OrdinaryUser,
    /// A user namespace for whoever runs the test.
    UserNamespaces,
    /// An overlay mount inside a new user namespace.
    Overlay,
    /// A program on the path.
    Program(&'static str),
}

/// Why a feature is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The test is for root only.
    #[error("needs root")]
    NotRoot,
    /// The test is for ordinary users only.
    #[error("needs an ordinary user")]
    NotOrdinaryUser,
    /// The kernel or its settings refuse user namespaces.
    #[error("needs user namespaces")]
    UserNamespaces,
    /// The kernel or its settings refuse overlay mounts.
    #[error("needs overlay mounts in a user namespace")]
    Overlay,
    /// The program is not installed.
    #[error("needs the program {0}")]
    Program(&'static str),
}

impl Feature {
    /// Tries it.
    ///
    /// # Errors
    ///
    /// [`Missing`] says what this machine or this user does not have.
    pub fn available(self) -> Result<(), Missing> {
        let (there, missing) = match self {
            Feature::Root => (is_root(), Missing::NotRoot),
            Feature::OrdinaryUser => (!is_root(), Missing::NotOrdinaryUser),
            Feature::UserNamespaces => (succeeds("unshare", &["-Ur", "true"]), Missing::UserNamespaces),
            Feature::Overlay => (overlay_mounts(), Missing::Overlay),
            Feature::Program(name) => (find_program(name).is_some(), Missing::Program(name)),
        };
        if there { Ok(()) } else { Err(missing) }
    }
}

/// Whether the test runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where a program is on the path.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Mounts an overlay the way an ordinary user has to, inside a tmpfs that goes with its namespace.
fn overlay_mounts() -> bool {
    const SCRIPT: &str = "mount -t tmpfs none /mnt && cd /mnt && mkdir l u w m && \
                          mount -t overlay -o userxattr,lowerdir=l,upperdir=u,workdir=w none m";
    succeeds("unshare", &["-Urm", "sh", "-c", SCRIPT])
}

/// Whether a command ends with 0.
fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_either_root_or_not() {
        assert_ne!(Feature::Root.available().is_ok(), Feature::OrdinaryUser.available().is_ok());
    }

    #[test]
    fn a_program_that_nobody_has_is_missing_by_name() {
        let missing = Feature::Program("no-such-program").available().unwrap_err();
        assert_eq!(missing.to_string(), "needs the program no-such-program");
    }

    #[test]
    fn this_machine_can_run_the_tests_of_sandboxes() {
        crate::require!(Feature::UserNamespaces, Feature::Overlay);
    }
}

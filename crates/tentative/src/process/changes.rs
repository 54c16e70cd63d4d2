//! What changed in layer 4, by comparison with the attributes at begin.
//!
//! The environment is the interpreter's to compare: the library does not know which of several copies counts.

use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getrlimit};

use crate::{
    change::{Change, ChangeKind},
    layer::Layer,
    process::gaps::{Open, open_descriptors},
};

const LIMITS: [(&str, Resource); 6] = [
    ("limits.core", Resource::Core),
    ("limits.cpu", Resource::Cpu),
    ("limits.data", Resource::Data),
    ("limits.fsize", Resource::Fsize),
    ("limits.nofile", Resource::Nofile),
    ("limits.stack", Resource::Stack),
];

/// Attributes of this process.
#[derive(Clone, Debug)]
pub struct Attributes {
    directory: Option<PathBuf>,
    umask: Option<String>,
    limits: Vec<Rlimit>,
    descriptors: Vec<(i32, Open)>,
    /// Numbers of files that a branch has a pipe for.
    stand_ins: Vec<i32>,
}

impl Attributes {
    /// Reads them; what cannot be read is not compared.
    #[must_use]
    pub fn capture() -> Attributes {
        Attributes::with_descriptors(open_descriptors().unwrap_or_default())
    }

    /// Reads those that are not known yet.
    #[must_use]
    pub fn with_descriptors(descriptors: Vec<(i32, Open)>) -> Attributes {
        Attributes {
            directory: std::env::current_dir().ok(),
            umask: umask(),
            limits: LIMITS.iter().map(|(_, resource)| getrlimit(*resource)).collect(),
            descriptors,
            stand_ins: Vec::new(),
        }
    }

    /// Notes that a branch has a pipe at that number instead, which is no change.
    pub(crate) fn expect_stand_in(&mut self, number: i32) {
        self.stand_ins.push(number);
    }

    /// What differs now, apart from descriptors that are not the program's.
    #[must_use]
    pub fn changes(&self, own: &[i32]) -> Vec<Change> {
        let now = Attributes::capture();
        let mut changes = Vec::new();
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        compare(&mut changes, "cwd", path(&self.directory), path(&now.directory));
        compare(&mut changes, "umask", self.umask.clone(), now.umask.clone());
        for (index, (name, _)) in LIMITS.iter().enumerate() {
            compare(&mut changes, name, Some(limit(&self.limits[index])), Some(limit(&now.limits[index])));
        }
        self.compare_descriptors(&now, own, &mut changes);
        changes
    }

    fn compare_descriptors(&self, now: &Attributes, own: &[i32], changes: &mut Vec<Change>) {
        let words = |list: &[(i32, Open)], number: i32| {
            list.iter().find(|(known, _)| *known == number).map(|(_, open)| open.in_words())
        };
        let mut numbers: Vec<i32> =
            self.descriptors.iter().chain(&now.descriptors).map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers.into_iter().filter(|number| *number > 2 && !own.contains(number)) {
            let (before, after) = (words(&self.descriptors, number), words(&now.descriptors, number));
            if !(self.stand_ins.contains(&number) && after == Some(Open::Pipe.in_words())) {
                compare(changes, &format!("descriptor.{number}"), before, after);
            }
        }
    }
}

fn compare(changes: &mut Vec<Change>, name: &str, before: Option<String>, after: Option<String>) {
    let kind = match (&before, &after) {
        _ if before == after => return,
        (None, _) => ChangeKind::Created,
        (_, None) => ChangeKind::Deleted,
        _ => ChangeKind::Modified,
    };
    changes.push(Change::of_name(Layer::Process, name.to_owned(), kind, before, after));
}

fn limit(limit: &Rlimit) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
    format!("{} of {}", number(limit.current), number(limit.maximum))
}

/// The file mode mask, without the race of setting it where other threads run.
fn umask() -> Option<String> {
    if let Some(mask) = tentative_sys::process::state::umask() {
        return Some(format!("{mask:04o}"));
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Umask:")).map(|mask| mask.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Subject;

    #[test]
    fn what_is_opened_is_a_change() {
        let before = Attributes::capture();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let name = Subject::Name(format!("descriptor.{number}"));
        let is_told = |own: &[i32]| {
            before.changes(own).iter().any(|change| change.subject == name && change.before.is_none())
        };
        assert!(is_told(&[]) && !is_told(&[number]));
    }
}

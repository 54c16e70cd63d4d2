//! Where the steps of a commit will be taken: the directories that they act in and what is at their paths, as they are
//! when the commit is staged. Only looks.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    files::stage::StageError,
    journal::{Ground, Inode, Looks, Planned, Step},
};

/// Adds to each step where it is taken. `redos` are objects from which those that wait can be made again.
pub(super) fn of_steps(
    steps: Vec<Step>,
    redos: &BTreeMap<PathBuf, PathBuf>,
) -> Result<Vec<Planned>, StageError> {
    let mut before = Before::default();
    let mut planned = Vec::with_capacity(steps.len());
    for step in steps {
        let waits = match &step {
            Step::Take { aside, .. } | Step::Remove { aside, .. } | Step::Link { aside, .. } => Some(aside),
            Step::Put { staged, .. } => Some(staged),
            Step::Open { .. } | Step::Rewrite { .. } => None,
        };
        let ground = Ground {
            parent: inode(&before.now(directory_of(step.path())))?,
            waits: waits.map(|waits| inode(directory_of(waits))).transpose()?.flatten(),
            original: before.original(&step)?,
            redo: waits.and_then(|waits| redos.get(waits)).cloned(),
        };
        before.add(&step);
        planned.push(Planned { step, ground: Some(ground) });
    }
    Ok(planned)
}

/// The root is in no directory but itself.
fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// What the steps before one do to paths.
#[derive(Default)]
struct Before {
    /// Where what is put at a path waits.
    put: HashMap<PathBuf, PathBuf>,
    /// Where what is taken aside was.
    taken: HashMap<PathBuf, PathBuf>,
    moved: HashSet<PathBuf>,
}

impl Before {
    fn add(&mut self, step: &Step) {
        match step {
            Step::Put { staged, path, .. } => drop(self.put.insert(path.clone(), staged.clone())),
            Step::Take { path, aside, .. } => {
                self.taken.insert(aside.clone(), path.clone());
                self.moved.insert(path.clone());
            }
            Step::Remove { path, .. } => drop(self.moved.insert(path.clone())),
            Step::Open { .. } | Step::Link { .. } | Step::Rewrite { .. } => {}
        }
    }

    /// Where the object that will be at a path is now.
    fn now(&self, path: &Path) -> PathBuf {
        // The innermost of the trees that it comes with.
        let Some((at, staged)) = path.ancestors().find_map(|at| Some((at, self.put.get(at)?))) else {
            return path.to_owned();
        };
        if at == path {
            return self.taken.get(staged).unwrap_or(staged).clone();
        }
        path.strip_prefix(at).map_or_else(|_| path.to_owned(), |below| staged.join(below))
    }

    /// What will be at the step's path.
    fn original(&self, step: &Step) -> Result<Option<Looks>, StageError> {
        let path = step.path();
        match step {
            Step::Open { .. } | Step::Take { .. } | Step::Rewrite { content: false, .. } => Ok(None),
            // It is aside by then, unless a tree that is put before has brought something to the path again.
            Step::Put { .. } if self.moved.contains(path) && self.now(path) == path => Ok(None),
            _ => Ok(look(&self.now(path))?.map(|there| Looks::of(&there))),
        }
    }
}

fn inode(path: &Path) -> Result<Option<Inode>, StageError> {
    Ok(look(path)?.map(|there| Inode::of(&there)))
}

fn look(path: &Path) -> Result<Option<fs::Metadata>, StageError> {
    match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        other => other.map(Some).map_err(|source| StageError::Look { path: path.to_owned(), source }),
    }
}

//! The version of a dictionary: a number that the interpreter gives it anew with every change of its items.
//!
//! Comparing one number tells that thousands of names are bound as before, where reading each of them costs more than
//! everything else that a transaction does besides its fork. The number is CPython's own (PEP 509, `ma_version_tag`,
//! in 3.10 to 3.13); no function gives it, so it is read from the object's third word, and only after a trial has
//! shown that this word behaves like it. Invariant: equal versions of one living dictionary mean equal items, in the
//! same order; where this is not certain there is no version, and the items are compared.

use pyo3::{ffi, prelude::*, sync::PyOnceLock, types::PyDict};

/// The word of a dictionary that holds its version, counted from its start: after the reference count and the type,
/// and how many items it has.
const WORD: usize = 3;

/// Reads versions, where the interpreter keeps them.
#[derive(Clone, Copy)]
pub(crate) struct Versions {
    kept: bool,
}

impl Versions {
    /// Makes the trial once; it allocates, so the collector can run.
    pub(crate) fn find(py: Python<'_>) -> Versions {
        static KEPT: PyOnceLock<bool> = PyOnceLock::new();
        // A trial that fails for want of memory says nothing: without versions everything is right, and slower.
        Versions { kept: *KEPT.get_or_init(py, || are_kept(py).unwrap_or(false)) }
    }

    /// As in an interpreter that keeps none.
    pub(crate) const fn none() -> Versions {
        Versions { kept: false }
    }

    /// The version of a living dictionary; none in an interpreter that keeps none. Needs the interpreter's lock.
    pub(crate) fn of(self, dict: *mut ffi::PyObject) -> Option<u64> {
        self.kept.then(|| word(dict))
    }
}

/// What stands where the version is.
fn word(dict: *mut ffi::PyObject) -> u64 {
    // SAFETY: a dictionary has six words or more in every supported interpreter (its head, the number of its items,
    // a tag, its keys and its values), and the interpreter's lock is held, without which none of them changes.
    unsafe { dict.cast::<u64>().wrapping_add(WORD).read() }
}

/// Tries whether the word is a version: every kind of change gives one that no dictionary had, and looking gives none.
fn are_kept(py: Python<'_>) -> PyResult<bool> {
    let (dict, other) = (PyDict::new(py), PyDict::new(py));
    let mut seen = vec![word(dict.as_ptr())];
    let mut is_new = |dict: &Bound<'_, PyDict>| {
        let now = word(dict.as_ptr());
        let new = !seen.contains(&now);
        seen.push(now);
        new
    };
    let mut kept = true;
    for (name, value) in [("a", 1), ("b", 2), ("a", 3)] {
        dict.set_item(name, value)?;
        kept &= is_new(&dict);
        other.set_item(name, value)?;
        kept &= is_new(&other);
    }
    let before = word(dict.as_ptr());
    kept &= dict.get_item("a")?.is_some() && dict.copy()?.len() == 2 && word(dict.as_ptr()) == before;
    dict.del_item("b")?;
    kept &= is_new(&dict);
    dict.update(other.as_mapping())?;
    kept &= is_new(&dict);
    dict.clear();
    Ok(kept && is_new(&dict))
}

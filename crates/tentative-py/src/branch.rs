//! `Branch`: the handle on a transaction, in the branch.

use pyo3::prelude::*;
use tentative::transaction::{self, Elsewhere, Place};

use crate::{committed::Committed, errors, interpreter, report, room};

/// The handle on a transaction, in the branch.
#[pyclass(module = "tentative._tentative")]
pub(crate) struct Branch {
    /// None once it is committed.
    inner: Option<transaction::Branch>,
    /// The limits of the transaction around it.
    outer: Option<room::Limits>,
}

impl Branch {
    pub(crate) const fn of(inner: transaction::Branch, outer: Option<room::Limits>) -> Branch {
        Branch { inner: Some(inner), outer }
    }

    /// Where its code runs, unless it has been committed.
    pub(crate) fn place(&self) -> Option<Place> {
        self.inner.as_ref().map(transaction::Branch::place)
    }

    /// The library's handle, for whom it is.
    fn inside(&mut self, py: Python<'_>) -> PyResult<&mut transaction::Branch> {
        let branch = self.inner.as_mut().ok_or_else(|| errors::finished(py))?;
        branch.place().check().map_err(|elsewhere| errors::elsewhere(py, elsewhere))?;
        Ok(branch)
    }
}

#[pymethods]
impl Branch {
    /// Commits: returns in the origin process, whose memory is the branch's then. What it did is the owner's `_committed`
    /// before any instruction of Python's runs, among which a signal handler could raise.
    fn commit(&mut self, py: Python<'_>, owner: &Bound<'_, PyAny>) -> PyResult<()> {
        let outer = self.outer;
        let branch = self.inside(py)?;
        room::open();
        let handlers = interpreter::ForkHandlers::find().ok_or_else(|| errors::no_fork_handlers(py))?;
        interpreter::flush(py);
        handlers.before(py);
        let committed = branch.commit();
        handlers.after_in_parent(py);
        let committed = match committed {
            Ok(committed) => committed,
            Err(refused) => {
                let refused = errors::commit_refused(py, &refused);
                room::close();
                return Err(refused);
            }
        };
        room::become_one_with(outer);
        self.inner = None;
        owner.setattr("_committed", Committed::of(py, committed)?)
    }

    /// Lets a branch that has used up its memory have its reserve, so that it can come to its end. Allocates nothing of
    /// Python's.
    #[expect(clippy::unused_self, reason = "it is the branch's that asks")]
    fn make_room(&self) {
        room::open();
    }

    /// Ends the branch; the payload arrives in the origin's `Ended`. Does not return.
    pub(crate) fn rollback(&mut self, py: Python<'_>, payload: &[u8]) -> PyResult<()> {
        let branch = self.inside(py)?;
        interpreter::flush(py);
        Err(errors::elsewhere(py, branch.try_rollback(payload)))
    }

    /// Whether the caller is a child of the branch, which has a copy of this handle and may not use it.
    #[getter]
    fn is_in_child(&self) -> bool {
        self.place().is_some_and(|place| place.check() == Err(Elsewhere::Child))
    }

    /// What changed and crossed so far, memory excepted.
    fn report(&mut self, py: Python<'_>) -> PyResult<report::Report> {
        let branch = self.inside(py)?;
        Ok(report::Report::of(branch.report()))
    }

    /// What changed in the process's own state so far, a JSON array.
    fn process(&mut self, py: Python<'_>) -> PyResult<String> {
        let branch = self.inside(py)?;
        report::json(&branch.process_changes())
    }

    /// Counts what changed in memory so far.
    fn memory(&mut self, py: Python<'_>) -> PyResult<Vec<(&'static str, u64)>> {
        let branch = self.inside(py)?;
        Ok(report::memory_counts(&branch.memory_changes()))
    }
}

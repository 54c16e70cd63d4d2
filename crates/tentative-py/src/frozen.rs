//! `Frozen`: the handle on a branch that asks for its commit, in the origin.

use pyo3::prelude::*;
use tentative::transaction;

use crate::{begin::into_python, ended::Ended, errors, interpreter, report::Report};

/// The handle on a branch that asks for its commit and waits for the answer.
#[pyclass(module = "tentative._tentative", unsendable)]
pub(crate) struct Frozen {
    /// None once it is decided.
    inner: Option<transaction::Frozen>,
}

impl Frozen {
    pub(crate) const fn of(inner: transaction::Frozen) -> Frozen {
        Frozen { inner: Some(inner) }
    }
}

#[pymethods]
impl Frozen {
    /// Commits. Where that succeeds it is the branch's `commit` that returns; otherwise this returns what came next.
    fn commit(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let frozen = self.inner.take().ok_or_else(|| errors::finished(py))?;
        interpreter::flush(py);
        into_python(py, frozen.commit())
    }

    /// Sees that whoever has decided has left no threads running.
    fn may_commit(&self, py: Python<'_>) -> PyResult<()> {
        let frozen = self.inner.as_ref().ok_or_else(|| errors::finished(py))?;
        frozen.may_commit().map_err(|refused| errors::commit_refused(py, &refused))
    }

    /// What the branch did, names and memory excepted.
    fn report(&self, py: Python<'_>) -> PyResult<Report> {
        let frozen = self.inner.as_ref().ok_or_else(|| errors::finished(py))?;
        Ok(Report::of(frozen.report()))
    }

    /// How long it has run, seconds.
    fn duration(&self, py: Python<'_>) -> PyResult<f64> {
        let frozen = self.inner.as_ref().ok_or_else(|| errors::finished(py))?;
        Ok(frozen.duration().as_secs_f64())
    }

    /// Rolls back.
    fn rollback(&mut self, py: Python<'_>) -> PyResult<Ended> {
        let frozen = self.inner.take().ok_or_else(|| errors::finished(py))?;
        Ended::of(py, frozen.rollback())
    }
}

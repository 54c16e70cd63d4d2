//! `Committed`: a transaction that was committed, seen in the origin after it.

use pyo3::prelude::*;
use tentative::transaction;

use crate::report::Report;

/// A transaction that was committed.
#[pyclass(module = "tentative._tentative", frozen)]
pub(crate) struct Committed {
    /// What it did.
    #[pyo3(get)]
    report: Py<Report>,
    /// How long it ran, seconds.
    #[pyo3(get)]
    duration: f64,
    /// The process that was the branch: its end is waited for when Python drops this.
    _departed: transaction::Departed,
}

impl Committed {
    pub(crate) fn of(py: Python<'_>, committed: transaction::Committed) -> PyResult<Committed> {
        let report = Py::new(py, Report::of(committed.report))?;
        let duration = committed.duration.as_secs_f64();
        Ok(Committed { report, duration, _departed: committed.departed })
    }
}

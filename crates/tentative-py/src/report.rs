//! `Report`: what a transaction did, as JSON in the names of the record; `tentative/report.py` reads it.

use pyo3::{prelude::*, types::PyBytes};
use serde::Serialize;
use tentative::transaction;

/// What a transaction did.
#[pyclass(module = "tentative._tentative", frozen)]
pub(crate) struct Report {
    inner: Box<transaction::Report>,
}

impl Report {
    pub(crate) const fn of(inner: Box<transaction::Report>) -> Report {
        Report { inner }
    }
}

pub(crate) fn json(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}

#[pymethods]
impl Report {
    /// The changes, a JSON array.
    #[getter]
    fn changes(&self) -> PyResult<String> {
        json(&self.inner.changes)
    }

    /// The effects, a JSON array.
    #[getter]
    fn effects(&self) -> PyResult<String> {
        json(&self.inner.effects)
    }

    /// The verdict, a JSON object.
    #[getter]
    fn verdict(&self) -> PyResult<String> {
        json(&self.inner.verdict)
    }

    /// The containment, a JSON object.
    #[getter]
    fn containment(&self) -> PyResult<String> {
        json(&self.inner.containment)
    }

    /// What changed in memory: counts by name.
    #[getter]
    fn memory(&self) -> Vec<(&'static str, u64)> {
        memory_counts(&self.inner.memory)
    }

    /// What was written to standard output, where it was captured.
    #[getter]
    fn stdout<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.stdout)
    }

    /// What was written to standard error, where it was captured.
    #[getter]
    fn stderr<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.stderr)
    }
}

/// The counts by name, pages of 4 KiB.
pub(crate) fn memory_counts(memory: &transaction::MemoryChanges) -> Vec<(&'static str, u64)> {
    vec![
        ("pages_changed", memory.pages_changed),
        ("pages_new", memory.pages_new),
        ("pages_dropped", memory.pages_dropped),
        ("mappings_new", memory.mappings_new),
        ("mappings_gone", memory.mappings_gone),
        ("heap", memory.heap),
        ("stack", memory.stack),
        ("file", memory.file),
        ("anonymous", memory.anonymous),
    ]
}

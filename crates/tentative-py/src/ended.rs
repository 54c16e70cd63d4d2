//! `Ended`: a transaction that was rolled back, seen in the origin.

use std::sync::{Mutex, PoisonError};

use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyBytes};
use tentative::transaction::{self, Cause};

use crate::report::Report;

/// A transaction that was rolled back.
#[pyclass(module = "tentative._tentative", frozen)]
pub(crate) struct Ended {
    /// Why, and the number that goes with it.
    #[pyo3(get)]
    cause: (&'static str, Option<i32>),
    /// What the branch handed over.
    payload: Option<Vec<u8>>,
    /// What it did.
    #[pyo3(get)]
    report: Py<Report>,
    /// How long it ran, seconds.
    #[pyo3(get)]
    duration: f64,
    /// Its files, until they are kept or let go.
    files: Mutex<Option<transaction::Files>>,
}

impl Ended {
    pub(crate) fn of(py: Python<'_>, ended: transaction::Ended) -> PyResult<Ended> {
        let cause = match ended.cause {
            Cause::Asked => ("asked", None),
            Cause::Exited(code) => ("exited", Some(code)),
            Cause::Crashed(signal) => ("crashed", Some(signal)),
            Cause::TimedOut => ("timed out", None),
            Cause::MonitorLost => ("monitor lost", None),
        };
        let report = Py::new(py, Report::of(ended.report))?;
        let files = Mutex::new(Some(ended.files));
        Ok(Ended { cause, payload: ended.payload, report, duration: ended.duration.as_secs_f64(), files })
    }
}

#[pymethods]
impl Ended {
    /// What the branch handed over; None if it did not end by itself, or if that could not be fetched.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let copy = |bytes: &Vec<u8>| {
            PyBytes::new_with(py, bytes.len(), |room| {
                room.copy_from_slice(bytes);
                Ok(())
            })
        };
        self.payload.as_ref().map(copy).transpose()
    }

    /// Keeps the files as a pending transaction and returns its id; RuntimeError says why not.
    fn keep_files(&self) -> PyResult<String> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let kept =
            files.as_ref().map_or_else(|| Err("the files are gone".to_owned()), transaction::Files::keep);
        kept.map_err(PyRuntimeError::new_err)
    }

    /// Lets the files go: what was not kept is discarded.
    fn release(&self) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

//! `Ended`: a transaction that was rolled back, seen in the origin.

use pyo3::{prelude::*, types::PyBytes};
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
}

impl Ended {
    pub(crate) fn of(py: Python<'_>, ended: transaction::Ended) -> PyResult<Ended> {
        let cause = match ended.cause {
            Cause::Asked => ("asked", None),
            Cause::Exited(code) => ("exited", Some(code)),
            Cause::Crashed(signal) => ("crashed", Some(signal)),
            Cause::TimedOut => ("timed out", None),
            Cause::OutOfMemory => ("out of memory", None),
            Cause::MonitorLost => ("monitor lost", None),
        };
        let report = Py::new(py, Report::of(ended.report.clone()))?;
        Ok(Ended { cause, payload: ended.payload.clone(), report, duration: ended.duration.as_secs_f64() })
    }
}

#[pymethods]
impl Ended {
    /// What the branch handed over; None if it did not end by itself.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.payload.as_ref().map(|bytes| PyBytes::new(py, bytes))
    }
}

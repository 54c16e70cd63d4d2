//! Maps the library's errors onto the exceptions of `tentative.errors`, which is where they are all defined.

use std::ffi::OsStr;

use pyo3::{exceptions::PyMemoryError, prelude::*, types::PyTuple};
use tentative::transaction::{BeginError, CommitRefused, Elsewhere};

/// Makes an exception of that class of `tentative.errors`.
fn exception<'py, A>(py: Python<'py>, class: &str, arguments: A) -> PyErr
where
    A: IntoPyObject<'py, Target = PyTuple>,
    A::Output: Into<Bound<'py, PyTuple>>,
    A::Error: Into<PyErr>,
{
    let make = || -> PyResult<Bound<'py, PyAny>> {
        let arguments = arguments.into_pyobject(py).map_err(Into::into)?;
        py.import("tentative.errors")?.getattr(class)?.call1(arguments.into())
    };
    make().map_or_else(|error| error, PyErr::from_value)
}

/// `Unsupported(layer, reason, remedy)`, or `MemoryError` when there was none left.
pub(crate) fn unsupported(py: Python<'_>, error: &BeginError) -> PyErr {
    if error.is_for_memory() {
        return PyMemoryError::new_err(describe(error));
    }
    exception(py, "Unsupported", (error.layer().name(), describe(error), error.remedy()))
}

/// `CommitRefused(reasons)`, or `Conflict(reasons, None, paths)` when others changed something meanwhile.
pub(crate) fn commit_refused(py: Python<'_>, refused: &CommitRefused) -> PyErr {
    let reasons: Vec<String> = refused.reasons.iter().map(ToString::to_string).collect();
    let paths: Vec<&OsStr> = refused.conflicts().map(|conflict| conflict.path.as_os_str()).collect();
    if paths.is_empty() {
        return exception(py, "CommitRefused", (reasons,));
    }
    exception(py, "Conflict", (reasons, py.None(), paths))
}

/// `Unsupported` for an interpreter that cannot be cloned.
pub(crate) fn no_fork_handlers(py: Python<'_>) -> PyErr {
    let reason = "this interpreter does not export its fork handlers";
    exception(py, "Unsupported", ("objects", reason, "use CPython 3.10 or newer"))
}

/// `Finished`, for a branch that has been committed.
pub(crate) fn finished(py: Python<'_>) -> PyErr {
    exception(py, "Finished", ("this transaction has ended; begin another",))
}

/// `Error`, for whoever has a branch's handle and is not the branch.
pub(crate) fn elsewhere(py: Python<'_>, elsewhere: Elsewhere) -> PyErr {
    exception(py, "Error", (elsewhere.to_string(),))
}

/// The error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

//! `Guard`: the base class of a transaction, which sees that the branch never gets past its block.
//!
//! The steps of a transaction are Python code. A signal handler can raise between any two of its instructions, memory can
//! run out, and what the program has left of the interpreter can make them fail. An error that left the block in the branch
//! would let the rest of the program run inside. So the `with` statement and `run` call methods of this class, between which
//! and the steps no instruction of Python's lies. Invariant: while the branch is what the caller is, they do not return an
//! error: they end the branch.

use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyTuple},
};
use tentative::transaction::Elsewhere;

use crate::{branch::Branch, room};

/// How often the error is tried to be packed: a signal handler can raise there, too.
const ATTEMPTS: usize = 3;

/// What a transaction is besides its steps.
#[pyclass(module = "tentative._tentative", subclass, frozen)]
pub(crate) struct Guard;

#[pymethods]
impl Guard {
    #[new]
    #[pyo3(signature = (*_arguments, **_options))]
    fn new(_arguments: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> Guard {
        Guard
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        guarded(slf, slf.call_method0("_enter"))
    }

    fn __exit__<'py>(
        slf: &Bound<'py, Self>,
        kind: &Bound<'py, PyAny>,
        exception: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // The steps need memory, and the code may have left none. After a rollback it is the origin that comes here.
        if slf.getattr("_branch").is_ok_and(|branch| !branch.is_none()) {
            room::open();
        }
        guarded(slf, slf.call_method1("_exit", (kind, exception, traceback)))
    }

    /// Calls a function that may begin the transaction, and ends it.
    #[pyo3(signature = (function, *arguments))]
    fn _guarded<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        guarded(slf, function.call1(arguments))
    }
}

/// Passes a result on, unless it is an error and the caller is the branch, or its child: those end here.
fn guarded<'py>(
    transaction: &Bound<'py, Guard>,
    result: PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let error = match result {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let branch = transaction.getattr("_branch").ok().and_then(|branch| branch.cast_into::<Branch>().ok());
    let Some(branch) = branch else { return Err(error) };
    // It may have been lent to the method that failed.
    let place = branch.try_borrow().map_or(None, |branch| branch.place());
    match place.map(|place| place.check()) {
        Some(Ok(())) => end(transaction, &branch, &error),
        Some(Err(Elsewhere::Child)) => {
            error.print(transaction.py());
            // SAFETY: ends the process at once, as os._exit does.
            unsafe { libc::_exit(1) }
        }
        _ => Err(error),
    }
}

/// Ends the branch with an error; where that cannot be packed, with words that were packed when there was still room.
fn end<'py>(
    transaction: &Bound<'py, Guard>,
    branch: &Bound<'py, Branch>,
    error: &PyErr,
) -> PyResult<Bound<'py, PyAny>> {
    let py = transaction.py();
    // What comes before it needs memory, of which there may be none left.
    room::open();
    let pack =
        || transaction.call_method1("_pack_failure", (error.value(py),)).ok()?.cast_into::<PyBytes>().ok();
    let packed = (0..ATTEMPTS).find_map(|_| pack());
    let untold = || transaction.getattr("_UNTOLD").ok()?.cast_into::<PyBytes>().ok();
    let payload = packed.or_else(untold);
    branch.borrow_mut().rollback(py, payload.as_ref().map_or(b"", |payload| payload.as_bytes()))?;
    unreachable!("the branch has ended")
}

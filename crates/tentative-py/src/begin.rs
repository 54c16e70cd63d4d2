//! `begin`: starts a transaction and returns in two processes, like `os.fork`.

use std::{path::PathBuf, time::Duration};

use pyo3::{exceptions::PyValueError, prelude::*};
use tentative::{
    layer::{Layer, LayerSet},
    policy::{Action, Policy, Rule},
    transaction::{self, Begun, Options, Output},
};

use crate::{branch::Branch, ended::Ended, errors, frozen::Frozen, interpreter, room};

/// Begins a transaction.
///
/// Returns a `Branch` in the branch. In the origin it returns an `Ended` when the branch was rolled back or, with
/// `decide`, a `Frozen` when the branch asks for its commit. The first two are the owner's `_branch` and `_ended` before any
/// instruction of Python's runs, among which a signal handler could raise.
#[pyfunction]
#[pyo3(signature = (owner, *, without, allow, output, timeout, memory_limit, decide, executable, program))]
#[expect(clippy::too_many_arguments, reason = "one keyword each, as Python callers write them")]
pub(crate) fn begin(
    py: Python<'_>,
    owner: &Bound<'_, PyAny>,
    without: Vec<String>,
    allow: Vec<String>,
    output: &str,
    timeout: Option<f64>,
    memory_limit: Option<u64>,
    decide: bool,
    executable: Option<PathBuf>,
    program: Vec<String>,
) -> PyResult<Py<PyAny>> {
    room::ensure(memory_limit.is_some())?;
    let limits = room::limits(memory_limit);
    let options = Options {
        without: layers(&without)?,
        timeout: timeout.map(seconds).transpose()?,
        memory_limit,
        policy: policy(&allow)?,
        output: output_of(output)?,
        decide,
        executable,
        program,
    };
    let handlers = interpreter::ForkHandlers::find().ok_or_else(|| errors::no_fork_handlers(py))?;
    interpreter::flush(py);
    handlers.before(py);
    let begun = transaction::begin(&options);
    // Two processes come here.
    handlers.after_in_parent(py);
    let begun = begun.map_err(|error| errors::unsupported(py, &error))?;
    let (attribute, begun) = match begun {
        Begun::Inside(branch) => {
            let outer = room::become_one_with(limits);
            ("_branch", Bound::new(py, Branch::of(branch, outer))?.into_any().unbind())
        }
        Begun::Ended(_) => ("_ended", into_python(py, begun)?),
        Begun::Frozen(_) => return into_python(py, begun),
    };
    owner.setattr(attribute, &begun)?;
    Ok(begun)
}

/// The Python object for where a transaction got to.
pub(crate) fn into_python(py: Python<'_>, begun: Begun) -> PyResult<Py<PyAny>> {
    Ok(match begun {
        // `begin` alone returns inside.
        Begun::Inside(branch) => Bound::new(py, Branch::of(branch, None))?.into_any().unbind(),
        Begun::Frozen(frozen) => Bound::new(py, Frozen::of(frozen))?.into_any().unbind(),
        Begun::Ended(ended) => Bound::new(py, Ended::of(py, ended)?)?.into_any().unbind(),
    })
}

fn invalid(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn layers(names: &[String]) -> PyResult<LayerSet> {
    names.iter().map(|name| name.parse::<Layer>().map_err(invalid)).collect()
}

fn policy(allow: &[String]) -> PyResult<Policy> {
    let rule = |text: &String| Ok(Rule { action: Action::Allow, kind: text.parse().map_err(invalid)? });
    Ok(Policy { rules: allow.iter().map(rule).collect::<PyResult<_>>()? })
}

fn seconds(timeout: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(timeout)
        .map_err(|_| PyValueError::new_err("timeout must be a positive number"))
}

fn output_of(name: &str) -> PyResult<Output> {
    match name {
        "live" => Ok(Output::Live),
        "hold" => Ok(Output::Hold),
        "capture" => Ok(Output::Capture),
        _ => Err(PyValueError::new_err(format!("output is 'live', 'hold' or 'capture', not '{name}'"))),
    }
}

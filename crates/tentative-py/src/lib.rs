//! The Python extension module `tentative._tentative`: thin, without decisions of its own.

use pyo3::prelude::*;

#[pymodule]
mod _tentative {}

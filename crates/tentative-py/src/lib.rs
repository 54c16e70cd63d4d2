//! The Python extension module `tentative._tentative`: thin, without decisions of its own.

use pyo3::prelude::*;

#[pymodule]
mod _tentative {
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name is Python's")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

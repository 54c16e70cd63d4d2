//! `tentative monitor --fd N` (hidden): the keeper of a live process, on the socket that the process handed over.

use crate::{End, arguments::Monitor as Arguments, error::CommandError};

/// Serves until the process is gone.
pub(crate) fn run(arguments: &Arguments) -> Result<End, CommandError> {
    let link = tentative_sys::process::detached::take_socket(arguments.fd)
        .map_err(|_| CommandError::usage("--fd names no unix socket; this verb is not for people"))?;
    tentative::live::serve(link);
    Ok(End::WELL)
}

//! Names as text: what is kept comes back byte for byte, and what is shown obeys no terminal.
//!
//! Never looks at a file.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use crate::files::name::{kept, shown, unkept};

/// Takes the bytes for a name, and for the text of one.
///
/// # Panics
/// When a name does not come back, or is not safe to show.
pub fn names(bytes: &[u8]) {
    let path = Path::new(OsStr::from_bytes(bytes));
    let text = kept(path);
    // Paths with the same components are equal, and these have to be the same bytes.
    let back = unkept(&text).expect("what was kept is a kept path");
    assert_eq!(back.as_os_str(), path.as_os_str());
    assert!(!text.chars().any(char::is_control), "{text:?}");
    let shown = shown(path);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");

    let text = String::from_utf8_lossy(bytes);
    let understood = unkept(&text);
    assert_eq!(understood.is_some(), is_escaped_well(text.as_bytes()), "{text:?}");
    if let Some(path) = understood {
        assert_eq!(unkept(&kept(&path)).as_deref().map(Path::as_os_str), Some(path.as_os_str()));
    }
}

/// Every backslash begins `\xNN`.
fn is_escaped_well(text: &[u8]) -> bool {
    let mut parts = text.split(|byte| *byte == b'\\');
    let _before_the_first = parts.next();
    parts.all(|part| matches!(part, [b'x', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_come_back() {
        tentative_testkit::input::each("names", super::names);
    }
}

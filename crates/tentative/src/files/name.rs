//! Paths as text: names may hold any bytes, documents hold UTF-8.
//!
//! [`shown`] is for people and leaves backslashes alone; [`kept`] and [`unkept`] are for files of the store and are
//! exact for every path. Neither ever loses a byte silently.

use std::{
    ffi::OsString,
    fmt::Write as _,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

/// The path for people: bytes that are not UTF-8 and control characters become `\xNN`.
#[must_use]
pub fn shown(path: &Path) -> String {
    escape(path, |character| character.is_control())
}

/// The path for documents, exact: as [`shown`], and a backslash is `\x5c`.
#[must_use]
pub fn kept(path: &Path) -> String {
    escape(path, |character| character.is_control() || character == '\\')
}

/// The bytes of a path in hexadecimal, if [`shown`] is not they.
#[must_use]
pub fn hex_if_escaped(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_bytes();
    (shown(path).as_bytes() != bytes).then(|| hex(bytes))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// The path that [`hex_if_escaped`] wrote, none if it is not such a text.
#[must_use]
pub fn from_hex(text: &str) -> Option<PathBuf> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    Some(PathBuf::from(OsString::from_vec(bytes?)))
}

fn escape(path: &Path, special: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(path.as_os_str().len());
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if special(character) {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
                }
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
        }
    }
    text
}

/// The path that [`kept`] wrote, none if it is not such a text.
#[must_use]
pub fn unkept(text: &str) -> Option<PathBuf> {
    let bytes = text.as_bytes();
    let mut path = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'\\' {
            let &[b'x', high, low] = bytes.get(at + 1..at + 4)? else { return None };
            path.push(digit(high)? << 4 | digit(low)?);
            at += 4;
        } else {
            path.push(bytes[at]);
            at += 1;
        }
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// `#[serde(with = "…")]` for a path, by [`kept`].
pub mod one {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    /// Writes the path.
    ///
    /// # Errors
    /// What the serializer fails with.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::kept(path))
    }

    /// Reads the path.
    ///
    /// # Errors
    /// What the deserializer fails with, or a text that is no kept path.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::unkept(&text).ok_or_else(|| D::Error::custom("not an escaped path"))
    }
}

/// `#[serde(with = "…")]` for an optional path, by [`kept`].
pub mod option {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error as _};

    /// Writes the path.
    ///
    /// # Errors
    /// What the serializer fails with.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(super::kept).serialize(serializer)
    }

    /// Reads the path.
    ///
    /// # Errors
    /// What the deserializer fails with, or a text that is no kept path.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(None),
            Some(text) => {
                super::unkept(&text).map(Some).ok_or_else(|| D::Error::custom("not an escaped path"))
            }
        }
    }
}

/// `#[serde(with = "…")]` for a list of paths, by [`kept`].
pub mod many {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    /// Writes the paths.
    ///
    /// # Errors
    /// What the serializer fails with.
    pub fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| super::kept(path)))
    }

    /// Reads the paths.
    ///
    /// # Errors
    /// What the deserializer fails with, or a text that is no kept path.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|text| super::unkept(text).ok_or_else(|| D::Error::custom("not an escaped path")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

    use super::*;

    #[test]
    fn every_name_comes_back() {
        for bytes in [&b"/plain"[..], b"/a\\x41", b"/\xff\xfe", "/\u{e4}\n\t".as_bytes(), b"\\", b"/tail\\x"]
        {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(unkept(&kept(path)).as_deref(), Some(path));
            let exact = hex_if_escaped(path).map_or_else(|| Some(shown(path).into()), |hex| from_hex(&hex));
            assert_eq!(exact.as_deref(), Some(path));
        }
        assert_eq!(shown(Path::new(OsStr::from_bytes(b"/a\xffb\\"))), "/a\\xffb\\");
        // Two names of the same text.
        assert_eq!(hex_if_escaped(Path::new("/a\\xff")), None);
        assert_eq!(hex_if_escaped(Path::new(OsStr::from_bytes(b"/a\xff"))).as_deref(), Some("2f61ff"));
        assert_eq!([from_hex("2"), from_hex("2g"), from_hex("+1")], [None, None, None]);
        assert_eq!(unkept("\\y41"), None);
        assert_eq!(unkept("\\x4"), None);
        assert_eq!(unkept("\\x+4"), None);
    }
}

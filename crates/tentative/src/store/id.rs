//! The id of a transaction: 8 hexadecimal digits.

use std::{fmt, str::FromStr};

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::StoreError;

/// The id of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id(String);

/// A word that is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no id (8 hexadecimal digits)")]
pub struct NotAnId(pub String);

impl Id {
    /// A new one.
    pub(super) fn random() -> Result<Id, StoreError> {
        let mut bytes = [0_u8; 4];
        getrandom(&mut bytes, GetRandomFlags::empty()).map_err(StoreError::Random)?;
        Ok(Id(format!("{:08x}", u32::from_be_bytes(bytes))))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(word: &str) -> Result<Id, NotAnId> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if word.len() == 8 && word.bytes().all(digit) {
            Ok(Id(word.to_owned()))
        } else {
            Err(NotAnId(word.to_owned()))
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

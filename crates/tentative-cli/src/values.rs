//! The values of options: durations, sizes, layers, policy rules.

use std::time::Duration;

use tentative::{
    layer::{Layer, UnknownLayer},
    policy::{Kind, ParseRuleError},
};

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    /// No time span.
    #[error("'{0}' is no time (examples: 30, 30s, 5m, 2h)")]
    Time(String),
    /// No size.
    #[error("'{0}' is no size (examples: 500M, 2G)")]
    Size(String),
    /// A word that names no layer.
    #[error("{0}: layers that can be left out are files, kin, world")]
    Layer(String),
    /// A layer that a program always has for itself.
    #[error("a program always has its own {0} (layers that can be left out: files, kin, world)")]
    OwnLayer(Layer),
    /// No kind of crossing.
    #[error(transparent)]
    Rule(#[from] ParseRuleError),
}

/// A time: seconds, or a number with `ms`, `s`, `m`, `h` behind it.
pub(crate) fn time(text: &str) -> Result<Duration, ValueError> {
    let bad = || ValueError::Time(text.to_owned());
    let digits = text.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    if !number.starts_with(|character: char| character.is_ascii_digit()) {
        return Err(bad());
    }
    let seconds = number.parse::<f64>().map_err(|_| bad())? * factor;
    match Duration::try_from_secs_f64(seconds) {
        Ok(length) if !length.is_zero() => Ok(length),
        _ => Err(bad()),
    }
}

/// A size in bytes: a number with `K`, `M`, `G` or `T` (powers of 1024, as coreutils have it) behind it.
pub(crate) fn size(text: &str) -> Result<u64, ValueError> {
    let bad = || ValueError::Size(text.to_owned());
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err(bad()),
    };
    let number = number.parse::<u64>().map_err(|_| bad())?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(bad()),
    }
}

/// A layer that a program can go without.
pub(crate) fn outer_layer(word: &str) -> Result<Layer, ValueError> {
    match word.parse::<Layer>().map_err(|UnknownLayer(word)| ValueError::Layer(word))? {
        layer @ (Layer::Files | Layer::Kin | Layer::World) => Ok(layer),
        layer => Err(ValueError::OwnLayer(layer)),
    }
}

/// The kind of a rule.
pub(crate) fn rule_kind(text: &str) -> Result<Kind, ValueError> {
    Ok(text.parse::<Kind>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("5m", 300_000),
            ("0.5", 500),
            ("250ms", 250),
            ("1h", 3_600_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "-1", "0", "5x", "1e400", "inf", "nan", ".", "1 s"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("2G", 2 << 30), ("500M", 500 << 20), ("1024", 1024), ("1k", 1024), ("1GiB", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1", "0", "1X", "99999999999T", "1.5G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn layers() {
        assert_eq!(outer_layer("files"), Ok(Layer::Files));
        assert_eq!(outer_layer("memory"), Err(ValueError::OwnLayer(Layer::Memory)));
        assert!(outer_layer("file").is_err());
    }
}

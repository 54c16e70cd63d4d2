//! Numbers as people read them: bytes, durations, ages, counts.

use std::time::Duration;

/// Bytes in decimal units with at most three digits: `512 B`, `1.2 kB`, `31 MB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut tenths = u128::from(count) * 10;
    // 999.5 would be printed as 1000: it belongs to the next unit already.
    while tenths >= 9995 && unit + 1 < UNITS.len() {
        tenths = tenths.div_ceil(1000).max(10);
        unit += 1;
    }
    if unit == 0 {
        return format!("{count} B");
    }
    scaled(count, unit, UNITS[unit])
}

fn scaled(count: u64, unit: usize, name: &str) -> String {
    let divisor = 1000_u128.pow(u32::try_from(unit).unwrap_or(0));
    let tenths = (u128::from(count) * 10 + divisor / 2) / divisor;
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", (tenths + 5) / 10)
    }
}

/// A duration: `3 ms`, `1.2 s`, `2 min 5 s`, `3 h 12 min`, `2 d 3 h`.
#[must_use]
pub fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 if length.as_millis() < 1 => format!("{} us", length.as_micros()),
        0 => format!("{} ms", length.as_millis()),
        1..60 => format!("{}.{} s", seconds, length.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// An age in one unit: `5 s`, `3 min`, `2 h`, `4 d`.
#[must_use]
pub fn age(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// A count with thin grouping: `1,204`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count with its noun: `1 file`, `2 files`.
#[must_use]
pub fn counted(number: u64, singular: &str, plural: &str) -> String {
    format!("{} {}", count(number), if number == 1 { singular } else { plural })
}

/// The name of a signal: `SIGTERM`, or `signal 40`.
#[must_use]
pub fn signal(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    usize::try_from(number - 1)
        .ok()
        .and_then(|index| NAMES.get(index))
        .map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

/// What an error number means, in words: `connection refused`.
#[must_use]
pub fn errno(number: i32) -> String {
    let text = std::io::Error::from_raw_os_error(number).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_at_most_three_digits() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1234, "1.2 kB"),
            (9_960, "10 kB"),
            (31_400_000, "31 MB"),
            (999_600, "1.0 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
    }

    #[test]
    fn durations_and_ages() {
        assert_eq!(duration(Duration::from_micros(80)), "80 us");
        assert_eq!(duration(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(duration(Duration::from_secs(200_000)), "2 d 7 h");
        assert_eq!(age(Duration::from_secs(59)), "59 s");
        assert_eq!(age(Duration::from_secs(7300)), "2 h");
    }

    #[test]
    fn names_and_counts() {
        assert_eq!(count(1_204_000), "1,204,000");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(signal(15), "SIGTERM");
        assert_eq!(signal(40), "signal 40");
        assert_eq!(errno(111), "connection refused");
    }
}

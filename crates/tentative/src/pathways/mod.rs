//! The pathway table: every system call with its layer, its rule and what it is, and the filter made from it.
//!
//! The table is `table.tsv`, a data file; nothing else in the program knows which calls are asked about. It knows
//! neither policy nor descriptor numbers, so that one filter serves every transaction. Invariant: a call that is not
//! in the table reaches the monitor, which refuses it.

mod compile;
#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;

use std::sync::LazyLock;

pub use compile::compile;
use rustix::io::Errno;
use tentative_sys::world::Notification;

use crate::layer::Layer;

const TABLE: &str = include_str!("table.tsv");
const USER_ONLY: &str = "user ";

/// A test on one argument that says whether a call crosses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// The low half of the argument, masked, is one of these.
    Is {
        /// Argument, from 0.
        argument: u8,
        /// Bits that count.
        mask: u32,
        /// Values that cross.
        values: Vec<u32>,
    },
    /// The low half of the argument, masked, is none of these.
    IsNot {
        /// Argument, from 0.
        argument: u8,
        /// Bits that count.
        mask: u32,
        /// Values that stay inside.
        values: Vec<u32>,
    },
    /// Any of the argument's 64 bits is set.
    IsSet {
        /// Argument, from 0.
        argument: u8,
    },
    /// All of these.
    All(Vec<Condition>),
}

/// What the filter does with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It stays inside and runs at full speed.
    Inside,
    /// The monitor decides when the condition holds.
    Ask(Condition),
    /// The monitor records it and the program gets this error.
    Refuse(Errno),
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pathway {
    /// The call's number on this processor; none when it does not have the call.
    pub number: Option<u32>,
    /// The call's name, as its manual page has it.
    pub name: &'static str,
    /// The layer that it belongs to.
    pub layer: Layer,
    /// What the filter does with it.
    pub rule: Rule,
    /// Whether the rule is for the sandboxes of ordinary users only, and stays inside for root.
    pub user_only: bool,
    /// The rule as the table has it.
    pub rule_text: &'static str,
    /// One sentence on what it is.
    pub sentence: &'static str,
}

static PATHWAYS: LazyLock<Vec<Pathway>> = LazyLock::new(|| TABLE.lines().filter_map(parse_line).collect());

static BY_NUMBER: LazyLock<Vec<Option<&'static Pathway>>> = LazyLock::new(|| {
    let mut by_number = Vec::new();
    for pathway in PATHWAYS.iter() {
        if let Some(number) = pathway.number.and_then(|number| usize::try_from(number).ok()) {
            if by_number.len() <= number {
                by_number.resize(number + 1, None);
            }
            by_number[number] = Some(pathway);
        }
    }
    by_number
});

/// The table, in the order of the numbers on x86-64.
#[must_use]
pub fn table() -> &'static [Pathway] {
    &PATHWAYS
}

/// The pathway of a call by its number on this processor.
#[must_use]
pub fn by_number(number: i32) -> Option<&'static Pathway> {
    usize::try_from(number).ok().and_then(|number| BY_NUMBER.get(number).copied().flatten())
}

static UNKNOWN: LazyLock<Pathway> = LazyLock::new(|| Pathway {
    number: None,
    name: "unknown",
    layer: Layer::World,
    rule: Rule::Refuse(Errno::NOSYS),
    rule_text: "refuse ENOSYS",
    user_only: false,
    sentence: "Is not in the table, or is of another architecture.",
});

/// What is said of calls that are not in the table.
pub(crate) fn unknown() -> &'static Pathway {
    &UNKNOWN
}

/// Whether a call is one of the architecture that the table describes.
pub(crate) fn is_native(notification: &Notification) -> bool {
    notification.architecture == compile::ARCHITECTURE && (notification.number as u32) < compile::X32
}

fn parse_line(line: &'static str) -> Option<Pathway> {
    let mut columns = line.split('\t');
    let (number, name, layer) = (columns.next()?, columns.next()?, columns.next()?);
    let (rule_text, sentence) = (columns.next()?, columns.next()?);
    Some(Pathway {
        number: number_here(number, name),
        name,
        layer: layer.parse().ok()?,
        rule: parse_rule(rule_text.strip_prefix(USER_ONLY).unwrap_or(rule_text))?,
        user_only: rule_text.starts_with(USER_ONLY),
        rule_text,
        sentence,
    })
}

#[cfg(target_arch = "x86_64")]
fn number_here(number: &str, _name: &str) -> Option<u32> {
    number.parse().ok()
}

#[cfg(not(target_arch = "x86_64"))]
fn number_here(_number: &str, name: &str) -> Option<u32> {
    elsewhere(name).parse::<syscalls::Sysno>().ok().and_then(|call| u32::try_from(call.id()).ok())
}

/// What the crate of names calls, on other processors, the call that has this name on x86-64.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn elsewhere(name: &str) -> &str {
    if name == "newfstatat" { "fstatat" } else { name }
}

fn parse_rule(text: &str) -> Option<Rule> {
    if text == "inside" {
        return Some(Rule::Inside);
    }
    if text == "ask" {
        return Some(Rule::Ask(Condition::Always));
    }
    if let Some(name) = text.strip_prefix("refuse ") {
        return Some(Rule::Refuse(errno_by_name(name)?));
    }
    let terms: Vec<&str> = text.strip_prefix("ask ")?.split(" and ").collect();
    if let [one] = terms[..] {
        return parse_condition(one).map(Rule::Ask);
    }
    terms.into_iter().map(parse_condition).collect::<Option<_>>().map(|all| Rule::Ask(Condition::All(all)))
}

fn parse_condition(text: &str) -> Option<Condition> {
    let (argument, values) = text.split_once('=')?;
    let values: Vec<u32> = values.split('|').map(parse_number).collect::<Option<_>>()?;
    let (argument, is_not) =
        argument.strip_suffix('!').map_or((argument, false), |argument| (argument, true));
    let (argument, mask) = match argument.split_once('&') {
        Some((argument, mask)) => (argument, parse_number(mask)?),
        None => (argument, u32::MAX),
    };
    let argument = argument.parse().ok()?;
    Some(match (is_not, &values[..], mask) {
        (true, [0], u32::MAX) => Condition::IsSet { argument },
        (true, ..) => Condition::IsNot { argument, mask, values },
        (false, ..) => Condition::Is { argument, mask, values },
    })
}

fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn errno_by_name(name: &str) -> Option<Errno> {
    Some(match name {
        "EPERM" => Errno::PERM,
        "EACCES" => Errno::ACCESS,
        "ENOSYS" => Errno::NOSYS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_parses() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(table().len(), lines);
        assert!(lines > 380, "{lines}");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_kernel_headers_know_no_call_that_the_table_lacks() {
        let headers = ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"];
        let Some(header) = headers.iter().find_map(|path| std::fs::read_to_string(path).ok()) else {
            panic!("no kernel headers to compare with: install linux-libc-dev");
        };
        for line in header.lines() {
            let mut words = line.split_whitespace();
            let (Some("#define"), Some(name), Some(number)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (Some(name), Ok(number)) = (name.strip_prefix("__NR_"), number.parse::<i32>()) else {
                continue;
            };
            let pathway =
                by_number(number).unwrap_or_else(|| panic!("{name} ({number}) is not in table.tsv"));
            assert_eq!(pathway.name, name);
        }
    }

    #[test]
    fn the_table_has_every_call_of_aarch64_by_its_name_there() {
        // From 403 to 423 are the calls that only 32-bit processors have.
        for call in syscalls::aarch64::Sysno::iter().filter(|call| !(403..=423).contains(&call.id())) {
            assert!(table().iter().any(|pathway| elsewhere(pathway.name) == call.name()), "{call}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_crate_of_names_knows_no_call_that_the_table_lacks() {
        for call in syscalls::Sysno::iter() {
            let pathway = by_number(call.id()).unwrap_or_else(|| panic!("{call} is not in table.tsv"));
            assert_eq!(pathway.name, call.name());
        }
    }
}

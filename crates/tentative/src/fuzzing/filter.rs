//! The filter: for any call it answers what the table says.
//!
//! Never installs one.

use std::sync::LazyLock;

use tentative_testkit::input::Input;

use crate::{
    files::plan::Privilege,
    layer::{Layer, LayerSet},
    pathways::{
        Rule, compile,
        oracle::{ARCHITECTURE, expected_of, run},
        table,
    },
};

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const MOST: usize = 4096;

/// Makes a filter and calls from the bytes.
///
/// # Panics
/// When the filter lets through or stops what the table does not.
pub fn filter(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let layers = input.byte();
    let without: LayerSet = Layer::ALL.into_iter().filter(|layer| layers >> *layer as u8 & 1 == 1).collect();
    let privilege = if input.chance() { Privilege::Root } else { Privilege::User };
    let program = compile(without, privilege);
    assert!(program.len() <= MOST);
    for _ in 0..16 {
        let architecture = if input.below(8) == 7 { u32::from_le_bytes(input.array()) } else { ARCHITECTURE };
        let number = number(&mut input);
        let same = input.number();
        let arguments = if input.chance() { [same; 6] } else { std::array::from_fn(|_| input.number()) };
        let answer = run(&program, architecture, number, arguments);
        let expected = expected_of(architecture, number, arguments, without, privilege);
        assert_eq!(answer, expected, "{architecture:#x} {number} {arguments:x?} {without:?} {privilege:?}");
        if input.is_empty() {
            break;
        }
    }
}

/// The calls that rules are about.
static ASKED: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let asked = table().iter().filter(|pathway| matches!(pathway.rule, Rule::Ask(_)));
    asked.filter_map(|pathway| pathway.number).collect()
});

/// A call's number: one that a rule is about, or any.
fn number(input: &mut Input<'_>) -> u32 {
    match input.below(4) {
        0 | 1 => input.one_of(&ASKED),
        2 => u32::from(input.byte()) * 2,
        _ => u32::from_le_bytes(input.array()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn filters_answer_what_the_table_says() {
        tentative_testkit::input::each("filter", super::filter);
    }
}

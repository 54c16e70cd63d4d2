//! From the pathway table to the filter: a binary tree over call numbers, with tests on arguments at its leaves.
//!
//! A tree because installing and running a chain of a thousand instructions costs several times as much. Arguments
//! that the kernel takes as 32 bits are compared as 32 bits, pointers in both halves: anything else could be dodged
//! by setting bits that the kernel ignores.

use tentative_sys::world::Instruction;

use super::{Condition, Rule, table};
use crate::{files::plan::Privilege, layer::LayerSet};

pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

pub(super) const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
pub(super) const NOTIFY: u32 = 0x7fc0_0000; // SECCOMP_RET_USER_NOTIF

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// The audit architecture whose calls the table describes.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_003e;
/// The audit architecture whose calls the table describes.
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_00b7;

/// Calls from here on are x32's, another way into the same kernel that the table does not describe.
pub(crate) const X32: u32 = 0x4000_0000;

/// Compiles the table to the filter of a sandbox that goes without some layers.
///
/// A pathway of a layer that is gone without is not asked about, nor one that is for ordinary users when root asks. The program is plain data: it can be sent to another
/// process and installed there.
#[must_use]
pub fn compile(without: LayerSet, privilege: Privilege) -> Vec<Instruction> {
    let mut program = vec![
        load(OFFSET_ARCHITECTURE),
        jump(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        answer(NOTIFY),
        load(OFFSET_NUMBER),
        jump(JUMP_AT_LEAST, X32, 0, 1),
        answer(NOTIFY),
    ];
    program.extend(tree(&ranges(without, privilege)));
    program
}

/// Call numbers from `first` up to the next range's, all of which end in the same leaf.
struct Range {
    first: u32,
    leaf: Vec<Instruction>,
}

fn ranges(without: LayerSet, privilege: Privilege) -> Vec<Range> {
    let mut calls: Vec<(u32, Vec<Instruction>)> = table()
        .iter()
        .filter_map(|pathway| {
            let number = pathway.number?;
            let inside =
                without.contains(pathway.layer) || (pathway.user_only && privilege == Privilege::Root);
            Some((number, if inside { vec![answer(ALLOW)] } else { leaf(&pathway.rule) }))
        })
        .collect();
    calls.sort_by_key(|(number, _)| *number);
    let unknown = vec![answer(NOTIFY)];
    let mut ranges: Vec<Range> = Vec::new();
    let mut next = 0;
    for (number, leaf) in calls {
        if number > next {
            push(&mut ranges, next, unknown.clone());
        }
        push(&mut ranges, number, leaf);
        next = number + 1;
    }
    push(&mut ranges, next, unknown);
    ranges
}

fn push(ranges: &mut Vec<Range>, first: u32, leaf: Vec<Instruction>) {
    if ranges.last().is_none_or(|last| last.leaf != leaf) {
        ranges.push(Range { first, leaf });
    }
}

fn leaf(rule: &Rule) -> Vec<Instruction> {
    match rule {
        Rule::Inside => vec![answer(ALLOW)],
        Rule::Ask(condition) => {
            let mut program = test(condition);
            program.push(answer(NOTIFY));
            program
        }
        Rule::Refuse(_) => vec![answer(NOTIFY)],
    }
}

/// Goes on behind its end when the condition holds, and lets the call through when it does not.
fn test(condition: &Condition) -> Vec<Instruction> {
    match condition {
        Condition::Always => Vec::new(),
        Condition::Is { argument, mask, values } => {
            let mut program = load_masked(*argument, *mask);
            program.extend(comparisons(values));
            program.push(answer(ALLOW));
            program
        }
        Condition::IsNot { argument, mask, values } => {
            let mut program = load_masked(*argument, *mask);
            program.extend(comparisons(values));
            program.extend([go_on(1), answer(ALLOW)]);
            program
        }
        Condition::IsSet { argument } => vec![
            load(low_half(*argument)),
            jump(JUMP_EQUAL, 0, 0, 3),
            load(high_half(*argument)),
            jump(JUMP_EQUAL, 0, 0, 1),
            answer(ALLOW),
        ],
        Condition::All(conditions) => conditions.iter().flat_map(test).collect(),
    }
}

fn load_masked(argument: u8, mask: u32) -> Vec<Instruction> {
    let mut program = vec![load(low_half(argument))];
    if mask != u32::MAX {
        program.push(Instruction { code: AND, jump_true: 0, jump_false: 0, operand: mask });
    }
    program
}

/// Compares with each value and jumps, when equal, over the one instruction that follows the comparisons.
fn comparisons(values: &[u32]) -> impl Iterator<Item = Instruction> {
    let count = values.len();
    values.iter().enumerate().map(move |(index, value)| {
        let over = u8::try_from(count - index).expect("a rule has fewer than 255 values");
        jump(JUMP_EQUAL, *value, over, 0)
    })
}

fn tree(ranges: &[Range]) -> Vec<Instruction> {
    let [one] = ranges else {
        let middle = ranges.len() / 2;
        let (low, high) = ranges.split_at(middle);
        let (first_high, low, high) = (high[0].first, tree(low), tree(high));
        let mut program = Vec::with_capacity(low.len() + high.len() + 2);
        match u8::try_from(low.len()) {
            Ok(length) => program.push(jump(JUMP_AT_LEAST, first_high, length, 0)),
            Err(_) => {
                let length = u32::try_from(low.len()).expect("a filter has at most 4096 instructions");
                program.push(jump(JUMP_AT_LEAST, first_high, 0, 1));
                program.push(go_on(length));
            }
        }
        program.extend(low);
        program.extend(high);
        return program;
    };
    one.leaf.clone()
}

const fn load(operand: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, operand }
}

const fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

const fn go_on(over: u32) -> Instruction {
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand: over }
}

const fn answer(operand: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand }
}

/// Both architectures are little-endian: the low half comes first.
const fn low_half(argument: u8) -> u32 {
    OFFSET_ARGUMENTS + 8 * argument as u32
}

const fn high_half(argument: u8) -> u32 {
    low_half(argument) + 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        layer::Layer,
        pathways::oracle::{expected, run},
    };

    #[test]
    fn the_filter_says_what_the_table_says() {
        let program = compile(LayerSet::EMPTY, Privilege::User);
        assert!(program.len() < 1000, "{}", program.len());
        let words: Vec<u64> = vec![
            0,
            1,
            2,
            8,
            0x41,
            0xc1,
            0x200,
            0x8_0241,
            0x540f,
            0x5412,
            0x1_0000_5412,
            1 << 32,
            0x2180,
            0x4010,
            u64::MAX,
        ];
        for number in 0..600 {
            for word in &words {
                let arguments = [*word; 6];
                let expected = expected(number, arguments, LayerSet::EMPTY, Privilege::User);
                assert_eq!(run(&program, ARCHITECTURE, number, arguments), expected, "{number} {word:#x}");
            }
        }
    }

    #[test]
    fn other_architectures_are_asked_about() {
        let program = compile(LayerSet::EMPTY, Privilege::User);
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), NOTIFY);
        assert_eq!(run(&program, ARCHITECTURE, X32 + 1, [0; 6]), NOTIFY);
        assert_eq!(run(&program, ARCHITECTURE, u32::MAX, [0; 6]), NOTIFY);
    }

    #[test]
    fn layers_gone_without_are_not_asked_about() {
        let program = compile([Layer::World].into_iter().collect(), Privilege::User);
        let connect = table().iter().find(|pathway| pathway.name == "connect").unwrap();
        assert_eq!(run(&program, ARCHITECTURE, connect.number.unwrap(), [0; 6]), ALLOW);
    }
}

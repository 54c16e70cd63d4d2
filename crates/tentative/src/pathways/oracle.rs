//! What a filter has to answer, found in two other ways: by running it as the kernel would, and by asking the table.
//!
//! For tests and fuzzing only. Shares nothing with the compiler but the numbers of its instructions and answers.

use tentative_sys::world::Instruction;

pub(crate) use super::compile::ARCHITECTURE;
use super::{
    Condition, Rule, by_number,
    compile::{ALLOW, AND, JUMP, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, NOTIFY, RETURN, X32},
};
use crate::{files::plan::Privilege, layer::LayerSet};

/// What the kernel's interpreter would answer.
pub(crate) fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let taken = match i.code {
            LOAD => {
                let word =
                    data[i.operand as usize..].first_chunk().expect("loads are of words inside the data");
                accumulator = u32::from_le_bytes(*word);
                continue;
            }
            AND => {
                accumulator &= i.operand;
                continue;
            }
            JUMP => {
                at += i.operand as usize;
                continue;
            }
            JUMP_EQUAL => accumulator == i.operand,
            JUMP_AT_LEAST => accumulator >= i.operand,
            RETURN => return i.operand,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(if taken { i.jump_true } else { i.jump_false });
    }
}

/// What the table says about a call of the architecture that it describes.
pub(crate) fn expected(number: u32, arguments: [u64; 6], without: LayerSet, privilege: Privilege) -> u32 {
    let pathway = i32::try_from(number).ok().filter(|_| number < X32).and_then(by_number);
    let Some(pathway) = pathway else { return NOTIFY };
    if without.contains(pathway.layer) || (pathway.user_only && privilege == Privilege::Root) {
        return ALLOW;
    }
    let crosses = match &pathway.rule {
        Rule::Inside => false,
        Rule::Refuse(_) => true,
        Rule::Ask(condition) => holds(condition, arguments),
    };
    if crosses { NOTIFY } else { ALLOW }
}

/// What the table says about a call of any architecture.
pub(crate) fn expected_of(
    architecture: u32,
    number: u32,
    arguments: [u64; 6],
    without: LayerSet,
    privilege: Privilege,
) -> u32 {
    if architecture == ARCHITECTURE { expected(number, arguments, without, privilege) } else { NOTIFY }
}

fn holds(condition: &Condition, arguments: [u64; 6]) -> bool {
    let word = |argument: &u8| arguments[usize::from(*argument)];
    match condition {
        Condition::Always => true,
        Condition::Is { argument, mask, values } => values.contains(&(word(argument) as u32 & mask)),
        Condition::IsNot { argument, mask, values } => !values.contains(&(word(argument) as u32 & mask)),
        Condition::IsSet { argument } => word(argument) != 0,
        Condition::All(conditions) => conditions.iter().all(|condition| holds(condition, arguments)),
    }
}

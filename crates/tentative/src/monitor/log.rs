//! The record of effects: equal ones folded into one with a count, and never more than it can hold.
//!
//! It never drops an effect silently: beyond its capacity effects are folded by operation.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::effect::{Class, Decision, Effect};

/// How many different effects are kept apart.
const CAPACITY: usize = 10_000;

/// Target of what is folded beyond the capacity.
const OTHERS: &str = "(others)";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    class: Class,
    allowed: bool,
    operation: String,
    target: String,
    pid: i32,
    program: String,
    errno: Option<i32>,
}

/// The effects of one transaction.
#[derive(Debug, Default)]
pub struct Log {
    effects: Vec<Effect>,
    places: HashMap<Key, usize>,
}

impl Log {
    /// Adds an effect, or counts it where an equal one is there; its id is given here.
    pub fn add(&mut self, mut effect: Effect) {
        if self.effects.len() >= CAPACITY && !self.places.contains_key(&key(&effect)) {
            OTHERS.clone_into(&mut effect.target);
            effect.pid = 0;
            effect.tid = 0;
            effect.program.clear();
        }
        let effects = &mut self.effects;
        let place = *self.places.entry(key(&effect)).or_insert(effects.len());
        match effects.get_mut(place) {
            Some(equal) => equal.count += effect.count,
            None => {
                effect.id = place as u64 + 1;
                effects.push(effect);
            }
        }
    }

    /// The effects in the order in which they began.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.effects.clone()
    }
}

fn key(effect: &Effect) -> Key {
    Key {
        class: effect.class,
        allowed: effect.decision == Decision::Allowed,
        operation: effect.operation.clone(),
        target: effect.target.clone(),
        pid: effect.pid,
        program: effect.program.clone(),
        errno: effect.errno,
    }
}

/// Wall-clock time in nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Layer;

    fn effect(target: &str) -> Effect {
        Effect {
            id: 0,
            layer: Layer::World,
            class: Class::Blocked,
            operation: "connect".to_owned(),
            target: target.to_owned(),
            pid: 2,
            tid: 2,
            program: "curl".to_owned(),
            time_ns: now_ns(),
            decision: Decision::Denied,
            errno: Some(101),
            count: 1,
            stack: None,
            hint: None,
        }
    }

    #[test]
    fn equal_effects_are_counted() {
        let mut log = Log::default();
        ["a", "b", "a", "a"].into_iter().for_each(|target| log.add(effect(target)));
        let found: Vec<(u64, String, u64)> =
            log.effects().into_iter().map(|effect| (effect.id, effect.target, effect.count)).collect();
        assert_eq!(found, [(1, "a".to_owned(), 3), (2, "b".to_owned(), 1)]);
    }

    #[test]
    fn a_flood_is_counted_and_bounded() {
        let mut log = Log::default();
        (0..CAPACITY + 50).for_each(|number| log.add(effect(&number.to_string())));
        assert_eq!(log.effects().len(), CAPACITY + 1);
        assert_eq!(log.effects().iter().map(|effect| effect.count).sum::<u64>(), CAPACITY as u64 + 50);
    }
}

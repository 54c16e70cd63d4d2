//! The second part of a report: what crossed the sandbox, by layer and class.

use std::collections::BTreeMap;

use tentative::{
    effect::{Class, Decision, Effect},
    layer::Layer,
};

use crate::{
    Detail,
    paint::Palette,
    printable::printable,
    units::{count, errno},
};

/// How many effects of one layer and class a brief text lists.
const BRIEF_LINES: usize = 10;

/// The order in which classes are shown: what cannot be taken back first.
pub const ORDER: [Class; 7] = [
    Class::Escaped,
    Class::Compensated,
    Class::Blocked,
    Class::Held,
    Class::Shown,
    Class::Observed,
    Class::Contained,
];

/// How often each class happened, in words: `1 escaped, 3 blocked`; `none` without effects.
#[must_use]
pub fn tally(effects: &[Effect]) -> String {
    let parts: Vec<String> = ORDER
        .into_iter()
        .filter_map(|class| {
            let number: u64 = effects.iter().filter(|effect| effect.class == class).map(|e| e.count).sum();
            (number > 0).then(|| format!("{} {}", count(number), class.name()))
        })
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// The part of the report about effects, each line ended by a newline.
#[must_use]
pub fn render(effects: &[Effect], detail: Detail, palette: Palette) -> String {
    let mut text = format!("{} {}\n", palette.heading("effects:"), tally(effects));
    let mut groups: BTreeMap<(usize, Layer), Vec<&Effect>> = BTreeMap::new();
    for effect in effects {
        let rank = ORDER.iter().position(|&class| class == effect.class).unwrap_or(ORDER.len());
        groups.entry((rank, effect.layer)).or_default().push(effect);
    }
    let limit = if detail == Detail::Brief { BRIEF_LINES } else { usize::MAX };
    if detail == Detail::Brief {
        // Counted above; what stayed inside or was only seen needs no decision.
        groups.retain(|_, group| !group.iter().all(|effect| is_harmless(effect.class)));
    }
    for group in groups.values() {
        for effect in group.iter().take(limit) {
            line(effect, palette, &mut text);
        }
        if let (true, Some(first)) = (group.len() > limit, group.first()) {
            let more = format!(
                "  … and {} more {} in {}",
                count((group.len() - limit) as u64),
                first.class.name(),
                first.layer
            );
            text.push_str(&palette.class(first.class, &more));
            text.push('\n');
        }
        hints(group, palette, &mut text);
    }
    text
}

const fn is_harmless(class: Class) -> bool {
    matches!(class, Class::Contained | Class::Observed | Class::Shown)
}

fn line(effect: &Effect, palette: Palette, text: &mut String) {
    let head = palette.class(effect.class, &format!("  {:<11} ", effect.class.name()));
    // A pid of 0 is nobody inside: it was found out before the program ran.
    let mut notes = match effect.pid {
        0 => Vec::new(),
        pid => vec![format!("{}[{pid}]", printable(&effect.program))],
    };
    if effect.count > 1 {
        notes.push(format!("{} times", count(effect.count)));
    }
    if let Some(number) = effect.errno.filter(|&number| number != 0) {
        notes.push(errno(number));
    } else if effect.decision == Decision::Denied && effect.class != Class::Blocked {
        notes.push("denied".to_owned());
    }
    let line = format!(
        "{head}{:<7} {} {}  {}",
        effect.layer.name(),
        printable(&effect.operation),
        printable(&effect.target),
        palette.faint(&notes.join(", "))
    );
    text.push_str(line.trim_end());
    text.push('\n');
    if let Some(frame) = effect.stack.as_ref().and_then(|stack| stack.first()) {
        text.push_str(&palette.faint(&format!(
            "              at {}:{} in {}",
            printable(&frame.file),
            frame.line,
            printable(&frame.function)
        )));
        text.push('\n');
    }
}

/// Prints each hint of a group once, however many effects have it.
fn hints(group: &[&Effect], palette: Palette, text: &mut String) {
    let mut seen: Vec<&str> = Vec::new();
    for hint in group.iter().filter_map(|effect| effect.hint.as_deref()) {
        if !seen.contains(&hint) {
            seen.push(hint);
        }
    }
    for hint in seen.iter().take(BRIEF_LINES) {
        let hint = printable(hint);
        let advice = if hint.starts_with("--") {
            format!("run again with {hint} to let it through")
        } else {
            hint.into_owned()
        };
        text.push_str(&format!("  {} {advice}\n", palette.literal("hint:")));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tentative::effect::Frame;

    use super::*;

    pub(crate) fn effect(layer: Layer, class: Class, operation: &str, target: &str) -> Effect {
        Effect {
            id: 1,
            layer,
            class,
            operation: operation.to_owned(),
            target: target.to_owned(),
            pid: 7,
            tid: 7,
            program: "curl".to_owned(),
            time_ns: 1,
            decision: Decision::Denied,
            errno: Some(111),
            count: 1,
            stack: None,
            hint: None,
        }
    }

    #[test]
    fn what_cannot_be_taken_back_comes_first() {
        let mut blocked = effect(Layer::World, Class::Blocked, "connect", "tcp 127.0.0.1:5432");
        blocked.count = 3;
        blocked.hint = Some("--allow net:127.0.0.1:5432".to_owned());
        let mut escaped = effect(Layer::Kin, Class::Escaped, "kill", "pid 4711");
        escaped.errno = None;
        escaped.decision = Decision::Allowed;
        escaped.stack = Some(vec![Frame { file: "a.py".to_owned(), line: 3, function: "main".to_owned() }]);
        assert_eq!(
            render(&[blocked, escaped], Detail::Brief, Palette::PLAIN),
            "effects: 1 escaped, 3 blocked\n\
             \x20 escaped     kin     kill pid 4711  curl[7]\n\
             \x20             at a.py:3 in main\n\
             \x20 blocked     world   connect tcp 127.0.0.1:5432  curl[7], 3 times, connection refused\n\
             \x20 hint: run again with --allow net:127.0.0.1:5432 to let it through\n"
        );
        assert_eq!(render(&[], Detail::Brief, Palette::PLAIN), "effects: none\n");
    }
}

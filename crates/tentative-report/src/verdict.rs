//! The verdict and the containment, in lines: safe to roll back, safe to commit, and why not.

use tentative::{
    containment::Containment,
    verdict::{Judgement, Verdict},
};

use crate::{Detail, paint::Palette, printable::printable, units::counted};

/// How many reasons a brief text gives for each half.
const BRIEF_LINES: usize = 10;

/// The verdict, each line ended by a newline.
#[must_use]
pub fn render(verdict: &Verdict, detail: Detail, palette: Palette) -> String {
    let half = |judgement: &Judgement, verb: &str| {
        if judgement.safe {
            palette.good(&format!("safe to {verb}"))
        } else {
            palette.bad(&format!("not safe to {verb}"))
        }
    };
    let mut text = format!(
        "{} {}, {}\n",
        palette.heading("verdict:"),
        half(&verdict.rollback, "roll back"),
        half(&verdict.commit, "commit")
    );
    let limit = if detail == Detail::Brief { BRIEF_LINES } else { usize::MAX };
    for (judgement, verb) in [(&verdict.rollback, "rollback"), (&verdict.commit, "commit")] {
        for reason in judgement.reasons.iter().take(limit) {
            text.push_str(&format!("  {verb}: {}\n", printable(reason)));
        }
        if judgement.reasons.len() > limit {
            let more = (judgement.reasons.len() - limit) as u64;
            text.push_str(&format!("  {verb}: … and {}\n", counted(more, "more reason", "more reasons")));
        }
    }
    text
}

/// The containment, each line ended by a newline; nothing when it was full, which is what everybody expects.
#[must_use]
pub fn render_containment(containment: &Containment, palette: Palette) -> String {
    let gaps = containment.gaps();
    if gaps.is_empty() {
        return String::new();
    }
    let mut text = format!("{} {}\n", palette.heading("containment:"), palette.warning("partial"));
    for gap in gaps {
        text.push_str(&format!("  {}: {}\n", gap.layer, printable(&gap.reason)));
    }
    text
}

#[cfg(test)]
mod tests {
    use tentative::{containment::Gap, layer::Layer};

    use super::*;

    #[test]
    fn reasons_follow_the_verdict() {
        let verdict = Verdict {
            rollback: Judgement::from_reasons(vec!["effect 2: connect tcp 10.0.0.1:80 escaped".to_owned()]),
            commit: Judgement::from_reasons(vec![]),
        };
        assert_eq!(
            render(&verdict, Detail::Brief, Palette::PLAIN),
            "verdict: not safe to roll back, safe to commit\n\
             \x20 rollback: effect 2: connect tcp 10.0.0.1:80 escaped\n"
        );
    }

    #[test]
    fn full_containment_is_not_worth_a_line() {
        assert_eq!(render_containment(&Containment::Full, Palette::PLAIN), "");
        let gap = Gap { layer: Layer::World, reason: "left out by --without world".to_owned() };
        assert_eq!(
            render_containment(&Containment::from_gaps(vec![gap]), Palette::PLAIN),
            "containment: partial\n  world: left out by --without world\n"
        );
    }
}

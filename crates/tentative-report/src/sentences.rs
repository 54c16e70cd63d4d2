//! A record in sentences: what `explain()` says, for a person or a model that reads prose.

use tentative::{
    change::{Change, ChangeKind, Subject},
    containment::Containment,
    effect::{Class, Effect},
    record::Record,
    verdict::Verdict,
};

use crate::{
    changes,
    printable::printable,
    units::{count, errno},
};

/// The whole record, one sentence a line.
#[must_use]
pub fn explain(record: &Record) -> String {
    explain_parts(&record.changes, &record.effects, &record.verdict, &record.containment)
}

/// Changes, effects, verdict and containment, one sentence a line.
#[must_use]
pub fn explain_parts(
    changes: &[Change],
    effects: &[Effect],
    verdict: &Verdict,
    containment: &Containment,
) -> String {
    let mut sentences: Vec<String> = Vec::new();
    for kind in changes::ORDER {
        sentences.extend(changes.iter().filter(|change| change.kind == kind).map(of_change));
    }
    if changes.is_empty() {
        sentences.push("Nothing was changed.".to_owned());
    }
    sentences.extend(effects.iter().map(of_effect));
    if effects.is_empty() {
        sentences.push("Nothing crossed the sandbox.".to_owned());
    }
    sentences.extend(of_verdict(verdict));
    for gap in containment.gaps() {
        sentences.push(format!("The layer {} was not contained: {}.", gap.layer, printable(&gap.reason)));
    }
    sentences.join("\n") + "\n"
}

/// One change as a sentence.
#[must_use]
pub fn of_change(change: &Change) -> String {
    let thing = match &change.subject {
        Subject::Path(path) => printable(path).into_owned(),
        Subject::Name(name) => format!("{} ({})", printable(name), change.layer),
    };
    let before = change.before.as_deref().map(printable);
    let after = change.after.as_deref().map(printable);
    match change.kind {
        ChangeKind::Deleted => before.map_or_else(
            || format!("{thing} was deleted."),
            |was| format!("{thing} was deleted; it was {was}."),
        ),
        ChangeKind::Created => after.map_or_else(
            || format!("{thing} was created."),
            |is| format!("{thing} was created; it is {is}."),
        ),
        ChangeKind::Renamed => {
            let was = before.map_or_else(String::new, |was| format!(" from {was}"));
            let is = after.map_or_else(String::new, |is| format!("; it is {is}"));
            format!("{thing} was renamed{was}{is}.")
        }
        ChangeKind::Modified | ChangeKind::Metadata => {
            let what = if change.kind == ChangeKind::Metadata { "The attributes of " } else { "" };
            let verb = if change.kind == ChangeKind::Metadata { "were changed" } else { "was changed" };
            match (before, after) {
                (Some(was), Some(is)) if was != is => format!("{what}{thing} {verb} from {was} to {is}."),
                _ => format!("{what}{thing} {verb}."),
            }
        }
    }
}

/// One effect as a sentence.
#[must_use]
pub fn of_effect(effect: &Effect) -> String {
    let times = if effect.count > 1 { format!(" {} times", count(effect.count)) } else { String::new() };
    let how = match effect.class {
        Class::Contained => "which stayed inside the sandbox",
        Class::Observed => "which only read something outside",
        Class::Held => "which waits for the commit",
        Class::Shown => "which somebody outside saw",
        Class::Compensated => "which happened outside and can be undone",
        Class::Escaped => "which happened outside and cannot be taken back",
        Class::Blocked => "which was blocked",
    };
    let error = effect
        .errno
        .filter(|&number| number != 0)
        .map_or_else(String::new, |number| format!(" and gave the program the error \"{}\"", errno(number)));
    let who = match effect.pid {
        // Found out before the program ran.
        0 => "The start".to_owned(),
        pid => format!("{} (process {pid})", printable(&effect.program)),
    };
    format!(
        "{} called {} on {}{times}, {how}{error}.",
        who,
        printable(&effect.operation),
        printable(&effect.target),
    )
}

fn of_verdict(verdict: &Verdict) -> Vec<String> {
    [(&verdict.rollback, "Rolling back", "restores everything"), (&verdict.commit, "Committing", "is exact")]
        .into_iter()
        .map(|(judgement, act, promise)| {
            if judgement.safe {
                format!("{act} is safe: it {promise}.")
            } else {
                let reasons: Vec<_> = judgement.reasons.iter().map(|reason| printable(reason)).collect();
                format!("{act} is not safe: {}.", reasons.join("; "))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tentative::layer::Layer;

    use super::*;
    use crate::{effects::tests::effect, summary::tests::record};

    #[test]
    fn a_record_is_told_in_sentences() {
        let mut record = record();
        record.effects.push(effect(Layer::World, Class::Blocked, "connect", "tcp 10.0.0.1:80"));
        assert_eq!(
            explain(&record),
            "/srv/old was deleted; it was file 0644 1 B.\n\
             curl (process 7) called connect on tcp 10.0.0.1:80, which was blocked and gave the program the \
             error \"connection refused\".\n\
             Rolling back is safe: it restores everything.\n\
             Committing is safe: it is exact.\n"
        );
    }
}

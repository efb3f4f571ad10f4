//! The table at the end of a run: counts, what failed and why, what was held and because of what.

use std::collections::BTreeMap;

use super::narrate::reason;
use super::short;
use super::style::{Colour, Ink, duration};
use super::text::label;
use crate::event::{Event, NodeKind, Outcome, Summary};

/// What the table needs to remember of a run.
#[derive(Debug, Default)]
pub struct Tally {
    failed: Vec<String>,
    unknown: Vec<String>,
    dependency_failed: BTreeMap<String, Vec<String>>,
    held: BTreeMap<String, Vec<String>>,
    cancelled: Vec<String>,
}

impl Tally {
    /// Takes one event; only finished nodes matter.
    pub fn add(&mut self, event: &Event) {
        let Event::NodeFinished {
            kind,
            name,
            outcome,
            ..
        } = event
        else {
            return;
        };
        let name = match kind {
            NodeKind::Build => label(name),
            NodeKind::Effect => format!("effect {}", label(name)),
        };
        match outcome {
            Outcome::Failed { failure, .. } => {
                self.failed.push(format!("{name}: {}", reason(failure)));
            }
            Outcome::Unknown { detail } => self.unknown.push(format!("{name}: {}", label(detail))),
            Outcome::DependencyFailed { because } => {
                self.dependency_failed
                    .entry(short(because))
                    .or_default()
                    .push(name);
            }
            Outcome::Held { because } => {
                self.held.entry(short(because)).or_default().push(name);
            }
            Outcome::Cancelled => self.cancelled.push(name),
            Outcome::Built { .. } | Outcome::AlreadyValid | Outcome::Succeeded => {}
        }
    }

    /// Whether any node did not come to a good end.
    pub fn anything_wrong(&self) -> bool {
        !(self.failed.is_empty()
            && self.unknown.is_empty()
            && self.dependency_failed.is_empty()
            && self.held.is_empty()
            && self.cancelled.is_empty())
    }

    /// The table's lines. Rows without content are left out.
    pub fn table(&self, summary: &Summary, seconds: f64, colour: Colour) -> Vec<String> {
        let because = |(because, names): (&String, &Vec<String>)| {
            format!("because of {because}: {}", names.join(", "))
        };
        let cancelled: Vec<String> = if self.cancelled.is_empty() {
            vec![]
        } else {
            vec![self.cancelled.join(", ")]
        };
        let dependency_failed = self.dependency_failed.iter().map(because).collect();
        let held = self.held.iter().map(because).collect();
        let rows: [(&str, Ink, Vec<String>); 8] = [
            (
                "derivations",
                Ink::Strong,
                derivations(summary).into_iter().collect(),
            ),
            (
                "effects",
                Ink::Strong,
                effects(summary).into_iter().collect(),
            ),
            ("failed", Ink::Bad, self.failed.clone()),
            ("unknown", Ink::Bad, self.unknown.clone()),
            ("dependency failed", Ink::Warn, dependency_failed),
            ("held", Ink::Warn, held),
            ("cancelled", Ink::Warn, cancelled),
            ("time", Ink::Strong, vec![duration(seconds)]),
        ];
        let rows: Vec<_> = rows
            .into_iter()
            .filter(|(_, _, cells)| !cells.is_empty())
            .collect();
        let width = rows
            .iter()
            .map(|(heading, ..)| heading.len())
            .max()
            .unwrap_or_default();
        let mut lines = vec![];
        for (heading, ink, cells) in rows {
            for (number, cell) in cells.iter().enumerate() {
                let heading = format!("{:width$}", if number == 0 { heading } else { "" });
                lines.push(format!("{}  {cell}", colour.paint(ink, &heading)));
            }
        }
        lines
    }
}

fn derivations(summary: &Summary) -> Option<String> {
    counts(&[
        (summary.built, "built"),
        (summary.valid, "valid"),
        (summary.failed, "failed"),
        (summary.dependency_failed, "dependency failed"),
        (summary.cancelled, "cancelled"),
    ])
}

fn effects(summary: &Summary) -> Option<String> {
    counts(&[
        (summary.effects_succeeded, "succeeded"),
        (summary.effects_failed, "failed"),
        (summary.effects_held, "held"),
        (summary.effects_unknown, "unknown"),
    ])
}

fn counts(counts: &[(usize, &str)]) -> Option<String> {
    let said: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, broken, effect, finished, node};
    use super::*;

    #[test]
    fn names_everything_that_did_not_end_well() {
        let mut tally = Tally::default();
        for event in [
            finished("a", 1.0, broken(&[])),
            finished("b", 0.0, Outcome::DependencyFailed { because: node("a") }),
            finished("c", 0.0, Outcome::DependencyFailed { because: node("a") }),
            effect("deploy", 0.0, Outcome::Held { because: node("a") }),
            effect(
                "tell",
                0.0,
                Outcome::Held {
                    because: crate::event::NodeId::effect("deploy"),
                },
            ),
        ] {
            tally.add(&event);
        }
        let summary = Summary {
            built: 2,
            failed: 1,
            dependency_failed: 2,
            effects_held: 2,
            ..Summary::default()
        };
        let table = tally.table(&summary, 3.0, Colour::Never).join("\n");
        insta::assert_snapshot!(table, @"
        derivations        2 built, 1 failed, 2 dependency failed
        effects            2 held
        failed             a: exit code 1
        dependency failed  because of a: b, c
        held               because of a: effect deploy
                           because of effect deploy: effect tell
        time               3.0 s
        ");
    }

    #[test]
    fn a_run_with_nothing_to_do_has_a_short_table() {
        let summary = Summary {
            valid: 4,
            ..Summary::default()
        };
        let table = Tally::default()
            .table(&summary, 0.1, Colour::Never)
            .join("\n");
        insta::assert_snapshot!(table, @"
        derivations  4 valid
        time         0.1 s
        ");
        assert!(samples::everything().len() > 10);
    }
}

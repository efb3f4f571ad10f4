//! From outcomes to counts, results and the exit code.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{BuiltOutput, Event, Failure, NodeKind, Outcome, Sink, Summary};
use crate::nix::{Outputs, StorePath, Wanted};
use crate::plan::Graph;
use crate::run::{Realised, Report};

/// What a run has come to so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Counts.
    pub(super) summary: Summary,
    /// Nix's bits of every failure.
    pub(super) mask: u8,
    /// Derivations whose wanted outputs are not valid.
    pub(super) not_good: BTreeSet<StorePath>,
    /// The signal that told the run to stop, if it was told; 0 if it was not a signal.
    pub(super) signal: Option<usize>,
}

impl Tally {
    /// Counts an outcome.
    pub(super) fn count(&mut self, kind: NodeKind, outcome: &Outcome) {
        let summary = &mut self.summary;
        match (kind, outcome) {
            (_, Outcome::Built { .. }) => summary.built += 1,
            (_, Outcome::AlreadyValid) => summary.valid += 1,
            (_, Outcome::Succeeded) => summary.effects_succeeded += 1,
            (NodeKind::Build, Outcome::Failed { failure, .. }) => {
                summary.failed += 1;
                self.mask |= failure.nix_mask();
            }
            (NodeKind::Effect, Outcome::Failed { .. }) => summary.effects_failed += 1,
            (_, Outcome::DependencyFailed { .. }) => summary.dependency_failed += 1,
            (_, Outcome::Held { .. }) => summary.effects_held += 1,
            (_, Outcome::Cancelled) => summary.cancelled += 1,
            (_, Outcome::Unknown { .. }) => summary.effects_unknown += 1,
        }
    }
}

/// Returns the exit code of a run: Nix's for builds, ours for effects (documented in
/// `docs/exit-codes.md`).
pub fn exit_code(summary: &Summary, mask: u8) -> u8 {
    if summary.failed > 0 {
        return if mask == 0 { 1 } else { 0x60 | mask };
    }
    if summary.effects_unknown > 0 {
        return 21;
    }
    if summary.effects_failed > 0 {
        return 20;
    }
    u8::from(summary.cancelled > 0 || summary.effects_held > 0 || summary.dependency_failed > 0)
}

/// Makes the report.
pub(super) fn report(graph: &Graph, wanted: &[Wanted], tally: Tally) -> Report {
    // As a shell has it: a command ended by a signal is 128 and the signal's number.
    let stopped = tally.signal.filter(|signal| *signal > 0);
    let stopped = stopped.and_then(|signal| u8::try_from(128 + signal).ok());
    let results = wanted.iter().map(|wanted| Realised {
        outputs: (!tally.not_good.contains(&wanted.drv)).then(|| outputs(graph, wanted)),
        wanted: wanted.clone(),
    });
    Report {
        results: results.collect(),
        exit_code: stopped.unwrap_or_else(|| exit_code(&tally.summary, tally.mask)),
        summary: tally.summary,
    }
}

/// Says where everything is that was asked for and is there.
pub(super) fn outputs_events(report: &Report, sink: &mut dyn Sink) {
    for result in &report.results {
        let Some(outputs) = &result.outputs else {
            continue;
        };
        let outputs = outputs.iter().map(|(name, path)| BuiltOutput {
            name: name.clone(),
            path: path.clone(),
        });
        sink.event(&Event::Outputs {
            name: result.wanted.name.clone(),
            drv: result.wanted.drv.clone(),
            outputs: outputs.collect(),
        });
    }
}

fn outputs(graph: &Graph, wanted: &Wanted) -> BTreeMap<String, StorePath> {
    let Some(node) = graph.find(&wanted.drv) else {
        return BTreeMap::new();
    };
    let all = &graph.node(node).parsed.outputs;
    all.iter()
        .filter(|(name, _)| match &wanted.outputs {
            Outputs::All => true,
            Outputs::Names(names) => names.contains(*name),
        })
        .filter_map(|(name, path)| Some((name.to_owned(), path.clone()?)))
        .collect()
}

/// A failure of the machine rather than of a builder.
pub(super) fn machine(reason: impl Into<String>) -> Failure {
    Failure::Machine {
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_nixs_for_builds() {
        let failed = |mask| {
            exit_code(
                &Summary {
                    failed: 1,
                    ..Summary::default()
                },
                mask,
            )
        };
        assert_eq!(
            [failed(0), failed(4), failed(5), failed(6), failed(7)],
            [1, 100, 101, 102, 103]
        );
    }

    #[test]
    fn a_failed_build_outweighs_a_failed_effect() {
        let summary = Summary {
            failed: 1,
            effects_failed: 1,
            ..Summary::default()
        };
        assert_eq!(exit_code(&summary, 4), 100);
    }

    #[test]
    fn an_unknown_effect_outweighs_a_failed_one() {
        let summary = Summary {
            effects_unknown: 1,
            effects_failed: 1,
            ..Summary::default()
        };
        assert_eq!(exit_code(&summary, 0), 21);
    }

    #[test]
    fn nothing_wrong_is_zero() {
        assert_eq!(
            exit_code(
                &Summary {
                    built: 3,
                    ..Summary::default()
                },
                0
            ),
            0
        );
    }
}

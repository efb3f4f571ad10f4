//! Concluding nodes: every node gets one outcome, and those behind it follow.

use crate::event::{Event, NodeId, Outcome};
use crate::plan::NodeIndex;
use crate::run::OnFailure;
use crate::run::conduct::{Conductor, EffectState, Job};

impl Conductor<'_, '_> {
    /// Ends a worker's job with an outcome, and everything that follows from it.
    pub(super) fn finish(&mut self, nonce: &str, outcome: Outcome) {
        self.flush_log(nonce);
        let Some(worker) = self.workers.get(nonce) else {
            return;
        };
        let Some(job) = worker.job.clone() else {
            return;
        };
        let seconds = worker
            .started
            .map_or(0.0, |started| started.elapsed().as_secs_f64());
        self.release(nonce);
        self.conclude(&job, outcome, seconds);
    }

    /// Records the outcome of a node and of those behind it.
    pub(super) fn conclude(&mut self, job: &Job, outcome: Outcome, seconds: f64) {
        let (node, kind, name) = self.describe_job(job);
        let good = matches!(
            outcome,
            Outcome::Built { .. } | Outcome::AlreadyValid | Outcome::Succeeded
        );
        let failed = matches!(outcome, Outcome::Failed { .. });
        let cancelled = matches!(outcome, Outcome::Cancelled);
        self.tally.count(kind, &outcome);
        self.sink.event(&Event::NodeFinished {
            node: node.clone(),
            kind,
            name,
            outcome,
            seconds,
        });
        match job {
            Job::Build(index) if good => self.schedule.good(*index),
            Job::Build(index) => {
                let drv = self.planned.graph.node(*index).parsed.path.clone();
                self.tally.not_good.insert(drv);
                for (behind, because) in self.schedule.bad(*index) {
                    self.behind(behind, because, cancelled);
                }
            }
            Job::Effect(index) => {
                self.effects[*index] = if good {
                    EffectState::Succeeded
                } else {
                    EffectState::Over
                };
            }
        }
        if failed && self.options.on_failure == OnFailure::Stop {
            self.stop();
        }
    }

    fn behind(&mut self, node: NodeIndex, because: NodeIndex, cancelled: bool) {
        let outcome = if cancelled {
            Outcome::Cancelled
        } else {
            let because = &self.planned.graph.node(because).parsed.path;
            Outcome::DependencyFailed {
                because: NodeId::derivation(because),
            }
        };
        self.report(node, outcome);
    }

    /// Reports a build that never started.
    pub(super) fn report(&mut self, node: NodeIndex, outcome: Outcome) {
        let drv = self.planned.graph.node(node).parsed.path.clone();
        self.tally.not_good.insert(drv);
        let (id, kind, name) = self.describe_job(&Job::Build(node));
        self.tally.count(kind, &outcome);
        self.sink.event(&Event::NodeFinished {
            node: id,
            kind,
            name,
            outcome,
            seconds: 0.0,
        });
    }
}

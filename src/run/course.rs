//! The course of a run: where each node stands, whatever engine and store there are just now.
//!
//! Sessions come and go: a store is pruned, a daemon dies. What is concluded here outlives them.
//! Every node gets one outcome, and those behind it follow. A plan made anew
//! ([`Course::adopt`]) is about the rest:
//!
//! | a build was | and must be built by the new plan | and need not |
//! |---|---|---|
//! | failed, or behind one | it stays so | it stays so |
//! | good | it is built again, and that is said | it stays so |
//! | open | it is built | it is good: somebody else, or its lost op, has built it |
//!
//! An effect that succeeded, failed or is unknown is never started again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::event::{BuiltOutput, Event, NodeId, NodeKind, Outcome, Sink};
use crate::plan::{Decision, NodeIndex, Plan};
use crate::run::attempt::Adrift;
use crate::run::outcome::{Tally, machine};
use crate::run::schedule::{Schedule, State};
use crate::run::{Error, Options, PipelineRun, Planned};
use crate::tunnel::MachineError;

/// How often a node is started again whose agent died.
const RETRIES: u32 = 2;

/// What an op is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    /// A build, by its node.
    Build(NodeIndex),
    /// An effect, by its place in the plan.
    Effect(usize),
}

/// Where an effect stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EffectState {
    Waiting,
    Running,
    Succeeded,
    Over,
}

/// Why a build is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Good {
    Valid,
    Built,
}

/// A run, apart from its ops.
pub(super) struct Course<'a> {
    pub(super) options: &'a Options,
    pub(super) pipeline: Option<&'a PipelineRun>,
    pub(super) sink: &'a mut dyn Sink,
    /// The graph, the effects, and the newest plan.
    pub(super) planned: Planned,
    pub(super) schedule: Schedule,
    pub(super) effects: Vec<EffectState>,
    /// What ran when its session was lost.
    pub(super) adrift: Vec<Adrift>,
    /// Builds whose ops were lost, but whose records say that they ended well.
    pub(super) built: BTreeSet<NodeIndex>,
    pub(super) stopping: Option<Instant>,
    pub(super) tally: Tally,
    good: BTreeMap<NodeIndex, Good>,
    retries: BTreeMap<Job, u32>,
}

impl<'a> Course<'a> {
    /// Begins; the plan in `planned` is not looked at before [`Course::adopt`] gives one.
    pub(super) fn new(
        options: &'a Options,
        planned: Planned,
        pipeline: Option<&'a PipelineRun>,
        sink: &'a mut dyn Sink,
    ) -> Self {
        Self {
            options,
            pipeline,
            sink,
            schedule: Schedule::new(&planned.plan),
            effects: vec![EffectState::Waiting; planned.effects.effects.len()],
            planned,
            adrift: Vec::new(),
            built: BTreeSet::new(),
            stopping: None,
            tally: Tally::default(),
            good: BTreeMap::new(),
            retries: BTreeMap::new(),
        }
    }

    /// Takes a plan made for the store as it is now.
    pub(super) fn adopt(&mut self, plan: Plan) {
        let before = std::mem::replace(&mut self.planned.plan, plan);
        for index in 0..self.planned.plan.nodes.len() {
            let was_to_build = before
                .nodes
                .get(index)
                .is_some_and(|decided| matches!(decided.decision, Decision::Build(_)));
            self.adopt_node(NodeIndex(index), was_to_build);
        }
        self.schedule = Schedule::new(&self.planned.plan);
        for index in 0..self.planned.plan.nodes.len() {
            let node = NodeIndex(index);
            if self.is_bad(node) && self.schedule.is_to_start(node) {
                for (behind, because) in self.schedule.bad(node) {
                    if !self.is_bad(behind) {
                        self.behind(behind, because, false);
                    }
                }
            }
        }
    }

    fn adopt_node(&mut self, node: NodeIndex, was_to_build: bool) {
        if self.is_bad(node) {
            return;
        }
        let job = Job::Build(node);
        let good = self.good.contains_key(&node);
        match self.planned.plan.node(node).decision {
            Decision::Build(_) | Decision::Refused(..) if good => {
                self.again(&job, "its outputs went with the store");
            }
            Decision::Valid | Decision::Unneeded if was_to_build && !good => {
                let outcome = if self.built.contains(&node) {
                    let outputs = self.outputs(node);
                    Outcome::Built { outputs }
                } else {
                    Outcome::AlreadyValid
                };
                self.record(&job, outcome, 0.0);
            }
            Decision::Valid if !good => {
                self.good.insert(node, Good::Valid);
                self.tally.summary.valid += 1;
            }
            _ => {}
        }
    }

    fn outputs(&self, node: NodeIndex) -> Vec<BuiltOutput> {
        let outputs = &self.planned.graph.node(node).parsed.outputs;
        let known = outputs
            .iter()
            .filter_map(|(name, path)| Some((name.to_owned(), path.clone()?)));
        known
            .map(|(name, path)| BuiltOutput { name, path })
            .collect()
    }

    fn is_bad(&self, node: NodeIndex) -> bool {
        let drv = &self.planned.graph.node(node).parsed.path;
        self.tally.not_good.contains(drv)
    }

    /// Says that a node is to be started anew, and forgets what came of it.
    pub(super) fn again(&mut self, job: &Job, reason: &str) {
        if let Job::Build(node) = job {
            match self.good.remove(node) {
                Some(Good::Valid) => self.tally.summary.valid -= 1,
                Some(Good::Built) => self.tally.summary.built -= 1,
                None => {}
            }
        }
        let (node, kind, name) = self.describe_job(job);
        self.sink.event(&Event::NodeAgain {
            node,
            kind,
            name,
            reason: reason.to_owned(),
        });
    }

    /// Whether a node whose op ended without a word may be started once more; counts it.
    pub(super) fn may_retry(&mut self, job: &Job) -> bool {
        let retries = self.retries.entry(*job).or_default();
        *retries += 1;
        *retries <= RETRIES
    }

    /// Records the outcome of a node and of those behind it.
    pub(super) fn conclude(&mut self, job: &Job, outcome: Outcome, seconds: f64) {
        let cancelled = matches!(outcome, Outcome::Cancelled);
        let good = self.record(job, outcome, seconds);
        match job {
            Job::Build(index) if good => self.schedule.good(*index),
            Job::Build(index) => {
                for (behind, because) in self.schedule.bad(*index) {
                    self.behind(behind, because, cancelled);
                }
            }
            Job::Effect(_) => {}
        }
    }

    /// Tells of an outcome and counts it; true for a good one.
    fn record(&mut self, job: &Job, outcome: Outcome, seconds: f64) -> bool {
        let (node, kind, name) = self.describe_job(job);
        let good = match outcome {
            Outcome::Built { .. } => Some(Good::Built),
            Outcome::AlreadyValid | Outcome::Succeeded => Some(Good::Valid),
            _ => None,
        };
        self.tally.count(kind, &outcome);
        self.sink.event(&Event::NodeFinished {
            node,
            kind,
            name,
            outcome,
            seconds,
        });
        match (job, good) {
            (Job::Build(index), Some(good)) => {
                self.good.insert(*index, good);
            }
            (Job::Build(index), None) => {
                let drv = self.planned.graph.node(*index).parsed.path.clone();
                self.tally.not_good.insert(drv);
            }
            (Job::Effect(index), Some(_)) => self.effects[*index] = EffectState::Succeeded,
            (Job::Effect(index), None) => self.effects[*index] = EffectState::Over,
        }
        good.is_some()
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
        self.record(&Job::Build(node), outcome, 0.0);
    }

    /// Begins to stop: nothing more starts.
    pub(super) fn stop(&mut self) {
        self.stopping = Some(Instant::now());
        for node in self.schedule.cancel() {
            self.record(&Job::Build(node), Outcome::Cancelled, 0.0);
        }
    }

    /// Notes that the user wants the run to stop; true if it was not known.
    pub(super) fn notice_cancel(&mut self) -> bool {
        let new = self.stopping.is_none() && self.options.cancel.load(Ordering::Relaxed);
        if new {
            self.tally.signal = Some(self.options.signal.load(Ordering::Relaxed));
        }
        new
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Gives every node its outcome when nothing is left that could run it.
    pub(super) fn abandon(&mut self, error: &Error) {
        self.notice_cancel();
        let reason = MachineError::of(error).text;
        for adrift in std::mem::take(&mut self.adrift) {
            if let Job::Build(node) = adrift.job
                && self.schedule.state(node) != State::Running
            {
                // It was only to be gone on with.
                continue;
            }
            let outcome = match adrift.job {
                Job::Effect(_) => Outcome::Unknown {
                    detail: format!("{reason}; the effect had started"),
                },
                Job::Build(_) if self.tally.signal.is_some() => Outcome::Cancelled,
                Job::Build(_) => Outcome::Failed {
                    failure: machine(reason.clone()),
                    tail: adrift.tail.clone(),
                },
            };
            self.conclude(&adrift.job, outcome, adrift.seconds());
        }
        self.stop();
        for node in self.schedule.running() {
            self.record(&Job::Build(node), Outcome::Cancelled, 0.0);
        }
        self.settle_effects();
    }

    pub(super) fn describe_job(&self, job: &Job) -> (NodeId, NodeKind, String) {
        match job {
            Job::Build(node) => {
                let parsed = &self.planned.graph.node(*node).parsed;
                (
                    NodeId::derivation(&parsed.path),
                    NodeKind::Build,
                    parsed.name().to_owned(),
                )
            }
            Job::Effect(index) => {
                let name = &self.planned.effects.effects[*index].name;
                (NodeId::effect(name), NodeKind::Effect, name.clone())
            }
        }
    }

    /// Whether a build's wanted outputs are valid, never will be, or are still to come.
    pub(super) fn standing(&self, node: NodeIndex) -> State {
        self.schedule.state(node)
    }
}

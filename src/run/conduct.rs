//! The loop that owns a run: starts nodes, hears what comes of them, puts events in order.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::Shape;
use crate::event::{Event, NodeId, NodeKind, Outcome, Sink};
use crate::nix::StorePath;
use crate::plan::{Decision, NodeIndex};
use crate::run::connection::Speaker;
use crate::run::logs::Lines;
use crate::run::outcome::{Tally, machine};
use crate::run::schedule::{Schedule, State};
use crate::run::session::Session;
use crate::run::{Error, Options, PipelineRun, Planned};
use crate::tunnel::{MachineError, PathFacts, ToAgent};

/// How long what runs may take to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(4);

/// What an op is busy with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    /// A build, by its node.
    Build(NodeIndex),
    /// An effect, by its place in the plan.
    Effect(usize),
}

/// An op and its agent.
pub(super) struct Worker {
    pub(super) speaker: Option<Speaker>,
    /// What it does, or is to do as soon as it asks.
    pub(super) job: Option<Job>,
    /// It asked for a job and has none.
    pub(super) idle: bool,
    /// The slot that is mounted in it (plain).
    pub(super) slot: Option<u32>,
    pub(super) started: Option<Instant>,
    pub(super) attempt: bool,
    pub(super) lines: Lines,
}

/// Where an effect stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EffectState {
    Waiting,
    Running,
    Succeeded,
    Over,
}

/// A run under way.
pub(super) struct Conductor<'a, 's> {
    pub(super) options: &'a Options,
    pub(super) planned: &'a Planned,
    pub(super) pipeline: Option<&'a PipelineRun>,
    pub(super) session: &'a mut Session<'s>,
    pub(super) sink: &'a mut dyn Sink,
    pub(super) schedule: Schedule,
    pub(super) effects: Vec<EffectState>,
    pub(super) workers: BTreeMap<String, Worker>,
    pub(super) slots: Vec<u32>,
    /// What is known of valid paths (plain: what to mount).
    pub(super) facts: BTreeMap<StorePath, PathFacts>,
    pub(super) tally: Tally,
    pub(super) stopping: Option<Instant>,
    /// What ended the run while something else was being waited for.
    pub(super) lost: Option<Error>,
}

impl<'a, 's> Conductor<'a, 's> {
    pub(super) fn new(
        options: &'a Options,
        planned: &'a Planned,
        pipeline: Option<&'a PipelineRun>,
        session: &'a mut Session<'s>,
        sink: &'a mut dyn Sink,
    ) -> Self {
        let mut tally = Tally::default();
        tally.summary.valid = planned.plan.counts().valid;
        Self {
            options,
            planned,
            pipeline,
            session,
            sink,
            schedule: Schedule::new(&planned.plan),
            effects: vec![EffectState::Waiting; planned.effects.effects.len()],
            workers: BTreeMap::new(),
            slots: Vec::new(),
            facts: BTreeMap::new(),
            tally,
            stopping: None,
            lost: None,
        }
    }

    /// Runs to the end of every node.
    ///
    /// # Errors
    ///
    /// The engine or the store is gone. Every node has its outcome before, and if that of an
    /// effect is unknown the run has a result all the same, for its exit code says so.
    pub(super) fn run(mut self) -> Result<Tally, Error> {
        if let Err(error) = self.run_to_end() {
            self.abandon(&error);
            if self.tally.summary.effects_unknown == 0 {
                return Err(error);
            }
            self.sink.event(&Event::Warning {
                text: MachineError::of(&error).text,
                hint: None,
            });
        }
        Ok(self.tally)
    }

    fn run_to_end(&mut self) -> Result<(), Error> {
        if self.options.shape == Shape::Plain && self.schedule.open() > 0 {
            let count = self.options.jobs.min(self.schedule.open());
            self.slots = self
                .session
                .lease(u32::try_from(count).unwrap_or(u32::MAX))?;
        }
        let mut storeless = None;
        loop {
            self.notice_cancel();
            let wake = self.schedule.wake(Instant::now());
            self.start_what_can()?;
            if self.is_over() {
                break;
            }
            let patience = wake
                .map_or(Duration::from_millis(100), |when| when - Instant::now())
                .min(Duration::from_millis(100));
            match self.session.next(patience) {
                Ok(Some(happening)) => self.hear(happening),
                Ok(None) => {}
                Err(error) => self.lost = Some(error),
            }
            match self.lost.take() {
                // Nobody keeps house any more, but what runs can still be ended in good order.
                Some(error @ Error::Store { .. }) if storeless.is_none() => {
                    storeless = Some(error);
                    self.stop();
                }
                Some(error) => return Err(error),
                None => {}
            }
            self.lose_patience()?;
        }
        for worker in self.workers.values_mut() {
            if let Some(speaker) = &mut worker.speaker {
                let _ = speaker.say(&ToAgent::Bye);
            }
        }
        storeless.map_or(Ok(()), Err)
    }

    /// Gives every node its outcome when nothing is left that could run it.
    fn abandon(&mut self, error: &Error) {
        self.stopping = Some(Instant::now());
        let reason = MachineError::of(error).text;
        let busy: Vec<String> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.job.is_some())
            .map(|(nonce, _)| nonce.clone())
            .collect();
        for nonce in busy {
            let worker = &self.workers[&nonce];
            let outcome = match (&worker.job, worker.attempt) {
                (Some(Job::Effect(_)), true) => Outcome::Unknown {
                    detail: format!("{reason}; the effect had started"),
                },
                _ if self.options.cancel.load(Ordering::Relaxed) => Outcome::Cancelled,
                _ => self.failed(&nonce, machine(reason.clone())),
            };
            self.finish(&nonce, outcome);
        }
        for node in self.schedule.cancel() {
            self.report(node, Outcome::Cancelled);
        }
        self.settle_effects();
    }

    fn is_over(&self) -> bool {
        let effects_open = self
            .effects
            .iter()
            .any(|state| matches!(state, EffectState::Waiting | EffectState::Running));
        let busy = self.workers.values().any(|worker| worker.job.is_some());
        self.schedule.open() == 0 && !effects_open && !busy
    }

    /// How many nodes run. An op whose job is done counts until its agent asks for the next one, or
    /// it would get a second op beside it; a plain one until it has ended, for it holds its slot.
    fn running(&self) -> usize {
        self.workers.values().filter(|worker| !worker.idle).count()
    }

    /// Whether a build has where to be made: a plain op's slot is free when the op has ended.
    fn has_place(&self) -> bool {
        self.options.shape == Shape::Strong || !self.slots.is_empty()
    }

    fn start_what_can(&mut self) -> Result<(), Error> {
        self.settle_effects();
        if self.stopping.is_some() {
            return Ok(());
        }
        while self.running() < self.options.jobs {
            if let Some(effect) = self.next_effect() {
                self.start_effect(effect)?;
            } else if self.has_place()
                && let Some(node) = self.schedule.take()
            {
                self.start_build(node)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn notice_cancel(&mut self) {
        if self.stopping.is_none() && self.options.cancel.load(Ordering::Relaxed) {
            self.tally.signal = Some(self.options.signal.load(Ordering::Relaxed));
            self.stop();
        }
    }

    /// Starts nothing more and tells what runs to end.
    pub(super) fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now());
        for node in self.schedule.cancel() {
            self.report(node, Outcome::Cancelled);
        }
        for worker in self
            .workers
            .values_mut()
            .filter(|worker| worker.job.is_some())
        {
            if let Some(speaker) = &mut worker.speaker {
                let _ = speaker.say(&ToAgent::Cancel);
            }
        }
    }

    /// Kills what was told to end and did not.
    fn lose_patience(&mut self) -> Result<(), Error> {
        if self
            .stopping
            .is_some_and(|since| since.elapsed() > PATIENCE)
        {
            let busy: Vec<String> = self
                .workers
                .iter()
                .filter(|(_, worker)| worker.job.is_some())
                .map(|(nonce, _)| nonce.clone())
                .collect();
            for nonce in busy {
                self.session.kill(&nonce)?;
            }
            self.stopping = Some(Instant::now());
        }
        Ok(())
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
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
        debug_assert!(
            !matches!(self.planned.plan.node(node).decision, Decision::Refused(..)),
            "a plan with refused nodes is not run"
        );
        self.schedule.state(node)
    }
}

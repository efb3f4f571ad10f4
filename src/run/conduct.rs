//! The loop that owns a run: starts nodes, hears what comes of them, puts events in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::lower::{PlainInputs, Reach};
use crate::engine::{OpEnd, OpExit, Shape};
use crate::event::{BuiltOutput, Event, Failure, NodeId, NodeKind, Outcome, Sink};
use crate::nix::derivation::Parsed;
use crate::nix::{Output, StorePath};
use crate::plan::{Decision, NodeIndex};
use crate::run::connection::{Happening, Speaker};
use crate::run::logs::Lines;
use crate::run::outcome::{Tally, machine};
use crate::run::schedule::{Schedule, State};
use crate::run::session::{Session, describe};
use crate::run::{Error, OnFailure, Options, PipelineRun, Planned};
use crate::tunnel::{BuildJob, BuildResult, EffectResult, FromAgent, PathFacts, PathKind, ToAgent};

/// How long a node waits before it asks again for a lock that another program holds.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
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
struct Worker {
    speaker: Option<Speaker>,
    /// What it does, or is to do as soon as it asks.
    job: Option<Job>,
    /// It asked for a job and has none.
    idle: bool,
    /// The slot that is mounted in it (plain).
    slot: Option<u32>,
    started: Option<Instant>,
    attempt: bool,
    lines: Lines,
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
    sink: &'a mut dyn Sink,
    pub(super) schedule: Schedule,
    pub(super) effects: Vec<EffectState>,
    workers: BTreeMap<String, Worker>,
    slots: Vec<u32>,
    /// What is known of valid paths (plain: what to mount).
    facts: BTreeMap<StorePath, PathFacts>,
    tally: Tally,
    stopping: Option<Instant>,
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
        }
    }

    /// Runs to the end of every node.
    pub(super) fn run(mut self) -> Result<Tally, Error> {
        if self.options.shape == Shape::Plain && self.schedule.open() > 0 {
            let count = self.options.jobs.min(self.schedule.open());
            self.slots = self
                .session
                .lease(u32::try_from(count).unwrap_or(u32::MAX))?;
        }
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
            if let Some(happening) = self.session.next(patience)? {
                self.hear(happening)?;
            }
            self.lose_patience()?;
        }
        for worker in self.workers.values_mut() {
            if let Some(speaker) = &mut worker.speaker {
                let _ = speaker.say(&ToAgent::Bye);
            }
        }
        Ok(self.tally)
    }

    fn is_over(&self) -> bool {
        let effects_open = self
            .effects
            .iter()
            .any(|state| matches!(state, EffectState::Waiting | EffectState::Running));
        let busy = self.workers.values().any(|worker| worker.job.is_some());
        self.schedule.open() == 0 && !effects_open && !busy
    }

    /// How many nodes run. A plain op counts until it has ended, because it holds its slot.
    fn running(&self) -> usize {
        let plain = self.options.shape == Shape::Plain;
        self.workers
            .values()
            .filter(|worker| plain || worker.job.is_some())
            .count()
    }

    fn start_what_can(&mut self) -> Result<(), Error> {
        self.settle_effects();
        if self.stopping.is_some() {
            return Ok(());
        }
        while self.running() < self.options.jobs {
            if let Some(effect) = self.next_effect() {
                self.start_effect(effect)?;
            } else if let Some(node) = self.schedule.take() {
                self.start_build(node)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn start_build(&mut self, node: NodeIndex) -> Result<(), Error> {
        let idle = self
            .workers
            .iter()
            .find(|(_, worker)| worker.idle)
            .map(|(n, _)| n.clone());
        if let (Shape::Strong, Some(nonce)) = (self.options.shape, idle) {
            return self.give(&nonce, Job::Build(node));
        }
        let parsed = self.planned.graph.node(node).parsed.clone();
        let reach = reach(&parsed);
        let nonce = self.session.nonce();
        let slot = self.slots.pop();
        let definition = match self.options.shape {
            Shape::Strong => {
                let inputs = PlainInputs::default();
                self.session
                    .lowering
                    .build(&parsed.path, reach, &inputs, &nonce)?
            }
            Shape::Plain => {
                let closure = self.input_closure(node, &parsed)?;
                let closure = closure.iter().collect();
                let slot = slot.expect("as many slots as jobs were leased");
                let inputs = PlainInputs { slot, closure };
                self.session
                    .lowering
                    .build(&parsed.path, reach, &inputs, &nonce)?
            }
        };
        self.employ(nonce.clone(), Job::Build(node), slot);
        self.session.start(nonce, definition, BTreeMap::new())
    }

    /// Notes a new op that is to do a job when its agent asks.
    pub(super) fn employ(&mut self, nonce: String, job: Job, slot: Option<u32>) {
        let worker = Worker {
            speaker: None,
            job: Some(job),
            idle: false,
            slot,
            started: None,
            attempt: false,
            lines: Lines::default(),
        };
        self.workers.insert(nonce, worker);
    }

    /// Gives a job to an agent that asked for one.
    fn give(&mut self, nonce: &str, job: Job) -> Result<(), Error> {
        let slot = self.workers.get(nonce).and_then(|worker| worker.slot);
        let message = match &job {
            Job::Build(node) => ToAgent::Build(self.build_job(*node, slot)),
            Job::Effect(effect) => ToAgent::Effect(self.effect_job(*effect)),
        };
        let Some(worker) = self.workers.get_mut(nonce) else {
            return Ok(());
        };
        worker.idle = false;
        worker.job = Some(job);
        worker.started = None;
        worker.attempt = false;
        worker.lines = Lines::default();
        if let Some(speaker) = &mut worker.speaker {
            // A broken stream is heard of as its end.
            let _ = speaker.say(&message);
        }
        Ok(())
    }

    fn build_job(&self, node: NodeIndex, slot: Option<u32>) -> BuildJob {
        let wanted = &self.planned.plan.node(node).wanted;
        BuildJob {
            drv: self.planned.graph.node(node).parsed.path.clone(),
            wanted: wanted.iter().cloned().collect(),
            run: self.options.run.clone(),
            cores: self.options.cores,
            timeout: self.options.timeout.map(|limit| limit.as_secs()),
            silence: self.options.silence.map(|limit| limit.as_secs()),
            sandbox_paths: self.options.sandbox_paths.clone(),
            slot,
        }
    }

    /// Returns the closure of a build's inputs that mounts can bring.
    fn input_closure(&mut self, node: NodeIndex, parsed: &Parsed) -> Result<Vec<StorePath>, Error> {
        let mut roots: BTreeSet<StorePath> = parsed.derivation.input_sources().clone();
        for input in self.planned.graph.node(node).inputs() {
            let outputs = &self.planned.graph.node(input.node).parsed.outputs;
            roots.extend(
                input
                    .outputs
                    .iter()
                    .filter_map(|name| outputs.get(name)?.clone()),
            );
        }
        self.mountable_closure(roots)
    }

    /// Returns the closure of valid paths, without symlinks.
    pub(super) fn mountable_closure(
        &mut self,
        roots: BTreeSet<StorePath>,
    ) -> Result<Vec<StorePath>, Error> {
        let unknown: Vec<StorePath> = roots
            .iter()
            .filter(|path| !self.facts.contains_key(*path))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            for fact in self.session.closure(unknown)? {
                self.facts.insert(fact.path.clone(), fact);
            }
        }
        let mut closure = BTreeSet::new();
        let mut open: Vec<StorePath> = roots.into_iter().collect();
        while let Some(path) = open.pop() {
            if let Some(fact) = self.facts.get(&path)
                && closure.insert(path)
            {
                open.extend(fact.references.iter().cloned());
            }
        }
        closure.retain(|path| self.facts[path].kind != PathKind::Symlink);
        Ok(closure.into_iter().collect())
    }

    fn hear(&mut self, happening: Happening) -> Result<(), Error> {
        match happening {
            Happening::Connected { nonce, mut speaker } => {
                match self.workers.get_mut(&nonce) {
                    Some(worker) => worker.speaker = Some(speaker),
                    // Nobody of this run: an op of a dead one, or a stranger.
                    None => {
                        let _ = speaker.say(&ToAgent::Bye);
                        speaker.hang_up();
                    }
                }
                Ok(())
            }
            Happening::Said { nonce, message } => self.hear_agent(&nonce, message),
            Happening::Logged { nonce, bytes } => {
                self.log(&nonce, &bytes);
                Ok(())
            }
            Happening::Closed { nonce, reason } => {
                if let Some(reason) = reason {
                    self.lose(&nonce, &reason);
                }
                Ok(())
            }
            Happening::Engine(crate::engine::EngineEvent::Ended(end)) => {
                self.op_ended(&end);
                Ok(())
            }
            Happening::Engine(_) | Happening::WrongVersion => Ok(()),
        }
    }

    fn hear_agent(&mut self, nonce: &str, message: FromAgent) -> Result<(), Error> {
        match message {
            FromAgent::Idle => self.hear_idle(nonce),
            FromAgent::Started { attempt } => {
                self.started(nonce, attempt);
                Ok(())
            }
            FromAgent::Busy { lock } => {
                self.busy(nonce, &lock);
                Ok(())
            }
            FromAgent::Built { result } => {
                self.built(nonce, result);
                Ok(())
            }
            FromAgent::Ran { result } => {
                self.ran(nonce, result);
                Ok(())
            }
            FromAgent::Failed { error } | FromAgent::Unfit { error } => {
                self.lose(nonce, &error.text);
                Ok(())
            }
            _ => {
                self.lose(nonce, "its agent answers something else");
                Ok(())
            }
        }
    }

    fn hear_idle(&mut self, nonce: &str) -> Result<(), Error> {
        let Some(worker) = self.workers.get_mut(nonce) else {
            return Ok(());
        };
        match worker.job.clone() {
            Some(job) if self.stopping.is_none() => self.give(nonce, job),
            Some(_) => {
                self.finish(nonce, Outcome::Cancelled);
                Ok(())
            }
            None => {
                worker.idle = true;
                Ok(())
            }
        }
    }

    fn started(&mut self, nonce: &str, attempt: String) {
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        worker.started = Some(Instant::now());
        worker.attempt = true;
        let Some(job) = worker.job.clone() else {
            return;
        };
        let (node, kind, name) = self.describe_job(&job);
        self.sink.event(&Event::NodeStarted {
            node,
            kind,
            name,
            attempt,
        });
    }

    fn busy(&mut self, nonce: &str, lock: &str) {
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        let Some(Job::Build(node)) = worker.job.take() else {
            return;
        };
        if self.stopping.is_some() {
            worker.job = Some(Job::Build(node));
            self.finish(nonce, Outcome::Cancelled);
            return;
        }
        self.release(nonce);
        if self.schedule.put_back(node, Instant::now() + LOCK_PAUSE) {
            let (node, ..) = self.describe_job(&Job::Build(node));
            let reason = format!("another program holds `{lock}`");
            self.sink.event(&Event::NodeWaiting { node, reason });
        }
    }

    fn built(&mut self, nonce: &str, result: BuildResult) {
        let job = self
            .workers
            .get(nonce)
            .and_then(|worker| worker.job.clone());
        let Some(Job::Build(node)) = job else { return };
        let outcome = match result {
            BuildResult::Built { outputs } => {
                let outcome = Outcome::Built {
                    outputs: self.named(node, &outputs),
                };
                self.learn(outputs);
                outcome
            }
            BuildResult::AlreadyValid { outputs } => {
                self.learn(outputs);
                Outcome::AlreadyValid
            }
            BuildResult::Failed { failure } => self.failed(nonce, failure),
            BuildResult::Cancelled => Outcome::Cancelled,
            BuildResult::StoreLost { missing } => self.store_lost(nonce, &missing),
        };
        self.finish(nonce, outcome);
    }

    fn ran(&mut self, nonce: &str, result: EffectResult) {
        let outcome = match result {
            EffectResult::Succeeded => Outcome::Succeeded,
            EffectResult::Failed { failure } => self.failed(nonce, failure),
            EffectResult::Cancelled => Outcome::Cancelled,
            EffectResult::StoreLost { missing } => self.store_lost(nonce, &missing),
        };
        self.finish(nonce, outcome);
    }

    fn store_lost(&mut self, nonce: &str, missing: &StorePath) -> Outcome {
        let reason = format!(
            "store lost: `{missing}` was valid when the plan was made and is not any more; run again"
        );
        self.failed(nonce, machine(reason))
    }

    fn failed(&mut self, nonce: &str, failure: Failure) -> Outcome {
        self.flush_log(nonce);
        let tail = self
            .workers
            .get(nonce)
            .map(|worker| worker.lines.tail())
            .unwrap_or_default();
        Outcome::Failed { failure, tail }
    }

    fn learn(&mut self, facts: Vec<PathFacts>) {
        for fact in facts {
            self.facts.insert(fact.path.clone(), fact);
        }
    }

    fn named(&self, node: NodeIndex, facts: &[PathFacts]) -> Vec<BuiltOutput> {
        let outputs = &self.planned.graph.node(node).parsed.outputs;
        outputs
            .iter()
            .filter_map(|(name, path)| Some((name.clone(), path.clone()?)))
            .filter(|(_, path)| facts.iter().any(|fact| fact.path == *path))
            .map(|(name, path)| BuiltOutput { name, path })
            .collect()
    }

    /// An agent cannot go on with its job, or says something else than it should.
    fn lose(&mut self, nonce: &str, reason: &str) {
        let Some(worker) = self.workers.get(nonce) else {
            return;
        };
        if let Some(speaker) = &worker.speaker
            && worker.job.is_none()
        {
            speaker.hang_up();
            return;
        }
        let outcome = self.failed(nonce, machine(reason));
        self.finish(nonce, outcome);
    }

    /// An op has ended: whatever its agent had to say has come before, or never will.
    fn op_ended(&mut self, end: &OpEnd) {
        let Some(worker) = self.workers.get_mut(&end.nonce) else {
            return;
        };
        let slot = worker.slot.take();
        let job = worker.job.clone();
        let attempt = worker.attempt;
        if let Some(job) = job {
            // What it wrote to the tunnel is read by another thread: let that come first.
            if self.drain_of(&end.nonce) {
                self.forget(&end.nonce, slot);
                return;
            }
            let outcome = match (&job, &end.how) {
                _ if self.stopping.is_some() && !attempt => Outcome::Cancelled,
                (Job::Effect(_), how) if attempt && !matches!(how, OpExit::NotStarted { .. }) => {
                    let detail = format!(
                        "its agent ended ({}) before it could say what came of the effect",
                        describe(how)
                    );
                    Outcome::Unknown { detail }
                }
                (_, how) if self.stopping.is_some() => {
                    let _ = how;
                    Outcome::Cancelled
                }
                (_, how) => {
                    let reason = format!("the op ended before its job did: {}", describe(how));
                    self.failed(&end.nonce, machine(reason))
                }
            };
            self.finish(&end.nonce, outcome);
        }
        self.forget(&end.nonce, slot);
    }

    /// Hears what an agent said before its op ended; true if that was the outcome.
    fn drain_of(&mut self, nonce: &str) -> bool {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut others = Vec::new();
        while Instant::now() < deadline {
            let busy = self
                .workers
                .get(nonce)
                .is_some_and(|worker| worker.job.is_some());
            if !busy {
                break;
            }
            match self.session.next(Duration::from_millis(50)) {
                Ok(Some(Happening::Closed { nonce: who, .. })) if who == nonce => break,
                Ok(Some(Happening::Said {
                    nonce: who,
                    message,
                })) if who == nonce => {
                    let _ = self.hear_agent(nonce, message);
                }
                Ok(Some(Happening::Logged { nonce: who, bytes })) if who == nonce => {
                    self.log(nonce, &bytes);
                }
                Ok(Some(Happening::Connected {
                    nonce: who,
                    speaker,
                })) if who == nonce => {
                    if let Some(worker) = self.workers.get_mut(nonce) {
                        worker.speaker = Some(speaker);
                    }
                }
                Ok(Some(other)) => others.push(other),
                Ok(None) => {
                    // It never connected: nothing can come.
                    if self
                        .workers
                        .get(nonce)
                        .is_some_and(|worker| worker.speaker.is_none())
                    {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        self.session.put_back(others);
        !self
            .workers
            .get(nonce)
            .is_some_and(|worker| worker.job.is_some())
    }

    fn forget(&mut self, nonce: &str, slot: Option<u32>) {
        self.workers.remove(nonce);
        self.slots.extend(slot);
    }

    /// Makes a worker free for another job; a plain one ends by itself.
    fn release(&mut self, nonce: &str) {
        if let Some(worker) = self.workers.get_mut(nonce) {
            worker.job = None;
            worker.started = None;
        }
    }

    fn log(&mut self, nonce: &str, bytes: &[u8]) {
        let Some(job) = self
            .workers
            .get(nonce)
            .and_then(|worker| worker.job.clone())
        else {
            return;
        };
        let (node, ..) = self.describe_job(&job);
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        let sink = &mut *self.sink;
        worker.lines.push(bytes, &mut |line| {
            sink.event(&Event::NodeLog {
                node: node.clone(),
                line,
            });
        });
    }

    fn flush_log(&mut self, nonce: &str) {
        let Some(job) = self
            .workers
            .get(nonce)
            .and_then(|worker| worker.job.clone())
        else {
            return;
        };
        let (node, ..) = self.describe_job(&job);
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        let sink = &mut *self.sink;
        worker.lines.flush(&mut |line| {
            sink.event(&Event::NodeLog {
                node: node.clone(),
                line,
            });
        });
    }

    /// Ends a worker's job with an outcome, and everything that follows from it.
    fn finish(&mut self, nonce: &str, outcome: Outcome) {
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
    fn report(&mut self, node: NodeIndex, outcome: Outcome) {
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

    fn notice_cancel(&mut self) {
        if self.stopping.is_none() && self.options.cancel.load(Ordering::Relaxed) {
            self.tally.cancelled = true;
            self.stop();
        }
    }

    /// Starts nothing more and tells what runs to end.
    fn stop(&mut self) {
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

    fn describe_job(&self, job: &Job) -> (NodeId, NodeKind, String) {
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

fn reach(parsed: &Parsed) -> Reach {
    let fixed = parsed
        .derivation
        .outputs()
        .values()
        .any(|output| matches!(output, Output::Fixed { .. }));
    if fixed {
        Reach::Network
    } else {
        Reach::Nothing
    }
}

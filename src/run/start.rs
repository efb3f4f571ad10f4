//! Starting builds: which op, with what mounted, for which agent.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::lower::{PlainInputs, Reach};
use crate::engine::{Op, OpRoot, Shape};
use crate::nix::StorePath;
use crate::nix::derivation::Outline;
use crate::plan::NodeIndex;
use crate::run::Error;
use crate::run::conduct::{Conductor, Worker};
use crate::run::course::Job;
use crate::run::logs::Lines;
use crate::tunnel::{BuildJob, PathKind, ToAgent};

impl Conductor<'_, '_, '_> {
    pub(super) fn start_build(&mut self, node: NodeIndex) -> Result<(), Error> {
        let parsed = self.course.planned.graph.node(node).parsed.clone();
        let reach = reach(&parsed);
        if let (Shape::Strong, Some(nonce)) = (self.course.options.shape, self.idle(reach)) {
            self.give(&nonce, Job::Build(node));
            return Ok(());
        }
        if let Some(worker) = self.new_worker(reach) {
            worker.job = Some(Job::Build(node));
            return Ok(());
        }
        let nonce = self.session.nonce();
        let slot = self.slots.pop();
        let definition = match self.course.options.shape {
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
        self.employ(nonce.clone(), Job::Build(node), reach, slot);
        self.session.start(Op {
            nonce,
            definition,
            secrets: BTreeMap::new(),
            root: OpRoot::Defined,
        })
    }

    /// The agent that waits for a job and reaches as far, but no further than need be.
    fn idle(&self, reach: Reach) -> Option<String> {
        let idle = self.workers.iter().filter(|(_, worker)| worker.idle);
        let able = idle.filter(|(_, worker)| worker.reach >= reach);
        let best = able.min_by_key(|(_, worker)| worker.reach);
        best.map(|(nonce, _)| nonce.clone())
    }

    /// The agent that was called before there was a job for it, and has not asked for one yet.
    fn new_worker(&mut self, reach: Reach) -> Option<&mut Worker> {
        let new = |worker: &&mut Worker| worker.is_new() && worker.reach >= reach;
        self.workers.values_mut().find(new)
    }

    /// Notes a new op that is to do a job when its agent asks.
    pub(super) fn employ(&mut self, nonce: String, job: Job, reach: Reach, slot: Option<u32>) {
        let worker = Worker::new(Some(job), reach, slot);
        self.workers.insert(nonce, worker);
    }

    /// Gives a job to an agent that asked for one.
    pub(super) fn give(&mut self, nonce: &str, job: Job) {
        let slot = self.workers.get(nonce).and_then(|worker| worker.slot);
        let message = match &job {
            Job::Build(node) => ToAgent::Build(self.build_job(*node, slot)),
            Job::Effect(effect) => ToAgent::Effect(self.effect_job(*effect)),
        };
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        worker.idle = false;
        worker.job = Some(job);
        worker.started = None;
        worker.given = true;
        worker.attempt = None;
        worker.lines = Lines::default();
        worker.free = None;
        if let Some(speaker) = &mut worker.speaker {
            // A broken stream is heard of as its end.
            let _ = speaker.say(&message);
        }
        if let Job::Build(node) = job {
            self.look_ahead(nonce, node);
        }
    }

    /// Notes that an agent has gone on with what it was told before.
    pub(super) fn go_on(&mut self, nonce: &str, node: NodeIndex) {
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        worker.job = Some(Job::Build(node));
        worker.attempt = None;
        worker.lines = Lines::default();
        worker.free = None;
        worker.ahead = true;
        self.look_ahead(nonce, node);
    }

    /// Tells an agent what to build after a build, where another must wait for that anyway: else
    /// the way there and back would pass before each of them. Where an effect may be next it is not
    /// overtaken.
    fn look_ahead(&mut self, nonce: &str, node: NodeIndex) {
        if self.course.options.shape == Shape::Plain
            || self.course.is_stopping()
            || self.course.has_effect_behind(node)
        {
            return;
        }
        let Some(next) = self.course.schedule.successor(node) else {
            return;
        };
        let graph = &self.course.planned.graph;
        let reach = reach(graph.node(next).parsed);
        let message = ToAgent::Then {
            after: graph.node(node).parsed.path.clone(),
            job: self.build_job(next, None),
        };
        if let Some(worker) = self.workers.get_mut(nonce)
            && worker.reach >= reach
            && let Some(speaker) = &mut worker.speaker
        {
            worker.next = speaker.say(&message).is_ok().then_some(next);
        }
    }

    fn build_job(&self, node: NodeIndex, slot: Option<u32>) -> BuildJob {
        let wanted = &self.course.planned.plan.node(node).wanted;
        BuildJob {
            drv: self.course.planned.graph.node(node).parsed.path.clone(),
            wanted: wanted.iter().cloned().collect(),
            run: self.course.options.run.clone(),
            cores: self.course.options.cores,
            timeout: self.course.options.timeout.map(|limit| limit.as_secs()),
            silence: self.course.options.silence.map(|limit| limit.as_secs()),
            sandbox_paths: self.session.sandbox_paths.clone(),
            slot,
        }
    }

    /// Returns the closure of a build's inputs that mounts can bring.
    fn input_closure(
        &mut self,
        node: NodeIndex,
        parsed: &Outline,
    ) -> Result<Vec<StorePath>, Error> {
        let mut roots: BTreeSet<StorePath> = parsed.sources.iter().cloned().collect();
        for input in self.course.planned.graph.node(node).inputs() {
            let outputs = &self.course.planned.graph.node(input.node).parsed.outputs;
            roots.extend(
                input
                    .outputs
                    .iter()
                    .filter_map(|name| outputs.get(name)?.clone()),
            );
        }
        roots.extend(self.session.tools().cloned());
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
}

/// Returns what a build may reach: the network, where its outputs are fixed.
pub(super) fn reach(parsed: &Outline) -> Reach {
    if parsed.fixed {
        Reach::Network
    } else {
        Reach::Nothing
    }
}

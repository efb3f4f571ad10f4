//! Hearing agents and the engine: what each message means for the node it is about.

use std::time::{Duration, Instant};

use crate::engine::{EngineEvent, OpEnd};
use crate::event::{BuiltOutput, Event, Failure, Outcome};
use crate::nix::StorePath;
use crate::plan::NodeIndex;
use crate::run::conduct::{Conductor, Job};
use crate::run::connection::Happening;
use crate::run::logs::Lines;
use crate::run::outcome::machine;
use crate::run::session::describe;
use crate::tunnel::{BuildResult, EffectResult, FromAgent, PathFacts, ToAgent};

/// How long a node waits before it asks again for a lock that another program holds.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

impl Conductor<'_, '_> {
    pub(super) fn hear(&mut self, happening: Happening) {
        match happening {
            Happening::Connected { nonce, mut speaker } => {
                if let Some(worker) = self.workers.get_mut(&nonce) {
                    worker.speaker = Some(speaker);
                } else {
                    // Nobody of this run: an op of a dead one, or a stranger.
                    let _ = speaker.say(&ToAgent::Bye);
                    speaker.hang_up();
                }
            }
            Happening::Said { nonce, message } => self.hear_agent(&nonce, message),
            Happening::Logged { nonce, bytes } => self.log(&nonce, &bytes),
            Happening::Closed {
                nonce,
                reason: Some(reason),
            } => self.lose(&nonce, &reason),
            Happening::Closed {
                nonce,
                reason: None,
            } => self.deaf(&nonce),
            Happening::Engine(EngineEvent::Ended(end)) => self.op_ended(&end),
            // The rest ends the run, and the session has made errors of it.
            Happening::Engine(_) | Happening::WrongVersion => {}
        }
    }

    fn hear_agent(&mut self, nonce: &str, message: FromAgent) {
        match message {
            FromAgent::Idle => self.hear_idle(nonce),
            FromAgent::Started { attempt } => self.started(nonce, attempt),
            FromAgent::Busy { lock } => self.busy(nonce, &lock),
            FromAgent::Built { result } => self.built(nonce, result),
            FromAgent::Ran { result } => self.ran(nonce, result),
            FromAgent::Failed { error } | FromAgent::Unfit { error } => {
                self.lose(nonce, &error.text);
            }
            _ => self.lose(nonce, "its agent answers something else"),
        }
    }

    fn hear_idle(&mut self, nonce: &str) {
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        match worker.job.clone() {
            Some(job) if self.stopping.is_none() => self.give(nonce, job),
            Some(_) => self.finish(nonce, Outcome::Cancelled),
            None => worker.idle = true,
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

    pub(super) fn failed(&mut self, nonce: &str, failure: Failure) -> Outcome {
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

    /// An agent has closed its end: nothing more comes of it, and nothing reaches it.
    fn deaf(&mut self, nonce: &str) {
        if let Some(worker) = self.workers.get_mut(nonce) {
            worker.speaker = None;
            worker.idle = false;
        }
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
            let outcome = match &job {
                _ if self.stopping.is_some() && !attempt => Outcome::Cancelled,
                Job::Effect(_) if attempt => {
                    let detail = format!(
                        "its agent ended ({}) before it could say what came of the effect",
                        describe(end)
                    );
                    Outcome::Unknown { detail }
                }
                _ if self.stopping.is_some() => Outcome::Cancelled,
                _ => {
                    let reason = format!("the op ended before its job did: {}", describe(end));
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
                Ok(Some(Happening::Closed { nonce: who, .. })) if who == nonce => {
                    self.deaf(nonce);
                    break;
                }
                Ok(Some(Happening::Said {
                    nonce: who,
                    message,
                })) if who == nonce => {
                    self.hear_agent(nonce, message);
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
                    // It never connected, or has closed its end: nothing can come.
                    if self
                        .workers
                        .get(nonce)
                        .is_some_and(|worker| worker.speaker.is_none())
                    {
                        break;
                    }
                }
                Err(error) => {
                    self.lost = Some(error);
                    break;
                }
            }
        }
        self.session.put_back(others);
        self.workers
            .get(nonce)
            .is_none_or(|worker| worker.job.is_none())
    }

    fn forget(&mut self, nonce: &str, slot: Option<u32>) {
        self.workers.remove(nonce);
        self.slots.extend(slot);
    }

    /// Makes a worker free for another job; a plain one ends by itself.
    pub(super) fn release(&mut self, nonce: &str) {
        if let Some(worker) = self.workers.get_mut(nonce) {
            worker.job = None;
            worker.started = None;
        }
    }

    fn log(&mut self, nonce: &str, bytes: &[u8]) {
        self.tell_lines(nonce, |lines, tell| lines.push(bytes, tell));
    }

    pub(super) fn flush_log(&mut self, nonce: &str) {
        self.tell_lines(nonce, Lines::flush);
    }

    /// Tells of every line that `take` gets out of a worker's log.
    fn tell_lines(&mut self, nonce: &str, take: impl FnOnce(&mut Lines, &mut dyn FnMut(String))) {
        let job = self
            .workers
            .get(nonce)
            .and_then(|worker| worker.job.clone());
        let Some(job) = job else { return };
        let (node, ..) = self.describe_job(&job);
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        let sink = &mut *self.sink;
        take(&mut worker.lines, &mut |line| {
            sink.event(&Event::NodeLog {
                node: node.clone(),
                line,
            });
        });
    }
}

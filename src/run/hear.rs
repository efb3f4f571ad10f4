//! Hearing agents and the engine: what each message means for the node it is about.

use std::time::{Duration, Instant};

use crate::engine::{EngineEvent, OpEnd};
use crate::event::{BuiltOutput, Event, Failure, Outcome};
use crate::nix::StorePath;
use crate::plan::NodeIndex;
use crate::run::conduct::Conductor;
use crate::run::connection::{Happening, Speaker};
use crate::run::course::Job;
use crate::run::logs::Lines;
use crate::run::outcome::machine;
use crate::store::{Held, Notice, Wait};
use crate::tunnel::{BuildResult, EffectResult, FromAgent, PathFacts, ToAgent};

/// How long a node waits before it asks again for a lock that another program holds.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

impl Conductor<'_, '_, '_> {
    pub(super) fn hear(&mut self, happening: Happening) {
        match happening {
            Happening::Connected {
                nonce,
                instance,
                speaker,
            } => self.connected(&nonce, &instance, speaker),
            Happening::Said { nonce, message } => self.hear_agent(&nonce, message),
            Happening::Logged { nonce, bytes } => self.log(&nonce, &bytes),
            Happening::Closed {
                nonce,
                reason: Some(reason),
            } => self.distrust(&nonce, &reason),
            Happening::Closed {
                nonce,
                reason: None,
            } => self.deaf(&nonce),
            Happening::Engine(EngineEvent::Ended(end)) => self.op_ended(&end),
            Happening::Engine(EngineEvent::Silent { silent, longest }) => {
                self.course.sink.event(&Event::Warning {
                    text: format!("the daemon has not answered for {} s", silent.as_secs()),
                    hint: Some(format!(
                        "its ops are waited for: after {} s it counts as lost",
                        longest.as_secs()
                    )),
                });
            }
            // The rest ends the run, and the session has made errors of it.
            Happening::Engine(_) | Happening::WrongVersion => {}
        }
    }

    fn connected(&mut self, nonce: &str, instance: &str, mut speaker: Speaker) {
        let Some(worker) = self.workers.get_mut(nonce) else {
            // Nobody of this session: an op of a dead one, or a stranger.
            let _ = speaker.say(&ToAgent::Bye);
            speaker.hang_up();
            return;
        };
        if instance == self.session.instance {
            worker.speaker = Some(speaker);
            return;
        }
        // It gets no job, so nothing can come of it.
        speaker.hang_up();
        self.lose_store(nonce, "an op found another one in its place".to_owned());
    }

    fn hear_agent(&mut self, nonce: &str, message: FromAgent) {
        match message {
            FromAgent::Idle => self.hear_idle(nonce),
            FromAgent::Started { attempt } => self.started(nonce, attempt),
            FromAgent::Busy { lock } => self.busy(nonce, &lock),
            FromAgent::Waiting { lock } => self.waiting(nonce, &lock),
            FromAgent::Built { result } => self.built(nonce, result),
            FromAgent::Ran { result } => self.ran(nonce, result),
            FromAgent::Failed { error } | FromAgent::Unfit { error } => {
                self.lose(nonce, &error.text);
            }
            _ => self.distrust(nonce, "its agent answers something else"),
        }
    }

    fn hear_idle(&mut self, nonce: &str) {
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        if worker.speaker.is_none() {
            // It came with a hello that was not welcome: no job reaches its agent.
            return;
        }
        if std::mem::take(&mut worker.ahead) && worker.job.is_some() {
            return;
        }
        match worker.job {
            // Nothing is done twice because it was asked for twice.
            Some(_) if worker.given => self.distrust(nonce, "its agent asks for another job"),
            Some(job) if !self.course.is_stopping() => self.give(nonce, job),
            Some(_) => self.finish(nonce, Outcome::Cancelled),
            None => worker.idle = true,
        }
    }

    fn started(&mut self, nonce: &str, attempt: String) {
        let Some(number) = number_of(nonce, &attempt) else {
            return self.distrust(nonce, "its agent names an attempt of another");
        };
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        worker.begun = number;
        worker.started = Some(Instant::now());
        worker.attempt = Some(attempt.clone());
        let Some(job) = worker.job else {
            return;
        };
        let (node, kind, name) = self.course.describe_job(&job);
        self.course.sink.event(&Event::NodeStarted {
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
        let Some(Job::Build(node)) = worker.job else {
            return self.distrust(nonce, "its agent waits for a lock, and builds nothing");
        };
        worker.job = None;
        if self.course.is_stopping() {
            worker.job = Some(Job::Build(node));
            self.finish(nonce, Outcome::Cancelled);
            return;
        }
        if let Some(held) = self.look_at_lock(node, lock) {
            if let Some(worker) = self.workers.get_mut(nonce) {
                worker.job = Some(Job::Build(node));
            }
            let outcome = self.failed(nonce, machine(held.to_string()));
            self.finish(nonce, outcome);
            return;
        }
        self.release(nonce);
        let when = Instant::now() + LOCK_PAUSE;
        self.course.schedule.put_back(node, when);
    }

    /// A build that is done waits to be registered. Given up, its agent ends with its lifeline.
    fn waiting(&mut self, nonce: &str, lock: &str) {
        let job = self.workers.get(nonce).and_then(|worker| worker.job);
        let Some(Job::Build(node)) = job else {
            return self.distrust(nonce, "its agent waits for a lock, and builds nothing");
        };
        if let Some(held) = self.look_at_lock(node, lock) {
            self.distrust(nonce, &held.to_string());
        }
    }

    /// Tells of a lock that a build waits for; gives it back if that has been too long.
    fn look_at_lock(&mut self, node: NodeIndex, lock: &str) -> Option<Held> {
        let options = self.course.options;
        let place = options.nix_dir.path_here(lock);
        let fresh = || Wait::new(options.lock_timeout);
        match self.waits.entry(node).or_insert_with(fresh).look(&place) {
            Notice::Quiet => {}
            Notice::Tell(held) => {
                let (node, ..) = self.course.describe_job(&Job::Build(node));
                let reason = held.to_string();
                self.course.sink.event(&Event::NodeWaiting { node, reason });
            }
            Notice::GiveUp(held) => return Some(held),
        }
        None
    }

    fn built(&mut self, nonce: &str, result: BuildResult) {
        let job = self.workers.get(nonce).and_then(|worker| worker.job);
        let Some(Job::Build(node)) = job else {
            return self.distrust(nonce, "its agent tells of a build, and has none");
        };
        let outcome = match result {
            BuildResult::Built { outputs } | BuildResult::AlreadyValid { outputs }
                if !self.has_wanted(node, &outputs) =>
            {
                return self.distrust(nonce, "its agent tells of other outputs");
            }
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
            BuildResult::StoreLost { missing } => return self.lose_store(nonce, gone(&missing)),
        };
        self.finish(nonce, outcome);
    }

    fn ran(&mut self, nonce: &str, result: EffectResult) {
        let job = self.workers.get(nonce).and_then(|worker| worker.job);
        let Some(Job::Effect(_)) = job else {
            return self.distrust(nonce, "its agent tells of an effect, and has none");
        };
        let outcome = match result {
            EffectResult::Succeeded => Outcome::Succeeded,
            EffectResult::Failed { failure } => self.failed(nonce, failure),
            EffectResult::Cancelled => Outcome::Cancelled,
            EffectResult::StoreLost { missing } => {
                if let Some(worker) = self.workers.get_mut(nonce) {
                    // It is looked at before anything of the effect is started.
                    worker.given = false;
                }
                return self.lose_store(nonce, gone(&missing));
            }
        };
        self.finish(nonce, outcome);
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

    /// Whether the facts are of this node's outputs, with all that are wanted among them.
    fn has_wanted(&self, node: NodeIndex, facts: &[PathFacts]) -> bool {
        let outputs = &self.course.planned.graph.node(node).parsed.outputs;
        let wanted = &self.course.planned.plan.node(node).wanted;
        let is_told = |path: &StorePath| facts.iter().any(|fact| fact.path == *path);
        let is_output =
            |fact: &PathFacts| outputs.values().flatten().any(|path| *path == fact.path);
        facts.iter().all(is_output)
            && wanted
                .iter()
                .filter_map(|name| outputs.get(name)?.as_ref())
                .all(is_told)
    }

    fn named(&self, node: NodeIndex, facts: &[PathFacts]) -> Vec<BuiltOutput> {
        let outputs = &self.course.planned.graph.node(node).parsed.outputs;
        outputs
            .iter()
            .filter_map(|(name, path)| Some((name.to_owned(), path.clone()?)))
            .filter(|(_, path)| facts.iter().any(|fact| fact.path == *path))
            .map(|(name, path)| BuiltOutput { name, path })
            .collect()
    }

    /// An agent says something else than it should: nothing it says counts any more, and its
    /// lifeline goes. What an effect has come to by then, its record knows.
    fn distrust(&mut self, nonce: &str, reason: &str) {
        let Some(worker) = self.workers.get(nonce) else {
            return;
        };
        if let Some(speaker) = &worker.speaker {
            speaker.hang_up();
        }
        let (job, given) = (worker.job, worker.given);
        self.deaf(nonce);
        match job {
            Some(Job::Effect(_)) if given => self.settle_by_record(nonce, reason),
            Some(_) => {
                let outcome = self.failed(nonce, machine(reason));
                self.finish(nonce, outcome);
            }
            None => {}
        }
    }

    /// An agent cannot go on with its job.
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
        let Some(worker) = self.workers.get(&end.nonce) else {
            return;
        };
        // What it wrote to the tunnel is read by another thread: let that come first.
        if worker.job.is_some() && !self.drain_of(&end.nonce) {
            self.ended_silently(end);
        }
        if let Some(worker) = self.workers.remove(&end.nonce) {
            self.slots.extend(worker.slot);
        }
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
                Ok(Some(happening)) if happening.is_of(nonce) => {
                    let is_last = matches!(happening, Happening::Closed { .. });
                    self.hear(happening);
                    if is_last {
                        break;
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

    /// Makes a worker free for another job; a plain one ends by itself. Returns what it was told to
    /// go on with.
    pub(super) fn release(&mut self, nonce: &str) -> Option<NodeIndex> {
        let worker = self.workers.get_mut(nonce)?;
        let built = matches!(worker.job.take(), Some(Job::Build(_)));
        worker.free = built.then(Instant::now);
        worker.started = None;
        worker.next.take()
    }

    fn log(&mut self, nonce: &str, bytes: &[u8]) {
        self.tell_lines(nonce, |lines, tell| lines.push(bytes, tell));
    }

    pub(super) fn flush_log(&mut self, nonce: &str) {
        self.tell_lines(nonce, Lines::flush);
    }

    /// Tells of every line that `take` gets out of a worker's log.
    fn tell_lines(&mut self, nonce: &str, take: impl FnOnce(&mut Lines, &mut dyn FnMut(String))) {
        let job = self.workers.get(nonce).and_then(|worker| worker.job);
        let Some(job) = job else { return };
        let (node, ..) = self.course.describe_job(&job);
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        let sink = &mut *self.course.sink;
        take(&mut worker.lines, &mut |line| {
            sink.event(&Event::NodeLog {
                node: node.clone(),
                line,
            });
        });
    }
}

/// An agent's attempts are named after its op, and numbered.
fn number_of(nonce: &str, attempt: &str) -> Option<u32> {
    let rest = attempt.strip_prefix(nonce)?;
    rest.strip_prefix('-')?.parse().ok()
}

fn gone(path: &StorePath) -> String {
    format!("`{path}` was valid when the plan was made and is not any more")
}

//! The loop that owns a session: starts nodes, hears what comes of them, puts events in order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::engine::Shape;
use crate::engine::lower::Reach;
use crate::event::Outcome;
use crate::nix::StorePath;
use crate::plan::NodeIndex;
use crate::run::attempt::Adrift;
use crate::run::connection::Speaker;
use crate::run::course::{Course, EffectState, Job};
use crate::run::logs::Lines;
use crate::run::session::Session;
use crate::run::{Error, OnFailure};
use crate::store::Wait;
use crate::tunnel::{PathFacts, ToAgent};

/// How long what runs may take to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(4);
/// How soon an agent asks for its next build.
const PROMPT: Duration = Duration::from_secs(1);
/// How many slots there are for each job (plain): an op keeps its slot until a daemon has taken it
/// apart, and meanwhile the next one can begin.
const SLOTS: usize = 2;
/// How often it is asked whether the run is to stop.
const TICK: Duration = Duration::from_millis(100);

/// An op and its agent.
pub(super) struct Worker {
    /// When its op was asked for.
    pub(super) called: Instant,
    pub(super) speaker: Option<Speaker>,
    /// What it does, or is to do as soon as it asks.
    pub(super) job: Option<Job>,
    /// It asked for a job and has none.
    pub(super) idle: bool,
    /// What its op may reach: it does no job that needs more.
    pub(super) reach: Reach,
    /// The slot that is mounted in it (plain).
    pub(super) slot: Option<u32>,
    pub(super) started: Option<Instant>,
    /// It was told what to do.
    pub(super) given: bool,
    /// The attempt it said it had started.
    pub(super) attempt: Option<String>,
    /// The number of the last attempt that it said it had started.
    pub(super) begun: u32,
    pub(super) lines: Lines,
    /// Since when its build is done, and no other begun.
    pub(super) free: Option<Instant>,
    /// What it goes on with by itself, if its build is good: it was told.
    pub(super) next: Option<NodeIndex>,
    /// It has gone on by itself, and is still to be heard asking for a job before that.
    pub(super) ahead: bool,
}

impl Worker {
    /// An op that has just been begun.
    pub(super) fn new(job: Option<Job>, reach: Reach, slot: Option<u32>) -> Self {
        Self {
            called: Instant::now(),
            speaker: None,
            job,
            idle: false,
            reach,
            slot,
            started: None,
            given: false,
            attempt: None,
            begun: 0,
            lines: Lines::default(),
            free: None,
            next: None,
            ahead: false,
        }
    }

    /// Whether it is to have its first job, which it may not have asked for yet.
    pub(super) fn is_new(&self) -> bool {
        self.job.is_none() && !self.given
    }
}

/// The ops of a session.
pub(super) struct Conductor<'c, 'a, 's> {
    pub(super) course: &'c mut Course<'a>,
    pub(super) session: &'c mut Session<'s>,
    pub(super) workers: BTreeMap<String, Worker>,
    pub(super) slots: Vec<u32>,
    /// What is known of valid paths (plain: what to mount).
    pub(super) facts: BTreeMap<StorePath, PathFacts>,
    /// Builds whose outputs other programs hold locked.
    pub(super) waits: BTreeMap<NodeIndex, Wait>,
    /// What was heard of while something else was being waited for.
    pub(super) lost: Option<Error>,
    /// The store is lost: no build goes on in it, but an effect that runs may end.
    pub(super) storeless: Option<Error>,
    /// It was told that no op begins.
    pub(super) stuck: bool,
}

impl<'c, 'a, 's> Conductor<'c, 'a, 's> {
    pub(super) fn new(course: &'c mut Course<'a>, session: &'c mut Session<'s>) -> Self {
        let worker = session.worker.take();
        let worker = worker.map(|nonce| (nonce, Worker::new(None, Reach::Nothing, None)));
        Self {
            course,
            session,
            workers: worker.into_iter().collect(),
            slots: Vec::new(),
            facts: BTreeMap::new(),
            waits: BTreeMap::new(),
            lost: None,
            storeless: None,
            stuck: false,
        }
    }

    /// Runs to the end of every node.
    ///
    /// # Errors
    ///
    /// The engine or the store is lost. What ran then and has no outcome is in the course's
    /// [`Course::adrift`].
    pub(super) fn run(mut self) -> Result<(), Error> {
        let ended = self.run_to_end();
        for nonce in self.at_work() {
            self.set_adrift(&nonce);
        }
        ended
    }

    fn run_to_end(&mut self) -> Result<(), Error> {
        let open = self.course.schedule.open();
        if self.course.options.shape == Shape::Plain && open > 0 {
            let count = self.course.options.jobs.saturating_mul(SLOTS).min(open);
            self.slots = self
                .session
                .lease(u32::try_from(count).unwrap_or(u32::MAX))?;
        }
        loop {
            if self.course.notice_cancel() {
                self.stop();
            }
            let wake = self.course.schedule.wake(Instant::now());
            if let Err(error) = self.start_what_can() {
                self.lost = Some(error);
            }
            if self.is_over() {
                break;
            }
            let patience = wake.map_or(TICK, |when| when - Instant::now()).min(TICK);
            match self.session.next(patience) {
                Ok(Some(happening)) => self.hear(happening),
                Ok(None) => {}
                Err(error) => self.lost = Some(error),
            }
            match self.lost.take() {
                Some(error @ Error::StoreLost { .. }) => self.leave_store(error),
                Some(error) => return Err(error),
                None => {}
            }
            self.lose_patience()?;
            self.make_room();
        }
        for (nonce, worker) in &mut self.workers {
            if let Some(speaker) = &mut worker.speaker {
                let _ = speaker.say(&ToAgent::Bye);
            } else if worker.is_new() {
                self.session.worker = Some(nonce.clone());
            }
        }
        self.storeless.take().map_or(Ok(()), Err)
    }

    /// Ends every build: what it makes would be in a store that is lost. An effect that has its
    /// job goes on, for what it does is done elsewhere.
    fn leave_store(&mut self, error: Error) {
        if self.storeless.is_some() {
            return;
        }
        self.storeless = Some(error);
        let is_to_end = |worker: &Worker| match worker.job {
            Some(Job::Build(_)) => true,
            Some(Job::Effect(_)) => !worker.given,
            None => false,
        };
        let busy = self.workers.iter().filter(|(_, worker)| is_to_end(worker));
        let busy: Vec<String> = busy.map(|(nonce, _)| nonce.clone()).collect();
        for nonce in busy {
            self.set_adrift(&nonce);
            if let Err(error) = self.session.kill(&nonce) {
                self.lost = Some(error);
            }
        }
    }

    /// Takes a job from its worker, for the next session to find out what became of it.
    pub(super) fn set_adrift(&mut self, nonce: &str) {
        self.flush_log(nonce);
        let adrift = self.adrift(nonce);
        let Some(worker) = self.workers.get_mut(nonce) else {
            return;
        };
        let next = worker.next.take();
        match worker.job.take() {
            Some(Job::Effect(index)) if !worker.given => {
                self.course.effects[index] = EffectState::Waiting;
            }
            _ => {
                let next = next.and_then(|next| adrift.as_ref()?.followed_by(next));
                self.course.adrift.extend(adrift);
                self.course.adrift.extend(next);
            }
        }
    }

    /// Describes what a worker does for whoever will ask what became of it.
    pub(super) fn adrift(&self, nonce: &str) -> Option<Adrift> {
        let worker = self.workers.get(nonce)?;
        // An agent numbers its attempts. One that was not heard of has the next number, or no record.
        let next = || format!("{nonce}-{}", worker.begun.saturating_add(1));
        Some(Adrift {
            job: worker.job?,
            heard: worker.attempt.is_some(),
            attempt: worker.attempt.clone().unwrap_or_else(next),
            instance: self.session.instance.clone(),
            started: worker.started,
            tail: worker.lines.tail(),
        })
    }

    fn at_work(&self) -> Vec<String> {
        let busy = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.job.is_some());
        busy.map(|(nonce, _)| nonce.clone()).collect()
    }

    fn is_over(&self) -> bool {
        if self.workers.values().any(|worker| worker.job.is_some()) {
            return false;
        }
        let is_open = |state: &EffectState| *state == EffectState::Waiting;
        self.storeless.is_some()
            || self.course.schedule.open() == 0 && !self.course.effects.iter().any(is_open)
    }

    /// How many nodes run. In strong an op whose job is done counts until its agent asks for the next
    /// one, or it would get a second op beside it.
    fn running(&self) -> usize {
        let counts = |worker: &&Worker| match self.course.options.shape {
            Shape::Strong => !worker.idle && !worker.is_new(),
            Shape::Plain => worker.job.is_some(),
        };
        self.workers.values().filter(counts).count()
    }

    /// Whether a build has where to be made: a plain op's slot is free when the op has ended.
    fn has_place(&self) -> bool {
        self.course.options.shape == Shape::Strong || !self.slots.is_empty()
    }

    /// Whether as many agents as there are builds to start will ask for one at once: what they said
    /// last and that they ask come together. An op of its own takes much longer to begin.
    fn is_asked_soon(&self) -> bool {
        let asks = |worker: &&Worker| {
            let freshly = |since: Instant| since.elapsed() < PROMPT;
            !worker.idle && worker.speaker.is_some() && worker.free.is_some_and(freshly)
        };
        let waits = self.workers.values().any(|worker| worker.idle);
        let strong = self.course.options.shape == Shape::Strong;
        let asking = self.workers.values().filter(asks).count();
        strong && !waits && asking > 0 && self.course.schedule.ready() <= asking
    }

    fn start_what_can(&mut self) -> Result<(), Error> {
        self.course.settle_effects();
        if self.course.is_stopping() || self.storeless.is_some() {
            return Ok(());
        }
        while self.running() < self.course.options.jobs {
            if let Some(effect) = self.course.next_effect() {
                self.start_effect(effect)?;
            } else if self.has_place()
                && !self.is_asked_soon()
                && let Some(node) = self.course.schedule.take()
            {
                self.start_build(node)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Starts nothing more and tells what runs to end.
    pub(super) fn stop(&mut self) {
        if self.course.is_stopping() {
            return;
        }
        self.course.stop();
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
        let since = self.course.stopping.map(|since| since.elapsed());
        if since.is_some_and(|since| since > PATIENCE) {
            for nonce in self.at_work() {
                self.session.kill(&nonce)?;
            }
            self.course.stopping = Some(Instant::now());
        }
        Ok(())
    }

    /// Ends a worker's job with an outcome, and everything that follows from it.
    pub(super) fn finish(&mut self, nonce: &str, outcome: Outcome) {
        self.flush_log(nonce);
        let Some(worker) = self.workers.get(nonce) else {
            return;
        };
        let Some(job) = worker.job else {
            return;
        };
        let seconds = worker
            .started
            .map_or(0.0, |started| started.elapsed().as_secs_f64());
        let good = matches!(outcome, Outcome::Built { .. } | Outcome::AlreadyValid);
        let next = self.release(nonce).filter(|_| good);
        let failed = matches!(outcome, Outcome::Failed { .. });
        self.course.conclude(&job, outcome, seconds);
        if let Some(next) = next
            && self.course.schedule.take_this(next)
        {
            self.go_on(nonce, next);
        }
        if failed && self.course.options.on_failure == OnFailure::Stop {
            self.stop();
        }
    }
}

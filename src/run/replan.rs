//! Rounds: a session, a plan for what it finds, its ops; and once more when it was lost.
//!
//! A store can go at any op boundary (BuildKit spec §0): pruned, forked, collected. A daemon can
//! die. Whatever was lost, the same is done: what is left is closed, a new session is opened in
//! whatever store and engine there are now, it is probed, and the rest is planned anew. The
//! [`Course`] keeps what was concluded.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine;
use crate::event::{Event, Lost};
use crate::nix::StorePath;
use crate::plan::{self, Graph, Plan};
use crate::run::conduct::Conductor;
use crate::run::course::{Course, EffectState};
use crate::run::material::{self, Material};
use crate::run::outcome::Tally;
use crate::run::session::Session;
use crate::run::{Error, SandboxPaths, Waking, effects, outside, probe, waking};
use crate::store::{GcLock, TempRoots};
use crate::tunnel::{MachineError, SandboxPath};

/// How often a run goes on after a loss.
const LOSSES: u32 = 3;
/// How long an engine that was lost is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is asked meanwhile whether the run is to stop.
const TICK: Duration = Duration::from_millis(50);

/// A run, round after round.
pub(super) struct Rounds<'a, 'p, 's> {
    /// The first session, until it is taken.
    waking: Option<Waking<'s>>,
    course: Course<'a>,
    /// Keeps collectors from what was evaluated, until `protected` does.
    kept: Option<GcLock>,
    protected: Vec<TempRoots>,
    ask_sandbox_paths: &'p mut SandboxPaths<'p>,
    sandbox_paths: Option<Vec<SandboxPath>>,
    /// How many sessions were opened, or tried to.
    opened: u32,
    losses: u32,
    begun: bool,
    /// Whether it was said that effects use the network of the daemon's host.
    warned: bool,
}

/// What came of it.
pub(super) struct Ran<'a> {
    pub(super) graph: Graph,
    pub(super) tally: Tally,
    /// The last session; none if it was lost.
    pub(super) session: Option<Session<'a>>,
}

impl<'a, 'p, 's: 'a> Rounds<'a, 'p, 's> {
    pub(super) fn new(
        waking: Waking<'s>,
        course: Course<'a>,
        kept: Option<GcLock>,
        ask_sandbox_paths: &'p mut SandboxPaths<'p>,
    ) -> Self {
        Self {
            waking: Some(waking),
            course,
            kept,
            protected: Vec::new(),
            ask_sandbox_paths,
            sandbox_paths: None,
            opened: 0,
            losses: 0,
            begun: false,
            warned: false,
        }
    }

    /// Runs to the end of every node.
    ///
    /// # Errors
    ///
    /// The engine or the store cannot be used, or was lost too often. If ops had begun, every node
    /// has its outcome before; and if that of an effect is unknown, or the user wanted the end, the
    /// run has a result all the same, for its exit code says so.
    pub(super) fn run(mut self) -> Result<Ran<'a>, Error> {
        let error = loop {
            match self.round() {
                Ok(session) => return Ok(self.ran(Some(session))),
                Err(error) => {
                    if let Err(error) = self.bear(error) {
                        break error;
                    }
                }
            }
        };
        if !self.begun {
            return Err(error);
        }
        self.course.abandon(&error);
        let tally = &self.course.tally;
        let stopped = tally.signal.is_some();
        if tally.summary.effects_unknown == 0 && !stopped {
            return Err(error);
        }
        if !stopped {
            self.course.sink.event(&Event::Warning {
                text: MachineError::of(&error).text,
                hint: None,
            });
        }
        Ok(self.ran(None))
    }

    fn ran(self, session: Option<Session<'a>>) -> Ran<'a> {
        Ran {
            graph: self.course.planned.graph,
            tally: self.course.tally,
            session,
        }
    }

    /// Goes on after a loss, unless there were too many.
    fn bear(&mut self, error: Error) -> Result<(), Error> {
        let (what, reason) = match &error {
            Error::StoreLost { reason } => (Lost::Store, reason.clone()),
            Error::EngineGone { reason } => (Lost::Engine, reason.clone()),
            Error::Engine(gone @ engine::Error::Gone(_)) => (Lost::Engine, gone.to_string()),
            _ => return Err(error),
        };
        if self.course.is_stopping() || self.is_cancelled() {
            return Err(error);
        }
        if self.losses == LOSSES {
            let reason = format!("{reason}; {LOSSES} times before it was planned anew");
            return Err(match what {
                Lost::Store => Error::StoreLost { reason },
                Lost::Engine => Error::EngineGone { reason },
            });
        }
        self.losses += 1;
        self.course.sink.event(&Event::Lost {
            what,
            reason,
            time: self.losses,
            of: LOSSES,
        });
        Ok(())
    }

    fn is_cancelled(&self) -> bool {
        self.course.options.cancel.load(Ordering::Relaxed)
    }

    fn round(&mut self) -> Result<Session<'a>, Error> {
        let mut session = self.open()?;
        match self.go(&mut session) {
            Ok(()) => Ok(session),
            Err(error) => {
                session.close();
                Err(error)
            }
        }
    }

    /// Opens a session; one after a loss may take a while to come.
    fn open(&mut self) -> Result<Session<'a>, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut told = false;
        loop {
            let (opened, more) = match self.waking.take() {
                Some(waking) => waking.take(|| self.course.sink.event(&waking::late())),
                None => (Session::open(self.course.options, self.opened), 1),
            };
            self.opened += more;
            let error = match opened {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            if self.losses == 0 || !is_absent(&error) {
                return Err(error);
            }
            let reason = MachineError::of(&error).text;
            let seconds = PATIENCE.as_secs();
            if Instant::now() > deadline {
                let reason = format!("{reason}; it was waited for {seconds} seconds");
                return Err(Error::EngineLost { reason });
            }
            if !told {
                told = true;
                let event = Event::EngineAwaited { reason, seconds };
                self.course.sink.event(&event);
            }
            self.pause()?;
        }
    }

    fn pause(&self) -> Result<(), Error> {
        let end = Instant::now() + PAUSE;
        while Instant::now() < end {
            if self.is_cancelled() {
                return Err(Error::Cancelled);
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn go(&mut self, session: &mut Session<'a>) -> Result<(), Error> {
        self.prepare(session)?;
        self.begun = true;
        Conductor::new(&mut self.course, session).run()
    }

    /// Plans for the store as it is, and brings there what the plan needs.
    fn prepare(&mut self, session: &mut Session<'a>) -> Result<(), Error> {
        let course = &mut self.course;
        let (graph, effects) = (&course.planned.graph, &course.planned.effects);
        effects::admit_there(session, effects)?;
        let mut valid = probe(course.options, session, graph, effects)?;
        course.settle_adrift(session)?;
        let plan = plan::decide(&course.planned.graph, &valid, &course.options.systems);
        refuse(&course.planned.graph, &plan)?;
        let counts = plan.counts();
        course.adopt(plan);
        let network = outside::admit(session, course)?;
        let build = course.schedule.open();
        let waiting = |state: &&EffectState| **state == EffectState::Waiting;
        let effects = course.effects.iter().filter(waiting).count();
        course.sink.event(&Event::Planned {
            derivations: counts.derivations,
            valid: counts.valid,
            build,
            effects,
        });
        if let Some(warning) = network
            && !std::mem::replace(&mut self.warned, true)
        {
            course.sink.event(&warning);
        }
        course.tell_of_unsettled(session)?;
        if build > 0 || effects > 0 {
            self.show(session)?;
            valid.extend(session.root_tools()?);
        }
        self.import(session, &valid)
    }

    fn show(&mut self, session: &mut Session<'a>) -> Result<(), Error> {
        if self.sandbox_paths.is_none() {
            let paths = (self.ask_sandbox_paths)(self.course.sink);
            self.sandbox_paths = Some(paths.ok_or(Error::Cancelled)?);
        }
        session.show(self.sandbox_paths.clone().unwrap_or_default())
    }

    fn import(
        &mut self,
        session: &mut Session<'a>,
        valid: &BTreeSet<StorePath>,
    ) -> Result<(), Error> {
        let course = &mut self.course;
        let mut wanted = course.planned.plan.imports.clone();
        for effect in &course.planned.effects.effects {
            wanted.extend(effect.sources.iter().cloned());
        }
        wanted.extend(session.tools().cloned());
        if self.protected.is_empty() {
            // The same paths may be needed once more, and `nix` does not hold them any longer.
            let mut paths = course.planned.graph.paths();
            paths.extend(wanted.iter().cloned());
            self.protected = material::protect(course.options, &paths);
        }
        wanted.retain(|path| !valid.contains(path));
        if !wanted.is_empty() {
            let material = Material::open(course.options)?;
            let paths = material.closure(&wanted, valid)?;
            let started = Instant::now();
            let event = Event::Importing { paths: paths.len() };
            course.sink.event(&event);
            let (paths, bytes) = session.import(&paths, &mut |held| {
                let text = held.to_string();
                course.sink.event(&Event::Warning { text, hint: None });
            })?;
            course.sink.event(&Event::Imported {
                paths,
                bytes,
                seconds: started.elapsed().as_secs_f64(),
            });
        }
        self.kept = None;
        Ok(())
    }
}

/// Whether an engine, once lost, may still be on its way back.
fn is_absent(error: &Error) -> bool {
    matches!(
        error,
        Error::Speechless { .. }
            | Error::EngineGone { .. }
            | Error::Engine(
                engine::Error::Connect(_) | engine::Error::Daemon { .. } | engine::Error::Gone(_)
            )
    )
}

fn refuse(graph: &Graph, plan: &Plan) -> Result<(), Error> {
    let reasons: Vec<(StorePath, String)> = plan
        .refused()
        .map(|(node, reason)| (graph.node(node).parsed.path.clone(), reason.to_string()))
        .collect();
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(Error::Refused { reasons })
    }
}

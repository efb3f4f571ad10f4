//! The conductor: from a plan to outcomes.
//!
//! [`realise`] goes through the stages of design §3: read the `.drv` closure from the evaluation
//! store's files, root and probe in the build store, decide, import what is missing, then give
//! ready nodes to the engine, critical path first, and hold effects until their gate is good.
//!
//! One loop ([`conduct`]) owns the state of a run and puts events in order. Threads only read:
//! one for each agent's end of the tunnel, one for the engine. The build store is reached through
//! the tunnel alone ([`session`]); the evaluation store is read where it lies ([`material`]).

mod asking;
mod attempt;
mod conduct;
mod connection;
mod course;
mod effects;
mod engine;
mod hear;
mod house;
mod logs;
mod material;
mod ops;
mod outcome;
mod outside;
mod places;
mod planning;
mod positions;
mod prepare;
mod replan;
mod schedule;
mod sending;
mod session;
mod silence;
mod start;
mod waking;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use course::Course;
pub use engine::EngineChoice;
pub use house::{with_closure, with_store};
pub use ops::ops;
pub use outcome::exit_code;
pub use planning::plan;
use replan::{Ran, Rounds};
use session::Session;
pub use waking::{Beforehand, Waking, wake};

use crate::engine::{SecretValue, Shape};
use crate::event::{Event, Sink, Summary};
use crate::nix::derivation::Systems;
use crate::nix::{StorePath, Wanted};
use crate::pipeline::Pipeline;
use crate::plan::closure::{self, Remains};
use crate::plan::{self, Effects, Graph, Plan};
use crate::store::{GcLock, Held, NixDir};
use crate::tunnel::SandboxPath;

/// What a run is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run's id, 16 hexadecimal digits.
    pub run: String,
    /// The build store.
    pub nix_dir: NixDir,
    /// The build store as the user names it.
    pub store_name: String,
    /// Where `.drv` files and sources are looked for, in this order.
    pub sources: Vec<NixDir>,
    /// What runs the ops.
    pub engine: EngineChoice,
    /// Who makes the sandboxes.
    pub shape: Shape,
    /// How many nodes run at once, at least 1.
    pub jobs: usize,
    /// `NIX_BUILD_CORES`.
    pub cores: u32,
    /// What a failure means for the rest.
    pub on_failure: OnFailure,
    /// How long a build, or an effect without a limit of its own, may run.
    pub timeout: Option<Duration>,
    /// How long either may be silent.
    pub silence: Option<Duration>,
    /// How long another program's lock is waited for.
    pub lock_timeout: Option<Duration>,
    /// What can be built here.
    pub systems: Systems,
    /// This executable.
    pub program: PathBuf,
    /// Docker's `config.json`, where logins for registries are.
    pub logins: Option<PathBuf>,
    /// Where the run's temporary directory is made.
    pub temporary: PathBuf,
    /// What stands between agents and conductor and passes bytes on; for looking at the tunnel.
    pub tunnel_proxy: Option<TunnelProxy>,
    /// Set when the run is to stop.
    pub cancel: Arc<AtomicBool>,
    /// The signal that set it, for the exit code; 0 for none.
    pub signal: Arc<AtomicUsize>,
}

/// A program that passes on what agents and conductor say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelProxy {
    /// The socket where it listens, and to which agents connect.
    pub front: PathBuf,
    /// The socket to which it connects: the conductor makes it, and nothing may be there before.
    pub back: PathBuf,
}

/// What a failed node means for nodes that do not need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// They go on.
    KeepGoing,
    /// They are cancelled.
    Stop,
}

/// A pipeline with the values of its secrets.
#[derive(Debug, Clone)]
pub struct PipelineRun {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Which pipeline it is, among all that run on one store.
    pub origin: String,
    /// Values by effect, then by name.
    pub secrets: BTreeMap<String, BTreeMap<String, SecretValue>>,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Counts.
    pub summary: Summary,
    /// What was wanted and where it is.
    pub results: Vec<Realised>,
    /// The exit code of the command.
    pub exit_code: u8,
}

/// Something wanted, after the run.
#[derive(Debug, Clone)]
pub struct Realised {
    /// What was wanted.
    pub wanted: Wanted,
    /// Its outputs by name; none if it failed.
    pub outputs: Option<BTreeMap<String, StorePath>>,
}

/// A plan with what it was made from.
pub struct Planned {
    /// The derivations.
    pub graph: Graph,
    /// The decisions.
    pub plan: Plan,
    /// The effects.
    pub effects: Effects,
}

/// Why there was no run, or why it ended before its nodes did.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A `.drv` file is missing, corrupt, or part of a cycle.
    #[error("the derivations cannot be read")]
    Closure(#[source] closure::Error),
    /// An output is wanted that does not exist.
    #[error("what is asked for does not exist")]
    Graph(#[source] plan::graph::Error),
    /// The effects do not fit the builds.
    #[error("the pipeline cannot be planned")]
    Effects(#[source] plan::effects::Error),
    /// Derivations that this version does not build.
    #[error("{} cannot be built", crate::run::count(reasons.len(), "derivation"))]
    Refused {
        /// Each with its reason.
        reasons: Vec<(StorePath, String)>,
    },
    /// A path that the build store lacks is nowhere.
    #[error("`{path}` is in none of the stores looked at")]
    NoSource {
        /// The path.
        path: StorePath,
    },
    /// A path cannot be read from the evaluation store.
    #[error("cannot read `{path}` from the evaluation store")]
    Source {
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine cannot run ops.
    #[error(transparent)]
    Engine(#[from] crate::engine::Error),
    /// An op could not be lowered.
    #[error("an op cannot be expressed")]
    Lower(#[from] crate::llb::Error),
    /// The build store cannot be used.
    #[error("the store `{store}` cannot be used")]
    Store {
        /// The store as the user names it.
        store: String,
        /// Why.
        #[source]
        source: crate::tunnel::MachineError,
    },
    /// Another program holds a lock of the build store for longer than it is waited for.
    #[error(transparent)]
    Held(Held),
    /// The store is not the one that was probed, or cannot be reached any more.
    #[error("the store was lost: {reason}")]
    StoreLost {
        /// What is known.
        reason: String,
    },
    /// The engine's first op did not come up.
    #[error("the engine's first op ended before it spoke: {reason}")]
    Speechless {
        /// What is known.
        reason: String,
    },
    /// The engine died.
    #[error("the engine is gone: {reason}")]
    EngineGone {
        /// What is known.
        reason: String,
    },
    /// The engine died and did not come back.
    #[error("the engine is gone and did not come back: {reason}")]
    EngineLost {
        /// What is known.
        reason: String,
    },
    /// An agent speaks another protocol.
    #[error("the agent speaks another version of the tunnel's protocol")]
    Version,
    /// The run's own files cannot be made.
    #[error("cannot prepare the run")]
    Prepare(#[source] std::io::Error),
    /// The run was told to stop.
    #[error("interrupted")]
    Cancelled,
}

/// Writes a count with its noun.
fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// What a run is about.
pub struct Evaluated<'a> {
    /// Derivations.
    pub wanted: &'a [Wanted],
    /// A pipeline.
    pub pipeline: Option<&'a PipelineRun>,
    /// Keeps collectors from what was evaluated; let go as soon as the run has what it needs in
    /// the build store, and roots there.
    pub kept: Option<GcLock>,
    /// Finds out what of the machine builders see besides; asked only if there is something to do,
    /// because the answer takes a process of Nix. None ends the run: the caller knows why.
    pub sandbox_paths: &'a mut SandboxPaths<'a>,
}

/// See [`Evaluated::sandbox_paths`].
pub type SandboxPaths<'a> = dyn FnMut(&mut dyn Sink) -> Option<Vec<SandboxPath>> + 'a;

/// Runs: builds what is missing, then the effects.
///
/// `keep` is called with the report while the run's roots still hold; it returns the links it
/// made, which are then registered as roots of their own.
pub fn realise(
    waking: Waking<'_>,
    evaluated: Evaluated<'_>,
    sink: &mut dyn Sink,
    keep: &mut dyn FnMut(&Report) -> Vec<PathBuf>,
) -> Result<Report, Error> {
    let started = std::time::Instant::now();
    let options = waking.options();
    let Evaluated {
        wanted,
        pipeline,
        kept,
        sandbox_paths,
    } = evaluated;
    let data = pipeline.map(|run| &run.pipeline);
    let (graph, remains) = read_graph(options, wanted, data, |_| ())?;
    remains.clear();
    let effects = connect(&graph, data)?;
    effects::admit(options, &effects)?;
    let planned = Planned {
        plan: Plan::nothing(),
        graph,
        effects,
    };
    let course = Course::new(options, planned, pipeline, &mut *sink);
    let Ran {
        graph,
        tally,
        session,
    } = Rounds::new(waking, course, kept, sandbox_paths).run()?;
    let report = outcome::report(&graph, wanted, tally);
    if let Some(mut session) = session {
        let links = keep(&report);
        session.keep(&links)?;
        session.close();
    }
    outcome::outputs_events(&report, sink);
    sink.event(&Event::RunFinished {
        summary: report.summary.clone(),
        seconds: started.elapsed().as_secs_f64(),
        exit_code: report.exit_code,
    });
    Ok(report)
}

fn read_graph(
    options: &Options,
    wanted: &[Wanted],
    pipeline: Option<&Pipeline>,
    count: impl Fn(usize) + Sync,
) -> Result<(Graph, Remains), Error> {
    let mut all = Cow::Borrowed(wanted);
    if let Some(pipeline) = pipeline {
        // A pipeline's builds are usually what is wanted, too.
        let more = plan::effects::wanted(pipeline);
        let more = more.into_iter().filter(|one| !wanted.contains(one));
        all.to_mut().extend(more);
    }
    let files = material::Counted {
        files: material::Files::open(&options.sources),
        count: AtomicUsize::new(0),
        tell: count,
    };
    let roots = all.iter().map(|wanted| &wanted.drv);
    let threads = std::thread::available_parallelism().unwrap_or(std::num::NonZero::<usize>::MIN);
    let (closure, remains) = closure::load(roots, &files, threads).map_err(Error::Closure)?;
    let graph = Graph::new(closure, &all).map_err(Error::Graph)?;
    Ok((graph, remains))
}

fn connect(graph: &Graph, pipeline: Option<&Pipeline>) -> Result<Effects, Error> {
    match pipeline {
        Some(pipeline) => Effects::new(graph, pipeline).map_err(Error::Effects),
        None => Ok(Effects::default()),
    }
}

/// Protects everything the plan may touch, then asks what of it is valid: in this order, or a
/// collector could take a path between the answer and its use.
fn probe(
    options: &Options,
    session: &mut Session<'_>,
    graph: &Graph,
    effects: &Effects,
) -> Result<BTreeSet<StorePath>, Error> {
    let links = graph
        .roots()
        .iter()
        .map(|root| graph.node(root.node).parsed.path.clone());
    let links: BTreeSet<StorePath> = links.collect();
    if options.cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled);
    }
    session.root(&touched(graph, effects), &links)
}

/// Everything whose validity matters.
fn touched(graph: &Graph, effects: &Effects) -> BTreeSet<StorePath> {
    let mut paths = graph.paths();
    for effect in &effects.effects {
        paths.extend(effect.sources.iter().cloned());
    }
    paths
}

//! The one file between commands and what they set in motion: evaluation, the conductor, the store.
//!
//! Types here are the command line's own; the modules below have theirs, and only this file knows
//! both. Which kind an error of theirs is, and what hint goes with it, is in [`super::failure`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use super::args::{Fact, Shape};
use super::engine::Engine;
use super::error::{Error, Kind};
use super::output::Stream;
use super::request::{Nix, PipelineRequest, PipelineSource, Request, Source};
use super::settings::{How, OnFailure, Store, Where};
use super::signals::Asked;
use super::surroundings::Surroundings;
use super::waking::Waking;
use super::{asking, collector, failure, secrets, systems};
use crate::eval::{self, EvalStore, Evaluator};
use crate::event::{Event, Sink, VERSION};
use crate::nix::{StorePath, Wanted};
use crate::pipeline::{self, Pipeline};
use crate::plan::show;
use crate::store::{GcLock, NixDir};
use crate::{engine, llb, run};

/// What is to be built, and run after it.
#[derive(Debug)]
pub struct Work {
    /// Derivations.
    pub wanted: Vec<Wanted>,
    /// A pipeline, with the values of its secrets; a plan needs none.
    pub pipeline: Option<(Pipeline, secrets::Values)>,
    /// Which pipeline it is, see [`eval::origin`]; empty without one.
    pub origin: String,
    /// Keeps collectors from what was evaluated, until the run's roots do.
    pub kept: Option<GcLock>,
}

/// What came of it.
#[derive(Debug)]
pub struct Finished {
    /// The command's exit code.
    pub exit_code: u8,
    /// The outputs of each of [`Work::wanted`] by name, in order; empty for what is not valid.
    pub outputs: Vec<BTreeMap<String, StorePath>>,
}

/// How a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
    /// A graph for Graphviz
    Dot,
    /// The definitions of the ops, one after the other: `buildctl debug dump-llb` reads them
    Llb,
    /// The same for people
    LlbText,
}

/// A run on a store.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    /// Where.
    pub place: &'a Where,
    /// What runs the ops.
    pub engine: &'a Engine,
    /// How to build.
    pub how: &'a How,
    /// The machine.
    pub around: &'a Surroundings,
    /// Whether a signal has come.
    pub asked: &'a Asked,
}

/// What evaluation gave.
#[derive(Debug)]
pub struct Evaluated {
    /// Derivations and outputs, in the order typed.
    pub wanted: Vec<Wanted>,
    /// The pipeline, if one was asked for.
    pub pipeline: Option<Pipeline>,
    /// Which pipeline it is, see [`eval::origin`]; empty without one.
    pub origin: String,
    /// What `nix` built itself on the way.
    pub built_while_evaluating: Vec<StorePath>,
    /// Keeps collectors from it.
    pub kept: Option<GcLock>,
}

impl Session<'_> {
    /// Says which store and engine, the first event of a run, and waits until no other program holds
    /// the store; gives back the run's id.
    pub fn begin(&self, sink: &mut dyn Sink) -> Result<String, Error> {
        let run = run_id()?;
        sink.event(&Event::RunStarted {
            version: VERSION,
            run: run.clone(),
            store: self.store_name(),
            engine: self.engine.to_string(),
        });
        if self.engine.is_here() {
            let store = &self.place.store;
            collector::wait_for(store, self.how.lock_timeout, self.asked, sink)?;
        }
        Ok(run)
    }

    /// Evaluates installables to derivations and wanted outputs.
    pub fn evaluate(&self, request: &Request, sink: &mut dyn Sink) -> Result<Evaluated, Error> {
        let started = Instant::now();
        let asked = asking::evaluation(request)?;
        for installable in named(request) {
            sink.event(&Event::Evaluating { installable });
        }
        let (evaluated, kept) = if let Some(evaluated) = asked.without_nix() {
            (evaluated, None)
        } else {
            let (evaluator, kept) = self.evaluator(&request.nix, sink)?;
            let answer = self.checked(&evaluator, || evaluator.evaluate(&asked, &mut |_| ()))?;
            (answer, kept)
        };
        warn_of(evaluated.impure, sink);
        let evaluated = Evaluated {
            wanted: evaluated.wanted,
            pipeline: None,
            origin: String::new(),
            built_while_evaluating: evaluated.built_while_evaluating,
            kept,
        };
        told(&evaluated, evaluated.wanted.len(), started, sink);
        Ok(evaluated)
    }

    /// Evaluates a pipeline with facts.
    pub fn pipeline(
        &self,
        request: &PipelineRequest,
        given: &[Fact],
        sink: &mut dyn Sink,
    ) -> Result<Evaluated, Error> {
        let started = Instant::now();
        let (evaluator, kept) = self.evaluator(&request.nix, sink)?;
        let (directory, installable) = match &request.source {
            PipelineSource::Flake(flake) => (
                eval::facts::directory(flake),
                format!("{flake}#{}", request.name),
            ),
            PipelineSource::File(file) => (
                asking::directory_of(file),
                format!("{file} {}", request.name).trim_end().to_owned(),
            ),
            PipelineSource::Expression(_) => (
                Some(PathBuf::from(".")),
                format!("--expr {}", request.name).trim_end().to_owned(),
            ),
        };
        let origin = self.origin(request, directory.as_deref())?;
        let facts = self.facts(directory, given)?;
        sink.event(&Event::Evaluating { installable });
        let asked = eval::PipelineRequest {
            source: asking::pipeline_source(request),
            name: request.name.clone(),
            facts,
            system: asking::system(&request.nix),
        };
        let impure = matches!(request.source, PipelineSource::File(_));
        let answer = self.checked(&evaluator, || evaluator.pipeline(&asked, &mut |_| ()))?;
        let read = pipeline::from_json(&request.name, &answer.json).map_err(failure::pipeline)?;
        let evaluated = Evaluated {
            wanted: read.pipeline.builds.values().cloned().collect(),
            pipeline: Some(read.pipeline),
            origin,
            built_while_evaluating: answer.built_while_evaluating,
            kept,
        };
        warn_of(impure, sink);
        told(&evaluated, evaluated.wanted.len(), started, sink);
        Ok(evaluated)
    }

    /// Builds, then runs effects. `keep` gets the outputs of what was wanted while the run's roots
    /// still hold, and gives back the links it made, which become roots of their own.
    pub fn realise(
        &self,
        waking: Waking<'_>,
        work: Work,
        sink: &mut dyn Sink,
        keep: &mut dyn FnMut(&Finished) -> Vec<PathBuf>,
    ) -> Result<Finished, Error> {
        let pipeline = work.pipeline.map(|(pipeline, values)| run::PipelineRun {
            pipeline,
            origin: work.origin.clone(),
            secrets: values
                .into_iter()
                .map(|(effect, values)| (effect, delivered(values)))
                .collect(),
        });
        let mut links = |report: &run::Report| keep(&finished(report));
        let mut unknown = None;
        let wanted = run::Evaluated {
            wanted: &work.wanted,
            pipeline: pipeline.as_ref(),
            kept: work.kept,
            sandbox_paths: &mut |sink| {
                let paths = self.sandbox_paths(sink);
                paths.map_err(|error| unknown = Some(error)).ok()
            },
        };
        let report = run::realise(waking, wanted, sink, &mut links);
        if let Some(error) = unknown {
            return Err(error);
        }
        report
            .map(|report| finished(&report))
            .map_err(|error| failure::run(error, self.asked))
    }

    /// Writes what [`Session::realise`] would do.
    pub fn plan(
        &self,
        waking: Waking<'_>,
        evaluated: &Evaluated,
        format: Format,
        sink: &mut dyn Sink,
    ) -> Result<Vec<u8>, Error> {
        if format == Format::Llb && Stream::Stdout.is_terminal() {
            let error = Error::usage("definitions are bytes, not for a terminal");
            return Err(error.hint("`--format llb-text` is for reading"));
        }
        let options = waking.options();
        let pipeline = evaluated.pipeline.as_ref();
        let planned = run::plan(waking, &evaluated.wanted, pipeline, sink);
        let (planned, remains) = planned.map_err(|error| failure::run(error, self.asked))?;
        let view = show::View {
            graph: &planned.graph,
            plan: &planned.plan,
            effects: &planned.effects,
            built_while_evaluating: &evaluated.built_while_evaluating,
        };
        let mut ops = || {
            let paths = self.sandbox_paths(sink)?;
            run::ops(options, &planned, evaluated.pipeline.as_ref(), &paths)
                .map_err(|error| failure::run(error, self.asked))
        };
        let shown = match format {
            Format::Text => show::text(&view, show::Detail::Summary).into_bytes(),
            Format::Json => show::json(&view).into_bytes(),
            Format::Dot => show::dot(&view, show::Detail::All).into_bytes(),
            // One after the other, messages are one message: that is protobuf's own rule.
            Format::Llb => ops()?.concat(),
            Format::LlbText => readable(&ops()?).into_bytes(),
        };
        // The process ends now, and to give back a million pieces one by one takes a while.
        std::mem::forget((planned, remains));
        Ok(shown)
    }

    fn evaluator(
        &self,
        typed: &Nix,
        sink: &mut dyn Sink,
    ) -> Result<(Evaluator, Option<GcLock>), Error> {
        let search = self.around.variables.get("PATH").map(OsString::as_os_str);
        let nix = eval::nix::locate(None, search);
        let nix = nix.map_err(|error| failure::nix(error, self.asked))?;
        let into = &self.place.evaluate_into;
        let store = if into.resolves() {
            EvalStore::Default
        } else {
            EvalStore::Root(into.root.clone())
        };
        let kept = collector::keep_out(into, self.how.lock_timeout, self.asked, sink)?;
        let mut options = typed.options.clone();
        if kept.is_some() {
            // A collection that `nix` itself began would wait for us, and we for it.
            options.push(("min-free".to_owned(), "0".to_owned()));
        }
        let evaluator = Evaluator {
            nix,
            environment: environment(),
            store,
            options,
            cancel: self.asked.cancel(),
            leash: std::env::current_exe().ok(),
        };
        Ok((evaluator, kept))
    }

    /// Evaluates while `nix` is asked for its version: one that is not fit ends it, and what it has
    /// answered counts for nothing.
    fn checked<T>(
        &self,
        evaluator: &Evaluator,
        evaluate: impl FnOnce() -> Result<T, eval::Error>,
    ) -> Result<T, Error> {
        let ask = || {
            let Evaluator {
                nix,
                environment,
                cancel,
                ..
            } = evaluator;
            let asked = eval::Nix::ask(nix.clone(), environment, cancel);
            asked.inspect_err(|_| cancel.store(true, Ordering::Relaxed))
        };
        let (answer, asked) = thread::scope(|scope| {
            let asking = scope.spawn(ask);
            (evaluate(), asking.join().expect("it only asks"))
        });
        asked.map_err(|error| failure::nix(error, self.asked))?;
        answer.map_err(|error| failure::evaluation(error, self.asked))
    }

    /// What git says of the pipeline's directory, and what was given on the command line.
    fn facts(
        &self,
        directory: Option<PathBuf>,
        given: &[Fact],
    ) -> Result<BTreeMap<String, serde_json::Value>, Error> {
        let search = self.around.variables.get("PATH").map(OsString::as_os_str);
        let git = eval::nix::on_search_path("git", search);
        let mut facts = match (git, directory) {
            (Some(git), Some(directory)) => {
                let cancel = self.asked.cancel();
                eval::facts::from_git(&git, &directory, &environment(), &cancel)
                    .map_err(|error| failure::git(error, self.asked))?
            }
            _ => BTreeMap::new(),
        };
        for Fact { name, value } in given {
            let (name, value) = eval::facts::parse(&format!("{name}={value}"))
                .map_err(|source| Error::new(Kind::Usage, source))?;
            facts.insert(name, value);
        }
        Ok(facts)
    }

    /// Which pipeline is asked for.
    fn origin(&self, request: &PipelineRequest, directory: Option<&Path>) -> Result<String, Error> {
        let directory = directory.unwrap_or(Path::new("."));
        let source = match &request.source {
            PipelineSource::Flake(flake) => match eval::facts::directory(flake) {
                None => eval::origin::of_flake(flake),
                Some(directory) => {
                    let source = self.origin_here(&eval::origin::flake_of(&directory))?;
                    let folder = eval::origin::folder(flake);
                    folder.map_or_else(|| source.clone(), |folder| format!("{source}/{folder}"))
                }
            },
            PipelineSource::File(file) => {
                format!("{} -f {}", self.origin_here(directory)?, file_name(file))
            }
            PipelineSource::Expression(_) => format!("{} --expr", self.origin_here(directory)?),
        };
        Ok(format!("{source}#{}", request.name))
    }

    /// Where a directory of this machine comes from.
    fn origin_here(&self, directory: &Path) -> Result<String, Error> {
        let search = self.around.variables.get("PATH").map(OsString::as_os_str);
        let (environment, cancel) = (environment(), self.asked.cancel());
        let known = match eval::nix::on_search_path("git", search) {
            Some(git) => eval::origin::of_repository(&git, directory, &environment, &cancel)
                .map_err(|error| failure::git(error, self.asked))?,
            None => None,
        };
        Ok(known.unwrap_or_else(|| eval::origin::of_directory(directory)))
    }

    /// The build store as messages name it.
    fn store_name(&self) -> String {
        match self.engine {
            Engine::Embedded { .. } => self.place.store.root.display().to_string(),
            Engine::BuildKit { address, .. } => match self.engine.shape() {
                Shape::Plain => {
                    format!("cache mount `{}` of {address}", engine::lower::STORE_CACHE)
                }
                Shape::Strong => format!("device `{}` of {address}", engine::lower::STORE_DEVICE),
            },
        }
    }

    pub(super) fn options(&self, run: String) -> Result<run::Options, Error> {
        let program = std::env::current_exe().map_err(|source| Error::new(Kind::Other, source))?;
        let nix_dir = |store: &Store| NixDir::new(store.nix_dir());
        Ok(run::Options {
            run,
            nix_dir: nix_dir(&self.place.store),
            store_name: self.store_name(),
            sources: self.place.evaluation_stores.iter().map(nix_dir).collect(),
            engine: self.engine.choice(),
            shape: match self.engine.shape() {
                Shape::Strong => engine::Shape::Strong,
                Shape::Plain => engine::Shape::Plain,
            },
            jobs: self.how.jobs,
            cores: self.how.cores,
            on_failure: match self.how.on_failure {
                OnFailure::KeepGoing => run::OnFailure::KeepGoing,
                OnFailure::Stop => run::OnFailure::Stop,
            },
            timeout: self.how.timeout,
            silence: self.how.silence,
            lock_timeout: self.how.lock_timeout,
            systems: systems::here(),
            program,
            logins: self.around.docker_config(),
            temporary: std::env::temp_dir(),
            tunnel_proxy: self.around.tunnel_proxy()?,
            cancel: self.asked.cancel(),
            signal: self.asked.number(),
        })
    }
}

/// What is evaluated, one name each; of very many only how many there are.
fn named(request: &Request) -> Vec<String> {
    const SHOWN: usize = 100;
    let count = request.installables.len();
    if count > SHOWN {
        return vec![format!("{count} installables")];
    }
    let name = |typed: &String| match &request.source {
        Source::Flakes => typed.clone(),
        Source::File(file) => format!("{file} {typed}").trim_end().to_owned(),
        Source::Expression(_) => format!("--expr {typed}").trim_end().to_owned(),
    };
    request.installables.iter().map(name).collect()
}

/// The last part of a file's name; another checkout has it elsewhere.
fn file_name(file: &str) -> String {
    let name = Path::new(file).file_name();
    name.map_or_else(|| file.to_owned(), |name| name.display().to_string())
}

fn readable(ops: &[Vec<u8>]) -> String {
    let texts = ops.iter().map(|bytes| {
        let decoded = llb::decode(bytes).expect("what was marshalled here can be decoded");
        llb::text::render(&decoded)
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn warn_of(impure: bool, sink: &mut dyn Sink) {
    if impure {
        let text = "a file is evaluated impure: it may depend on this machine".to_owned();
        sink.event(&Event::Warning { text, hint: None });
    }
}

fn told(evaluated: &Evaluated, targets: usize, started: Instant, sink: &mut dyn Sink) {
    sink.event(&Event::Evaluated {
        targets,
        seconds: started.elapsed().as_secs_f64(),
        built_while_evaluating: evaluated.built_while_evaluating.clone(),
    });
}

fn finished(report: &run::Report) -> Finished {
    let outputs = report
        .results
        .iter()
        .map(|result| result.outputs.clone().unwrap_or_default());
    Finished {
        exit_code: report.exit_code,
        outputs: outputs.collect(),
    }
}

fn delivered(values: BTreeMap<String, secrets::Value>) -> BTreeMap<String, engine::SecretValue> {
    let value = |value: secrets::Value| engine::SecretValue(value.into_bytes());
    values
        .into_iter()
        .map(|(name, secret)| (name, value(secret)))
        .collect()
}

fn environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}

pub(super) fn run_id() -> Result<String, Error> {
    let mut bytes = [0; 8];
    let random = fs_err::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    random.map_err(|source| Error::new(Kind::Other, source))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

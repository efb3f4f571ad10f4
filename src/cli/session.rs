//! The one file between commands and what they set in motion: evaluation, the conductor, the store.
//!
//! Types here are the command line's own; the modules below have theirs, and only this file knows
//! both. It also says which kind an error of theirs is, and what hint goes with it.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::args::Fact;
use super::error::{Error, Kind};
use super::secrets;
use super::settings::{How, SandboxPath, Store, Where};
use super::signals::Asked;
use crate::event::Sink;
use crate::nix::{StorePath, Wanted};
use crate::pipeline::Pipeline;

/// What is to be evaluated, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where attributes are looked for.
    pub source: Source,
    /// Installables of flakes and `.drv` paths, or attributes of a file or expression; in order,
    /// never empty.
    pub installables: Vec<String>,
    /// `--arg` and `--argstr`, in that order.
    pub arguments: Vec<Argument>,
    /// How.
    pub nix: Nix,
}

/// Which pipeline is to be evaluated, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineRequest {
    /// The flake, without the name.
    pub flake: String,
    /// The pipeline's name.
    pub name: String,
    /// How.
    pub nix: Nix,
}

/// How `nix` is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nix {
    /// `--system`.
    pub system: Option<String>,
    /// `--option`.
    pub options: Vec<(String, String)>,
}

/// Where attributes are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Every installable says it itself.
    Flakes,
    /// `-f`.
    File(String),
    /// `--expr`.
    Expression(String),
}

/// An argument of the file or expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A Nix expression.
    Expression {
        /// Its name.
        name: String,
        /// Its text.
        expression: String,
    },
    /// A string.
    Text {
        /// Its name.
        name: String,
        /// Its content.
        text: String,
    },
}

/// What is to be built, and run after it.
#[derive(Debug)]
pub struct Work {
    /// Derivations.
    pub wanted: Vec<Wanted>,
    /// A pipeline, with the values of its secrets; a plan needs none.
    pub pipeline: Option<(Pipeline, secrets::Values)>,
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
    /// Definitions that `buildctl debug dump-llb` reads
    Llb,
}

/// A run on a store.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    /// Where.
    pub place: &'a Where,
    /// How.
    pub how: &'a How,
    /// Whether a signal has come.
    pub asked: &'a Asked,
}

impl Session<'_> {
    /// Says which store and engine, the first event of a run.
    pub fn begin(&self, _sink: &mut dyn Sink) -> Result<(), Error> {
        Err(absent("run"))
    }

    /// Evaluates installables to derivations and wanted outputs, in order.
    pub fn evaluate(&self, _request: &Request, _sink: &mut dyn Sink) -> Result<Vec<Wanted>, Error> {
        Err(absent("eval"))
    }

    /// Evaluates a pipeline with facts.
    pub fn pipeline(
        &self,
        _request: &Request,
        _facts: &[Fact],
        _sink: &mut dyn Sink,
    ) -> Result<Pipeline, Error> {
        Err(absent("eval"))
    }

    /// Builds, then runs effects.
    pub fn realise(&self, _work: Work, _sink: &mut dyn Sink) -> Result<Finished, Error> {
        Err(absent("run"))
    }

    /// Writes what [`Session::realise`] would do.
    pub fn plan(&self, _work: Work, _format: Format) -> Result<String, Error> {
        Err(absent("run"))
    }
}

/// Opens the log of a derivation, or of the one that made a path.
pub fn log(_stores: &[Store], _path: &StorePath) -> Result<Box<dyn BufRead>, Error> {
    Err(absent("store"))
}

/// Makes a store's nix directory this process's `/nix`, in namespaces of its own.
pub fn enter(_store: &Store) -> Result<(), Error> {
    Err(absent("sandbox"))
}

/// Runs the agent.
pub fn agent(_arguments: &[String]) -> Result<u8, Error> {
    Err(absent("agent"))
}

/// Runs the embedded engine's helper.
pub fn helper(_arguments: &[String]) -> Result<u8, Error> {
    Err(absent("engine"))
}

/// The installed nix's setting of `sandbox-paths`; none where no nix is installed.
pub fn nix_sandbox_paths(_options: &[(String, String)]) -> Result<Vec<SandboxPath>, Error> {
    Ok(vec![])
}

fn absent(module: &'static str) -> Error {
    Error::new(Kind::Other, format!("`{module}` is not connected yet"))
}

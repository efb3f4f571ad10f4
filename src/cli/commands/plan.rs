//! `pontoon plan`: what a build would do, and why.

use super::target;
use crate::cli::error::Error;
use crate::cli::request::{PipelineRequest, Request};
use crate::cli::session::{Format, Session};
use crate::cli::surroundings::Surroundings;
use crate::cli::waking::Beforehand;
use crate::cli::{args, engine, output, settings, signals};
use crate::event::Sink;
use crate::report::{Advice, Logs};

/// Show what would be built, and why
///
/// Nothing is built but what evaluation itself needs. `--pipeline` shows what `pontoon run` would
/// do, as `pontoon run --dry-run` does.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pontoon plan .#hello
  pontoon plan -f ci.nix --json
  pontoon plan .#hello --format dot | dot -Tsvg > plan.svg
  pontoon plan --pipeline .#release --fact tag=v1.2
  pontoon plan .#hello --format llb | buildctl debug dump-llb")]
pub struct Args {
    /// What to plan, as for `pontoon build`
    #[arg(value_name = "INSTALLABLE")]
    pub installables: Vec<String>,

    /// Plan a pipeline with its effects, named as for `pontoon run`
    #[arg(long)]
    pub pipeline: bool,

    /// Give the pipeline a fact besides those of git; more than once for several
    #[arg(long = "fact", value_name = "NAME=VALUE", value_parser = args::fact, requires = "pipeline")]
    pub facts: Vec<args::Fact>,

    /// How to write the plan
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Do not show how evaluation goes
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub evaluation: args::Evaluation,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub nix: args::NixOptions,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub stores: args::Stores,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub engine: args::Engine,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub building: args::Building,
}

impl Args {
    /// Plans.
    pub fn run(self, around: &Surroundings) -> Result<u8, Error> {
        super::run::distinct(&self.facts)?;
        let asked_for = self.asked_for()?;
        let place = settings::stores(&self.stores, around)?;
        let engine = engine::decide(&self.engine, around)?;
        let how = settings::how(&self.building, &self.nix, around);
        settings::prepare(&place.store)?;
        let asked = signals::watch()?;
        let engine = engine.settle(&asked)?;
        let session = Session {
            place: &place,
            engine: &engine,
            how: &how,
            around,
            asked: &asked,
        };
        let mut sink = evaluation_report(self.quiet, around);
        let run = session.begin(&mut *sink)?;
        let format = if self.json { Format::Json } else { self.format };
        let plan = session.wake(run, Beforehand::Store, |waking| {
            let evaluated = match &asked_for {
                AskedFor::Builds(request) => session.evaluate(request, &mut *sink)?,
                AskedFor::Pipeline(request) => {
                    session.pipeline(request, &self.facts, &mut *sink)?
                }
            };
            asked.check()?;
            session.plan(waking, &evaluated, format, &mut *sink)
        })?;
        drop(sink);
        output::data(&plan)?;
        Ok(0)
    }

    fn asked_for(&self) -> Result<AskedFor, Error> {
        let Self {
            evaluation,
            nix,
            installables,
            ..
        } = self;
        if self.pipeline {
            target::pipeline(evaluation, nix, installables).map(AskedFor::Pipeline)
        } else {
            target::builds(evaluation, nix, installables).map(AskedFor::Builds)
        }
    }
}

enum AskedFor {
    Builds(Request),
    Pipeline(PipelineRequest),
}

/// How evaluation goes, on stderr, whatever is written to stdout later.
pub fn evaluation_report(quiet: bool, around: &Surroundings) -> Box<dyn Sink> {
    let options = args::Report {
        quiet,
        ..args::Report::default()
    };
    output::report(
        &options,
        Advice {
            store: None,
            pipeline: vec![],
            logs: Logs::Here,
        },
        around,
    )
}

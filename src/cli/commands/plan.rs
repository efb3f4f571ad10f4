//! `pontoon plan`: what a build would do, and why.

use super::target;
use crate::cli::error::Error;
use crate::cli::session::{Format, Session};
use crate::cli::surroundings::Surroundings;
use crate::cli::{args, engine, output, settings, signals};
use crate::event::Sink;
use crate::report::Advice;

/// Show what would be built, and why
///
/// Nothing is built but what evaluation itself needs. The plan of a pipeline is shown by
/// `pontoon run --dry-run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pontoon plan .#hello
  pontoon plan -f ci.nix --json
  pontoon plan .#hello --format dot | dot -Tsvg > plan.svg
  pontoon plan .#hello --format llb | buildctl debug dump-llb")]
pub struct Args {
    /// What to plan, as for `pontoon build`
    #[arg(value_name = "INSTALLABLE")]
    pub installables: Vec<String>,

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
        let request = target::builds(&self.evaluation, &self.nix, &self.installables)?;
        let place = settings::stores(&self.stores, around)?;
        let engine = engine::decide(&self.engine, around)?;
        let how = settings::how(&self.building, &self.nix, around);
        settings::prepare(&place.store)?;
        let asked = signals::watch()?;
        let session = Session {
            place: &place,
            engine: &engine,
            how: &how,
            around,
            asked: &asked,
        };
        let mut sink = evaluation_report(self.quiet, around);
        let run = session.begin(&mut *sink)?;
        let evaluated = session.evaluate(&request, &mut *sink)?;
        asked.check()?;
        let format = if self.json { Format::Json } else { self.format };
        let plan = session.plan(run, &evaluated, format, &mut *sink)?;
        drop(sink);
        output::data(plan.as_bytes())?;
        Ok(0)
    }
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
            pipeline: None,
        },
        around,
    )
}

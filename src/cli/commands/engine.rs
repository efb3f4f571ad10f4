//! `pontoon engine`: the engine itself, not what it builds.

use clap::Subcommand;

use crate::cli::engine::{self, Engine};
use crate::cli::error::Error;
use crate::cli::session::{self, Session};
use crate::cli::surroundings::Surroundings;
use crate::cli::{args, output, settings, signals};
use crate::engine::trim::{Mode, Tally};
use crate::report::style;

/// Look after an engine
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with an engine.
#[derive(Debug, Subcommand)]
#[expect(
    missing_docs,
    reason = "a variant's doc would replace the command's help"
)]
pub enum Command {
    Prune(PruneArgs),
}

/// Remove what ops have left in a daemon's cache
///
/// Each op leaves a record and an empty layer, and the delivery of the agent a copy of it. None is
/// ever used again. The store, which is a cache mount, and other people's records stay. Runs remove
/// old records of ops by themselves, when a daemon has time for it; this removes all that nobody uses.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  BUILDKIT_HOST=unix:///run/buildkit/buildkitd.sock pontoon engine prune
  pontoon engine prune --engine buildkit --dry-run")]
pub struct PruneArgs {
    /// Say what would be removed
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub engine: args::Engine,
}

impl Args {
    /// Does it.
    pub fn run(self, around: &Surroundings) -> Result<u8, Error> {
        match self.command {
            Command::Prune(args) => args.run(around),
        }
    }
}

impl PruneArgs {
    fn run(self, around: &Surroundings) -> Result<u8, Error> {
        let engine = engine::decide(&self.engine, around)?;
        let Engine::BuildKit { address, .. } = &engine else {
            output::say(&["the embedded engine leaves nothing: there is no daemon".to_owned()]);
            return Ok(0);
        };
        let asked = signals::watch()?;
        let place = settings::stores(&args::Stores::default(), around)?;
        let how = settings::how(
            &args::Building::default(),
            &args::NixOptions::default(),
            around,
        );
        let session = Session {
            place: &place,
            engine: &engine,
            how: &how,
            around,
            asked: &asked,
        };
        let mode = if self.dry_run {
            Mode::Count
        } else {
            Mode::Remove
        };
        let tally = session.prune(session::run_id()?, address, mode)?;
        output::data(format!("{}\n", said(mode, tally)).as_bytes())?;
        asked.check()?;
        Ok(0)
    }
}

fn said(mode: Mode, tally: Tally) -> String {
    let verb = match mode {
        Mode::Count => "would remove",
        Mode::Remove => "removed",
    };
    let records = style::count(tally.records, "record", "records");
    format!("{verb} {records}, {}", style::bytes(tally.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_gone() {
        let tally = Tally {
            records: 312,
            bytes: 7_700_000,
        };
        insta::assert_snapshot!(said(Mode::Remove, tally), @"removed 312 records, 7.3 MiB");
        let one = Tally {
            records: 1,
            bytes: 0,
        };
        insta::assert_snapshot!(said(Mode::Count, one), @"would remove 1 record, 0 B");
    }
}

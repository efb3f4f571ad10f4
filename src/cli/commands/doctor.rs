//! `pontoon doctor`: what the engines allow, and what would change it.

use crate::cli::error::{Error, Kind};
use crate::cli::surroundings::Surroundings;
use crate::cli::{args, examination, output, settings, signals};
use crate::doctor::{Ability, json, show};

/// Find out what the engines here allow, and how to allow more
///
/// Looks at this machine, at the buildkitd of `BUILDKIT_HOST` or its usual sockets, at the dockerd
/// of `DOCKER_HOST` or its usual socket, and at the installed nix. Small ops are run to find out;
/// no configuration is changed. Ends with exit code 7 if no engine can run builds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pontoon doctor
  BUILDKIT_HOST=tcp://builder:1234 pontoon doctor --fix
  pontoon doctor --json")]
pub struct Args {
    /// Write the files that would allow more, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub fix: bool,

    /// Write the report as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub stores: args::Stores,
}

impl Args {
    /// Examines and tells.
    pub fn run(self, around: &Surroundings) -> Result<u8, Error> {
        let asked = signals::watch()?;
        let place = settings::stores(&self.stores, around)?;
        let named = self.stores.store.as_ref().map(|_| place.store.nix_dir());
        let report = examination::report(&place.store, named.as_deref(), around, &asked)?;
        let text = if self.fix {
            show::files(&report)
        } else if self.json {
            json::report(&report)
        } else {
            show::report(&report)
        };
        output::data(text.as_bytes())?;
        Ok(match report.ability() {
            Ability::Builds => 0,
            Ability::None => Kind::Engine.code(),
        })
    }
}

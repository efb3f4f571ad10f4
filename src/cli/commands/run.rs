//! `pontoon run`: a pipeline's builds, then its effects.

use std::collections::BTreeSet;

use super::target;
use crate::cli::error::Error;
use crate::cli::session::{Evaluated, Format, Session, Work};
use crate::cli::surroundings::Surroundings;
use crate::cli::waking::Beforehand;
use crate::cli::{args, engine, output, secrets, settings, signals};
use crate::report::Advice;

/// Run a pipeline: its builds, then its effects
///
/// A pipeline is the flake's output `pipelines.SYSTEM.NAME`, or an attribute with `-f` or `--expr`.
/// Effects run on every call; builds only if something changed. If a build fails, every effect that
/// waits for it is held.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pontoon run
  pontoon run .#release --fact tag=v1.2
  pontoon run .#release --dry-run
  pontoon run -f ci.nix -A pipelines.release
  TOKEN=… pontoon run github:owner/repository#deploy -L")]
pub struct Args {
    /// Which pipeline [default: .#default]
    #[arg(value_name = "FLAKE#NAME")]
    pub pipeline: Option<String>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub evaluation: args::Evaluation,

    /// Give the pipeline a fact besides those of git; more than once for several
    #[arg(long = "fact", value_name = "NAME=VALUE", value_parser = args::fact)]
    pub facts: Vec<args::Fact>,

    /// Show the plan and run nothing
    #[arg(long)]
    pub dry_run: bool,

    /// How to write the plan
    #[arg(long, value_enum, default_value = "text", requires = "dry_run")]
    pub format: Format,

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

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub report: args::Report,
}

impl Args {
    /// Builds and runs.
    pub fn run(self, around: &Surroundings) -> Result<u8, Error> {
        let names = self.pipeline.as_slice();
        let request = target::pipeline(&self.evaluation, &self.nix, names)?;
        distinct(&self.facts)?;
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

        let advice = Advice {
            store: place.store.flag(),
            pipeline: self.words(),
            logs: engine.logs(),
        };
        let mut sink = if self.dry_run {
            super::plan::evaluation_report(self.report.quiet, around)
        } else {
            output::report(&self.report, advice, around)
        };
        let run = session.begin(&mut *sink)?;
        if self.dry_run {
            let plan = session.wake(run, Beforehand::Store, |waking| {
                let evaluated = session.pipeline(&request, &self.facts, &mut *sink)?;
                asked.check()?;
                session.plan(waking, &evaluated, self.format(), &mut *sink)
            })?;
            drop(sink);
            output::data(&plan)?;
            return Ok(0);
        }
        session.wake(run, Beforehand::Build, |waking| {
            let evaluated = session.pipeline(&request, &self.facts, &mut *sink)?;
            asked.check()?;
            let work = work(evaluated)?;
            let finished = session.realise(waking, work, &mut *sink, &mut |_| vec![])?;
            Ok(finished.exit_code)
        })
    }

    fn format(&self) -> Format {
        if self.report.json {
            Format::Json
        } else {
            self.format
        }
    }
}

/// What is to be done; a missing secret is known before anything is built.
fn work(evaluated: Evaluated) -> Result<Work, Error> {
    let Evaluated {
        wanted,
        pipeline,
        origin,
        kept,
        ..
    } = evaluated;
    let pipeline = match pipeline {
        Some(pipeline) => {
            let values = secrets::read(&pipeline, &secrets::Machine)?;
            Some((pipeline, values))
        }
        None => None,
    };
    Ok(Work {
        wanted,
        pipeline,
        origin,
        kept,
    })
}

impl Args {
    /// What names the pipeline and its facts, to be typed again.
    fn words(&self) -> Vec<String> {
        let typed = &self.evaluation;
        let mut words: Vec<String> = self.pipeline.iter().cloned().collect();
        let mut add = |flag: &str, values: &[String]| {
            words.push(flag.to_owned());
            words.extend(values.iter().cloned());
        };
        for (flag, value) in [("-f", &typed.file), ("--expr", &typed.expr)] {
            if let Some(value) = value {
                add(flag, std::slice::from_ref(value));
            }
        }
        for attribute in &typed.attributes {
            add("-A", std::slice::from_ref(attribute));
        }
        for (flag, values) in [("--arg", &typed.arg), ("--argstr", &typed.argstr)] {
            values.chunks(2).for_each(|pair| add(flag, pair));
        }
        for fact in &self.facts {
            add("--fact", &[format!("{}={}", fact.name, fact.value)]);
        }
        if words.is_empty() {
            words.push(".#default".to_owned());
        }
        words
    }
}

/// Refuses a fact with two values.
pub fn distinct(facts: &[args::Fact]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match facts.iter().find(|fact| !seen.insert(&fact.name)) {
        Some(twice) => Err(Error::usage(format!(
            "the fact `{}` is given twice",
            twice.name
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_has_one_value() {
        let fact = |text: &str| args::fact(text).unwrap();
        assert!(distinct(&[fact("a=1"), fact("b=1")]).is_ok());
        assert!(distinct(&[fact("a=1"), fact("a=1")]).is_err());
    }
}

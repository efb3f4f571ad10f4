//! `pontoon build`: evaluates, builds what is missing, links the outputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{exec, target};
use crate::cli::error::Error;
use crate::cli::request::Request;
use crate::cli::session::{Evaluated, Finished, Format, Session, Work};
use crate::cli::surroundings::Surroundings;
use crate::cli::waking::Beforehand;
use crate::cli::{args, engine, out_link, output, settings, signals};
use crate::event::Sink;
use crate::nix::{StorePath, Wanted};
use crate::report::{Advice, style, text};

/// Build derivations
///
/// An INSTALLABLE is a flake reference with an attribute (`.#hello`), an attribute with `-f` or
/// `--expr`, or the path of a .drv; `^out,dev` or `^*` behind it chooses outputs. None means the
/// flake here, or all of the file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pontoon build .#hello
  pontoon build -f ci.nix -A server -A docs --print-out-paths
  pontoon build --store /srv/store '.#openssl^out,dev' -o openssl
  pontoon build '/nix/store/…-hello.drv^*' --no-link -L")]
pub struct Args {
    /// What to build
    #[arg(value_name = "INSTALLABLE")]
    pub installables: Vec<String>,

    /// Show the plan and build nothing
    #[arg(long)]
    pub dry_run: bool,

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

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub links: args::Links,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub report: args::Report,
}

impl Args {
    /// Builds.
    pub fn run(self, around: &Surroundings) -> Result<u8, Error> {
        let request = target::builds(&self.evaluation, &self.nix, &self.installables)?;
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
            pipeline: vec![],
            logs: engine.logs(),
        };
        let mut sink = if self.dry_run {
            super::plan::evaluation_report(self.report.quiet, around)
        } else {
            output::report(&self.report, advice, around)
        };
        let run = session.begin(&mut *sink)?;
        if self.dry_run {
            let plan = self.plan(session, run, &request, &mut *sink)?;
            drop(sink);
            return self.show(&plan);
        }
        let resolves = engine.is_here() && place.store.resolves();
        let mut linked = Ok(());
        let mut keep = |finished: &Finished| {
            if !resolves {
                return vec![];
            }
            let (made, outcome) = self.link(around, finished);
            linked = outcome;
            made
        };
        let (wanted, finished) = session.wake(run, Beforehand::of(&request), |waking| {
            let evaluated = session.evaluate(&request, &mut *sink)?;
            asked.check()?;
            let wanted = evaluated.wanted.clone();
            let finished = session.realise(waking, work(evaluated), &mut *sink, &mut keep)?;
            Ok((wanted, finished))
        })?;
        // A live block must be gone before anything else is written.
        drop(sink);
        linked?;
        if finished.exit_code == 0 {
            let store = engine.is_here().then_some(&place.store);
            self.deliver(resolves, store, &wanted, &finished)?;
        }
        Ok(finished.exit_code)
    }

    fn plan(
        &self,
        session: Session<'_>,
        run: String,
        request: &Request,
        sink: &mut dyn Sink,
    ) -> Result<Vec<u8>, Error> {
        let format = if self.report.json {
            Format::Json
        } else {
            Format::Text
        };
        session.wake(run, Beforehand::Store, |waking| {
            let evaluated = session.evaluate(request, sink)?;
            session.asked.check()?;
            session.plan(waking, &evaluated, format, sink)
        })
    }

    /// As `nix build` has it, a dry run's text goes to stderr and its JSON to stdout.
    fn show(&self, plan: &[u8]) -> Result<u8, Error> {
        if self.report.json {
            output::data(plan)?;
        } else {
            let plan = String::from_utf8_lossy(plan);
            output::say(&plan.lines().map(str::to_owned).collect::<Vec<_>>());
        }
        Ok(0)
    }

    /// Links the outputs if all of them are there; gives back what was linked, also if one failed.
    fn link(
        &self,
        around: &Surroundings,
        finished: &Finished,
    ) -> (Vec<PathBuf>, Result<(), Error>) {
        let mut made = vec![];
        if finished.exit_code != 0 || self.links.no_link {
            return (made, Ok(()));
        }
        let here = around.working_directory.clone().unwrap_or_default();
        for link in out_link::name(&self.links.out_link, &finished.outputs) {
            match out_link::make(&link, &here) {
                Ok(path) => made.push(path),
                Err(error) => return (made, Err(error)),
            }
        }
        (made, Ok(()))
    }

    fn deliver(
        &self,
        resolves: bool,
        store: Option<&settings::Store>,
        wanted: &[Wanted],
        finished: &Finished,
    ) -> Result<(), Error> {
        if self.links.print_out_paths {
            return output::data(paths(&finished.outputs).as_bytes());
        }
        let silent = self.links.no_link || self.report.quiet || self.report.json;
        if !resolves && !silent {
            let mut lines = named(wanted, &finished.outputs);
            if let Some(store) = store {
                lines.extend(hints(&store.root, &finished.outputs));
            }
            output::say(&lines);
        }
        Ok(())
    }
}

fn work(evaluated: Evaluated) -> Work {
    Work {
        origin: String::new(),
        wanted: evaluated.wanted,
        pipeline: None,
        kept: evaluated.kept,
    }
}

fn paths(results: &[BTreeMap<String, StorePath>]) -> String {
    let paths = results.iter().flat_map(BTreeMap::values);
    paths.map(|path| path.to_string() + "\n").collect()
}

/// Names the outputs where a link to them would lead nowhere.
fn named(wanted: &[Wanted], results: &[BTreeMap<String, StorePath>]) -> Vec<String> {
    let mut lines = vec![];
    for (wanted, outputs) in wanted.iter().zip(results) {
        for (output, path) in outputs {
            let output = if output == "out" {
                String::new()
            } else {
                format!("^{output}")
            };
            // Which outputs were typed is said by the lines.
            let name = wanted.name.split('^').next().unwrap_or_default();
            lines.push(format!("{}{output}: {path}", text::label(name)));
        }
    }
    lines
}

/// Says how to get at outputs of a store that is not mounted at its place: at one with programs, or
/// else at the first.
fn hints(root: &Path, results: &[BTreeMap<String, StorePath>]) -> Vec<String> {
    let place = |path: &StorePath| root.join(path.to_absolute_path().trim_start_matches('/'));
    let programs = results
        .iter()
        .filter_map(|outputs| outputs.get("bin").or(outputs.get("out")));
    let program = programs.clone().find(|path| exec::runs(&place(path)));
    let first = programs
        .chain(results.iter().flat_map(BTreeMap::values))
        .next();
    let shown = style::quote(&root.display().to_string()).into_owned();
    let how = match (program, first) {
        (Some(program), _) => format!("hint: pontoon exec --store {shown} {program}"),
        (None, Some(path)) => format!("hint: it is `{}`", place(path).display()),
        (None, None) => return vec![],
    };
    let why = format!("hint: no link is made, for it would not resolve outside of {shown}");
    vec![why, how]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::Outputs;

    fn path(name: &str) -> StorePath {
        let text = format!("/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-{name}");
        text.parse().unwrap()
    }

    fn outputs() -> [BTreeMap<String, StorePath>; 1] {
        let outputs = [("out", "hello"), ("dev", "hello-dev")];
        [outputs
            .map(|(output, name)| (output.to_owned(), path(name)))
            .into()]
    }

    #[test]
    fn names_what_cannot_be_linked() {
        let wanted = [Wanted {
            name: ".#hello^*".into(),
            drv: path("hello.drv"),
            outputs: Outputs::All,
        }];
        insta::assert_snapshot!(named(&wanted, &outputs()).join("\n"), @"
        .#hello^dev: /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello-dev
        .#hello: /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello
        ");
        insta::assert_snapshot!(paths(&outputs()), @"
        /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello-dev
        /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello
        ");
    }

    #[test]
    fn says_how_to_run_what_runs_and_where_anything_else_is() {
        let root = tempfile::tempdir().unwrap();
        let hints = || {
            let lines = hints(root.path(), &outputs()).join("\n");
            lines.replace(root.path().to_str().unwrap(), "/srv/s")
        };
        let output = root
            .path()
            .join("nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello");
        fs_err::create_dir_all(&output).unwrap();
        insta::assert_snapshot!(hints(), @"
        hint: no link is made, for it would not resolve outside of /srv/s
        hint: it is `/srv/s/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello`
        ");
        fs_err::create_dir(output.join("bin")).unwrap();
        insta::assert_snapshot!(hints(), @"
        hint: no link is made, for it would not resolve outside of /srv/s
        hint: pontoon exec --store /srv/s /nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello
        ");
    }
}

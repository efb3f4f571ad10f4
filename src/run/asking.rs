//! What the agent that keeps house in the build store is asked and given.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::engine::lower::SandboxPaths;
use crate::nix::StorePath;
use crate::run::Error;
use crate::run::material::Found;
use crate::run::positions::those;
use crate::run::sending::{Sending, Unsent};
use crate::run::session::Session;
use crate::store::Held;
use crate::tunnel::{AttemptFacts, FromAgent, PathFacts, QueryScope, ToAgent};

impl Session<'_> {
    /// Returns the paths of the store that `sandbox-paths` mount into every room.
    pub(super) fn tools(&self) -> impl Iterator<Item = &StorePath> {
        let sources = match &self.lowering.sandbox_paths {
            SandboxPaths::Store(sources) => sources.as_slice(),
            SandboxPaths::Absent | SandboxPaths::Device => &[],
        };
        sources.iter().map(|source| &source.place.path)
    }

    /// Protects these paths for as long as the run lasts, and returns those that are valid.
    pub(super) fn root_tools(&mut self) -> Result<BTreeSet<StorePath>, Error> {
        let tools: BTreeSet<StorePath> = self.tools().cloned().collect();
        if tools.is_empty() {
            return Ok(tools);
        }
        self.root(&tools, &BTreeSet::new())
    }

    /// Protects paths for as long as the run lasts, and returns those that are valid then.
    pub(super) fn root(
        &mut self,
        temporary: &BTreeSet<StorePath>,
        links: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, Error> {
        let job = ToAgent::Root {
            run: self.name.clone(),
            temporary: temporary.iter().cloned().collect(),
            links: links.iter().cloned().collect(),
        };
        let answer = self.ask(&job)?;
        let ToAgent::Root { temporary, .. } = job else {
            unreachable!("it was made so")
        };
        self.those(temporary, answer)
    }

    /// Registers links made by the caller as roots.
    pub(super) fn keep(&mut self, links: &[PathBuf]) -> Result<(), Error> {
        if links.is_empty() {
            return Ok(());
        }
        let links = links
            .iter()
            .map(|link| link.display().to_string())
            .collect();
        match self.ask(&ToAgent::Keep { links })? {
            FromAgent::Rooted => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Returns those of the paths that are valid.
    pub(super) fn valid(
        &mut self,
        paths: BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, Error> {
        let job = ToAgent::Query {
            paths: paths.into_iter().collect(),
            scope: QueryScope::Paths,
        };
        let answer = self.ask(&job)?;
        let ToAgent::Query { paths, .. } = job else {
            unreachable!("it was made so")
        };
        self.those(paths, answer)
    }

    /// Returns all paths that are valid, if these are no more than so many.
    pub(super) fn all_valid(&mut self, at_most: usize) -> Result<Option<Vec<StorePath>>, Error> {
        match self.ask(&ToAgent::QueryAll { at_most })? {
            FromAgent::AllValid { paths } => Ok(Some(paths)),
            FromAgent::MoreValid => Ok(None),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Those of the paths, which are in order, that the answer names.
    fn those(
        &self,
        asked: Vec<StorePath>,
        answer: FromAgent,
    ) -> Result<BTreeSet<StorePath>, Error> {
        let FromAgent::Valid { which } = answer else {
            return Err(self.unexpected(&answer));
        };
        those(asked, &which).map_err(|reason| self.store_error(&reason))
    }

    /// Returns the facts of a closure.
    pub(super) fn closure(&mut self, roots: Vec<StorePath>) -> Result<Vec<PathFacts>, Error> {
        let job = ToAgent::Query {
            paths: roots,
            scope: QueryScope::Closure,
        };
        match self.ask(&job)? {
            FromAgent::Paths { paths } => Ok(paths),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Leases slots for the run.
    pub(super) fn lease(&mut self, count: u32) -> Result<Vec<u32>, Error> {
        match self.ask(&ToAgent::Lease { count })? {
            FromAgent::Leased { slots } => Ok(slots),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Brings paths into the build store; returns how many were new and the bytes sent. Tells of a
    /// lock that has to be waited for.
    pub(super) fn import(
        &mut self,
        paths: &[Found<'_>],
        tell: &mut dyn FnMut(Held),
    ) -> Result<(usize, u64), Error> {
        let mut sending = Sending::to(&mut self.store);
        match sending.paths(paths, &self.options.cancel) {
            Ok(()) => {}
            Err(Unsent::Error(error)) => return Err(*error),
            Err(Unsent::Broken(reason)) => return Err(self.lost(&reason.to_string())),
        }
        match self.ask_patiently(&ToAgent::ImportEnd, tell)? {
            FromAgent::Imported { paths, bytes } => Ok((paths, bytes)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Returns what is on record of attempts of this run.
    pub(super) fn attempts(&mut self, ids: &[String]) -> Result<Vec<AttemptFacts>, Error> {
        let (run, ids) = (self.options.run.clone(), ids.to_vec());
        match self.ask(&ToAgent::Attempts { run, ids })? {
            FromAgent::Attempts { attempts } => Ok(attempts),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Returns what earlier runs left of a pipeline's effects that nobody knows the outcome of, and
    /// that nobody was told of.
    pub(super) fn unsettled(
        &mut self,
        pipeline: &str,
        effects: &[String],
    ) -> Result<Vec<AttemptFacts>, Error> {
        let question = ToAgent::Unsettled {
            run: self.options.run.clone(),
            pipeline: pipeline.to_owned(),
            effects: effects.to_vec(),
        };
        match self.ask(&question)? {
            FromAgent::Attempts { attempts } => Ok(attempts),
            other => Err(self.unexpected(&other)),
        }
    }
}

//! What the agent of a whole run does: roots, queries, slots, imports.

use crate::agent::link::{Data, Lost};
use crate::agent::{Agent, facts};
use crate::nix::StorePath;
use crate::store::{self, Importer, Roots, Slot};
use crate::tunnel::{FromAgent, ImportHeader, MachineError, PathFacts, QueryScope, ToAgent};

/// What is held until the run ends.
#[derive(Default)]
pub struct Services {
    roots: Option<Roots>,
    slots: Vec<Slot>,
    importer: Option<Importer>,
    /// Bytes of NAR received since the last `ImportEnd`.
    bytes: u64,
    /// The first error of an import: told at its end, because nobody listens before.
    broken: Option<MachineError>,
}

impl Agent {
    /// Does one job and answers it.
    pub fn housekeep(&mut self, services: &mut Services, job: ToAgent) -> Result<(), Lost> {
        let answer = match job {
            ToAgent::Root {
                run,
                temporary,
                links,
            } => self
                .root(services, &run, &temporary, &links)
                .map(|which| Some(FromAgent::Valid { which })),
            ToAgent::Keep { links } => self.keep(&links).map(|()| Some(FromAgent::Rooted)),
            ToAgent::Query { paths, scope } => self.query(&paths, scope).map(Some),
            ToAgent::QueryAll { at_most } => self.all_valid(at_most).map(Some),
            ToAgent::Lease { count } => self
                .lease(services, count)
                .map(|slots| Some(FromAgent::Leased { slots })),
            ToAgent::Attempts { run, ids } => self
                .attempts(&run, &ids)
                .map(|attempts| Some(FromAgent::Attempts { attempts })),
            ToAgent::Unsettled {
                run,
                pipeline,
                effects,
            } => self
                .unsettled(&run, &pipeline, &effects)
                .map(|attempts| Some(FromAgent::Attempts { attempts })),
            ToAgent::Import { header } => {
                self.import(services, header)?;
                Ok(None)
            }
            ToAgent::ImportEnd => self.import_end(services).map(Some),
            _ => {
                return Err(Lost::OutOfPlace {
                    what: "a job of another task",
                });
            }
        };
        match answer {
            Ok(Some(answer)) => self.link.say(&answer),
            Ok(None) => Ok(()),
            Err(error) => self.link.say(&FromAgent::Failed { error }),
        }
    }

    fn root(
        &mut self,
        services: &mut Services,
        run: &str,
        temporary: &[StorePath],
        links: &[StorePath],
    ) -> Result<Vec<usize>, MachineError> {
        self.store
            .add_temp_roots(temporary)
            .map_err(|error| MachineError::of(&error))?;
        let mut roots = match services.roots.take() {
            Some(roots) => roots,
            None => Roots::open(self.store.dir(), run).map_err(|error| MachineError::of(&error))?,
        };
        roots
            .link(links)
            .map_err(|error| MachineError::of(&error))?;
        services.roots = Some(roots);
        self.which_valid(temporary)
    }

    fn which_valid(&self, paths: &[StorePath]) -> Result<Vec<usize>, MachineError> {
        let valid = self.store.which_valid(paths);
        valid.map_err(|error| MachineError::of(&error))
    }

    fn keep(&mut self, links: &[String]) -> Result<(), MachineError> {
        for link in links {
            store::add_indirect_root(self.store.dir(), std::path::Path::new(link))
                .map_err(|error| MachineError::of(&error))?;
        }
        Ok(())
    }

    fn query(&mut self, paths: &[StorePath], scope: QueryScope) -> Result<FromAgent, MachineError> {
        let which = self.which_valid(paths)?;
        match scope {
            QueryScope::Paths => Ok(FromAgent::Valid { which }),
            QueryScope::Closure => {
                let roots = which.into_iter().map(|at| paths[at].clone()).collect();
                let facts = self.facts(&roots);
                facts
                    .map(|paths| FromAgent::Paths { paths })
                    .map_err(|error| MachineError::of(&error))
            }
        }
    }

    fn all_valid(&self, at_most: usize) -> Result<FromAgent, MachineError> {
        let all = self.store.all_valid(at_most);
        let all = all.map_err(|error| MachineError::of(&error))?;
        Ok(all.map_or(FromAgent::MoreValid, |paths| FromAgent::AllValid { paths }))
    }

    /// Returns the facts of everything in the closure of valid paths.
    pub fn facts(
        &mut self,
        roots: &std::collections::BTreeSet<StorePath>,
    ) -> Result<Vec<PathFacts>, store::Error> {
        let closure = self.store.closure(roots)?;
        Ok(facts::of(self.store.dir(), closure.into_values()))
    }

    fn lease(&mut self, services: &mut Services, count: u32) -> Result<Vec<u32>, MachineError> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            let slot = Slot::lease(self.store.dir()).map_err(|error| MachineError::of(&error))?;
            numbers.push(slot.number());
            services.slots.push(slot);
        }
        Ok(numbers)
    }

    /// Takes one path. What goes wrong is told at the end of the import; the bytes that follow
    /// are read all the same, so that the stream stays in step.
    fn import(&mut self, services: &mut Services, header: ImportHeader) -> Result<(), Lost> {
        let mut data = Data::new(&mut self.link);
        if services.broken.is_none() {
            let importer = services.importer.get_or_insert_with(Importer::default);
            if let Err(error) = importer.add(&self.store, described(header), &mut data) {
                services.broken = Some(MachineError::of(&error));
            }
        }
        data.skip_rest()?;
        services.bytes += data.count;
        Ok(())
    }

    fn import_end(&mut self, services: &mut Services) -> Result<FromAgent, MachineError> {
        let importer = services.importer.take();
        let bytes = std::mem::take(&mut services.bytes);
        if let Some(error) = services.broken.take() {
            return Err(error);
        }
        let paths = match importer {
            Some(importer) => importer
                .finish(&self.store, &mut self.link.waiting())
                .map_err(|error| MachineError::of(&error))?,
            None => 0,
        };
        Ok(FromAgent::Imported { paths, bytes })
    }
}

fn described(header: ImportHeader) -> store::ImportHeader {
    let ImportHeader {
        path,
        references,
        deriver,
        ca,
        nar_hash,
    } = header;
    store::ImportHeader {
        path,
        references,
        deriver,
        ca,
        nar_hash,
    }
}

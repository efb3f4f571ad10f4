//! What the agent of a whole run does: roots, queries, slots, imports.

use crate::agent::Agent;
use crate::agent::link::{Data, Lost};
use crate::nix::StorePath;
use crate::store::{self, Importer, Roots, Slot};
use crate::tunnel::{
    FromAgent, ImportHeader, MachineError, PathFacts, PathKind, QueryScope, ToAgent,
};

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
                .map(|()| Some(FromAgent::Rooted)),
            ToAgent::Keep { links } => self.keep(&links).map(|()| Some(FromAgent::Rooted)),
            ToAgent::Query { paths, scope } => self
                .query(&paths, scope)
                .map(|paths| Some(FromAgent::Paths { paths })),
            ToAgent::Lease { count } => self
                .lease(services, count)
                .map(|slots| Some(FromAgent::Leased { slots })),
            ToAgent::Attempts { run, ids } => self
                .attempts(&run, &ids)
                .map(|attempts| Some(FromAgent::Attempts { attempts })),
            ToAgent::Unsettled { run, effects } => self
                .unsettled(&run, &effects)
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
    ) -> Result<(), MachineError> {
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
        Ok(())
    }

    fn keep(&mut self, links: &[String]) -> Result<(), MachineError> {
        for link in links {
            store::add_indirect_root(self.store.dir(), std::path::Path::new(link))
                .map_err(|error| MachineError::of(&error))?;
        }
        Ok(())
    }

    fn query(
        &mut self,
        paths: &[StorePath],
        scope: QueryScope,
    ) -> Result<Vec<PathFacts>, MachineError> {
        let valid = self
            .store
            .valid(paths)
            .map_err(|error| MachineError::of(&error))?;
        if scope == QueryScope::Closure {
            return self.facts(&valid).map_err(|error| MachineError::of(&error));
        }
        let bare = |path| PathFacts {
            path,
            references: std::collections::BTreeSet::new(),
            kind: PathKind::Unknown,
        };
        Ok(valid.into_iter().map(bare).collect())
    }

    /// Returns the facts of everything in the closure of valid paths.
    pub fn facts(
        &mut self,
        roots: &std::collections::BTreeSet<StorePath>,
    ) -> Result<Vec<PathFacts>, store::Error> {
        let closure = self.store.closure(roots)?;
        Ok(closure.into_values().map(|info| self.fact(info)).collect())
    }

    /// Returns the facts of one path.
    pub(super) fn fact(&self, info: store::PathInfo) -> PathFacts {
        let place = self.store.dir().real(&info.path);
        let kind = match place.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => PathKind::Symlink,
            Ok(_) => PathKind::Mountable,
            Err(_) => PathKind::Unknown,
        };
        PathFacts {
            path: info.path,
            references: info.references,
            kind,
        }
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
        data.skip_rest().map_err(Lost::Broken)?;
        services.bytes += data.count;
        Ok(())
    }

    fn import_end(&self, services: &mut Services) -> Result<FromAgent, MachineError> {
        let importer = services.importer.take();
        let bytes = std::mem::take(&mut services.bytes);
        if let Some(error) = services.broken.take() {
            return Err(error);
        }
        let paths = match importer {
            Some(importer) => importer
                .finish(&self.store)
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

//! What is left to do once the outputs of a build are at their places.
//!
//! They are made durable and registered, the attempt's end goes on record, the locks go, the
//! conductor is told. That takes as long as a small builder runs, and needs nothing of the sandbox. An
//! agent that knows already what to build next, after a build that was [`QUICK`], does it while the
//! sandbox for that comes about. For that build the outputs count as valid: they are complete, and
//! locked. If they do not become valid after all its builder is not started, and nothing is said of it.
//!
//! All of it is done in the order of the builds: no path is registered before what it refers to, and
//! the conductor hears of one build after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::agent::link::{Link, Lost};
use crate::agent::outputs::Placed;
use crate::agent::stop::{self, Stop, answer, failed, machine};
use crate::agent::{end, facts, is_good};
use crate::nix::StorePath;
use crate::store::attempts::Running;
use crate::store::{OutputLocks, PathInfo, Store};
use crate::tunnel::{BuildJob, BuildResult, FromAgent};

/// How long a build may have taken whose outputs may wait: no more is lost where the agent dies, and
/// what it left behind is quickly swept.
pub(super) const QUICK: Duration = Duration::from_secs(1);

/// What came of a build.
pub enum Made {
    /// What is to be said of it.
    Answer(FromAgent),
    /// Outputs that are to be registered, and what is to be built with them meanwhile.
    Ahead(Box<Unregistered>, BuildJob),
    /// Nothing: what it needed did not become valid, and only of that something was said.
    Nothing,
}

/// A build that was begun and is to be ended on record.
pub struct Begun {
    /// Its record.
    pub attempt: Running,
    /// The right to make its outputs valid.
    pub locks: OutputLocks,
}

impl Begun {
    /// Ends it. A build can be repeated: neither its record nor a lock file that stays is worth its
    /// result.
    pub(super) fn end(self, result: Result<&BuildResult, &Stop>) {
        let _ = self.attempt.end(&end(
            stop::verdict(result),
            stop::describe(result),
            stop::exit_code(result),
        ));
        let _ = self.locks.release();
    }
}

/// A build whose outputs are at their places.
pub struct Unregistered {
    /// The build.
    pub begun: Begun,
    /// The outputs.
    pub placed: Placed,
}

impl Unregistered {
    /// Whether others may be built with them, as far as that is up to them.
    pub fn are_good(&self) -> bool {
        self.placed.failure.is_none()
    }

    /// What is to be registered, as it will be.
    pub fn infos(&self) -> BTreeMap<StorePath, PathInfo> {
        let new = self.placed.new.iter().cloned();
        let infos = new.map(|one| {
            let info = PathInfo {
                path: one.path.clone(),
                nar_hash: one.nar_hash,
                nar_size: Some(one.nar_size),
                references: one.references,
                deriver: one.deriver,
                ca: one.ca,
                ultimate: one.ultimate,
                signatures: one.signatures,
                registered: 0,
            };
            (one.path, info)
        });
        infos.collect()
    }

    /// Does all that is left to do but to tell.
    pub(super) fn finish(self, store: &Store, link: &mut Link) -> Result<Made, Lost> {
        let result = self.register(store, link);
        self.begun.end(result.as_ref());
        answer(result)
    }

    /// The same, and tells; whether others may be built with its outputs now.
    pub(super) fn finish_and_tell(self, store: &Store, link: &mut Link) -> Result<bool, Lost> {
        let Made::Answer(answer) = self.finish(store, link)? else {
            return Ok(false);
        };
        link.say_all(&[&answer, &FromAgent::Idle])?;
        Ok(is_good(&answer))
    }

    fn register(&self, store: &Store, link: &mut Link) -> Result<BuildResult, Stop> {
        self.placed.register(store, &mut link.waiting())?;
        if let Some(failure) = &self.placed.failure {
            return Err(failed(failure.clone()));
        }
        let infos = store.infos(&self.placed.paths).map_err(machine)?;
        let outputs = facts::of(store.dir(), infos.into_values());
        Ok(BuildResult::Built { outputs })
    }
}

//! Upkeep of an engine: removing what ops have left in a daemon's cache.

use super::error::{Error, Kind};
use super::failure;
use super::session::Session;
use crate::buildkit::Address;
use crate::engine::trim::{self, Mode, Tally};
use crate::run;

impl Session<'_> {
    /// Counts the records that ops have left with a daemon, or removes them.
    pub fn prune(&self, run: String, address: &Address, mode: Mode) -> Result<Tally, Error> {
        let cancel = self.asked.cancel();
        let refused = |source: trim::Error| Error::new(Kind::Engine, source);
        let found = trim::prune(address, Mode::Count, &cancel).map_err(refused)?;
        if mode == Mode::Count || found.records == 0 || self.asked.signal().is_some() {
            return Ok(found);
        }
        let options = self.options(run)?;
        let removed = run::with_store(&options, || trim::prune(address, mode, &cancel));
        let removed = removed.map_err(|error| failure::run(error, self.asked))?;
        removed.map_err(refused)
    }
}

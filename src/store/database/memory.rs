//! What was read of paths, for as long as nobody else has written.
//!
//! A build's closure is mostly that of the build before. `SQLite` counts what other connections
//! commit (`pragma data_version`): as long as that stands still, what was read is what would be read.
//! The connection's own writes do not count, so it forgets what it changes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::{Database, PathInfo};
use crate::nix::StorePath;
use crate::store::Error;

/// How many paths are remembered: more than a build sees.
const MOST: usize = 4096;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    version: Cell<i64>,
    infos: RefCell<BTreeMap<StorePath, PathInfo>>,
}

impl Memory {
    pub(super) fn forget(&self, path: &StorePath) {
        self.infos.borrow_mut().remove(path);
    }
}

impl Database {
    /// Forgets everything if anybody else has written. To be called in the snapshot that is read.
    pub(super) fn check_memory(&self) -> Result<(), Error> {
        let version = self
            .prepare("pragma data_version")?
            .query_row([], |row| row.get(0))
            .map_err(|error| self.error(error))?;
        if self.memory.version.replace(version) != version {
            self.memory.infos.borrow_mut().clear();
        }
        Ok(())
    }

    /// What is registered about a path, read or remembered; the memory was checked in this snapshot.
    pub(super) fn recall(&self, path: &StorePath) -> Result<Option<PathInfo>, Error> {
        if let Some(info) = self.memory.infos.borrow().get(path) {
            return Ok(Some(info.clone()));
        }
        let info = self.info(path)?;
        let mut infos = self.memory.infos.borrow_mut();
        if let Some(info) = &info
            && infos.len() < MOST
        {
            infos.insert(path.clone(), info.clone());
        }
        Ok(info)
    }
}

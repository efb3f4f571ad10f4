//! Registering: what makes paths valid (Nix spec §6.3).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::params;

use super::Database;
use crate::nix::StorePath;
use crate::store::Error;
use crate::store::identity::hex;

const INSERT_PATH: &str = "insert into ValidPaths (path, hash, registrationTime, deriver, narSize, \
                           ultimate, sigs, ca) values (?, ?, ?, ?, ?, ?, ?, ?)";
const UPDATE_PATH: &str = "update ValidPaths set hash = ?2, narSize = ?3, \
                           ultimate = coalesce(?4, ultimate), sigs = coalesce(?5, sigs), \
                           ca = coalesce(?6, ca) where id = ?1";
const INSERT_REFERENCE: &str = "insert or replace into Refs (referrer, reference) values (?, ?)";
const INSERT_OUTPUT: &str =
    "insert or replace into DerivationOutputs (drv, id, path) values (?, ?, ?)";

/// What makes a path valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The path.
    pub path: StorePath,
    /// SHA-256 of its NAR.
    pub nar_hash: [u8; 32],
    /// Length of its NAR.
    pub nar_size: u64,
    /// What it refers to, perhaps with itself.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it, if known.
    pub deriver: Option<StorePath>,
    /// Its content address, if it has one.
    pub ca: Option<String>,
    /// Whether it was built here.
    pub ultimate: bool,
    /// Signatures, `name:base64`.
    pub signatures: Vec<String>,
    /// Of a derivation: names and paths of the outputs whose paths are known.
    pub derivation_outputs: Vec<(String, StorePath)>,
}

impl Database {
    /// One transaction, begun as a writer: two that began as readers could not both go on.
    ///
    /// `on_wait` learns again and again that another program writes, and may end the wait.
    pub fn register<'a>(
        &self,
        registrations: impl IntoIterator<Item = &'a Registration>,
        on_wait: &mut dyn FnMut(&Path) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let transaction = self.begin_writing(on_wait)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mut ids = BTreeMap::new();
        let mut rows = Vec::new();
        for registration in registrations {
            let id = self.put(registration, now)?;
            ids.insert(&registration.path, id);
            rows.push((id, registration));
        }
        for (id, registration) in rows {
            self.put_references(id, registration, &ids)?;
            self.put_outputs(id, registration)?;
        }
        transaction.commit().map_err(|error| self.error(error))
    }

    /// Inserts a row, or updates what a valid path's row may gain.
    fn put(&self, registration: &Registration, now: u64) -> Result<i64, Error> {
        let hash = format!("sha256:{}", hex(&registration.nar_hash));
        let size = i64::try_from(registration.nar_size).ok();
        let ultimate = registration.ultimate.then_some(1_i64);
        let sigs = Some(registration.signatures.join(" ")).filter(|text| !text.is_empty());
        let ca = &registration.ca;
        if let Some(id) = self.id(&registration.path)? {
            self.memory.forget(&registration.path);
            self.prepare(UPDATE_PATH)?
                .execute(params![id, hash, size, ultimate, sigs, ca])
                .map_err(|error| self.error(error))?;
            return Ok(id);
        }
        let path = registration.path.to_absolute_path();
        let deriver = registration
            .deriver
            .as_ref()
            .map(StorePath::to_absolute_path);
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.prepare(INSERT_PATH)?
            .insert(params![path, hash, now, deriver, size, ultimate, sigs, ca])
            .map_err(|error| self.error(error))
    }

    fn put_references(
        &self,
        id: i64,
        registration: &Registration,
        ids: &BTreeMap<&StorePath, i64>,
    ) -> Result<(), Error> {
        for reference in &registration.references {
            let known = match ids.get(reference) {
                Some(known) => Some(*known),
                None => self.id(reference)?,
            };
            let known = known.ok_or_else(|| Error::Reference {
                path: registration.path.clone(),
                reference: reference.clone(),
            })?;
            self.prepare(INSERT_REFERENCE)?
                .execute([id, known])
                .map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    fn put_outputs(&self, id: i64, registration: &Registration) -> Result<(), Error> {
        for (name, path) in &registration.derivation_outputs {
            self.prepare(INSERT_OUTPUT)?
                .execute(params![id, name, path.to_absolute_path()])
                .map_err(|error| self.error(error))?;
        }
        Ok(())
    }
}

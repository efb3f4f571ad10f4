//! Finds the log of a build in the stores at hand.

use std::io::{BufRead, BufReader};

use super::error::{Error, Kind};
use super::settings::Store;
use crate::nix::StorePath;
use crate::store::NixDir;

/// Opens the log of a derivation, or of the one that made a path, in the first store that has it.
pub fn open(stores: &[Store], path: &StorePath) -> Result<Box<dyn BufRead>, Error> {
    for store in stores {
        let dir = NixDir::new(store.nix_dir());
        if !dir.path().is_dir() {
            continue;
        }
        let drv = if path.is_derivation() {
            Some(path.clone())
        } else {
            deriver(&dir, path).map_err(|source| Error::new(Kind::Store, source))?
        };
        let Some(drv) = drv else { continue };
        let log = crate::store::logs::open(&dir, &drv);
        if let Some(log) = log.map_err(|source| Error::new(Kind::Store, source))? {
            return Ok(Box::new(BufReader::new(log)));
        }
    }
    let roots: Vec<String> = stores
        .iter()
        .map(|store| store.root.display().to_string())
        .collect();
    let text = format!("there is no log of `{path}` in {}", roots.join(", "));
    Err(Error::new(Kind::Other, text).hint("name the store it was built in: `--store DIR`"))
}

fn deriver(dir: &NixDir, path: &StorePath) -> Result<Option<StorePath>, crate::store::Error> {
    if !dir.db().join("db.sqlite").exists() {
        return Ok(None);
    }
    let store = crate::store::Store::open_read_only(dir.clone())?;
    Ok(store.info(path)?.and_then(|info| info.deriver))
}

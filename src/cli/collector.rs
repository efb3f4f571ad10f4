//! Keeps garbage collectors away from what is being evaluated.
//!
//! What `nix` writes while it evaluates is held by that process alone, and it ends before the run
//! has roots. So the evaluation store's `gc.lock` is held shared, from before `nix` starts until
//! then: a collector started in between waits. Where the store is not ours to lock (a daemon's),
//! nothing can be done.

use std::time::Duration;

use super::error::{Error, Kind};
use super::settings::Store;
use super::signals::Asked;
use crate::event::{Event, Sink};
use crate::store::{GcLock, KeptOut, NixDir};

/// How often a collector at work is looked at again.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits for a collector that is at work, then keeps all others out. None where the store is not
/// ours to lock.
///
/// # Errors
///
/// A signal came while waiting, or the store is damaged.
pub fn keep_out(
    store: &Store,
    asked: &Asked,
    sink: &mut dyn Sink,
) -> Result<Option<GcLock>, Error> {
    let dir = NixDir::new(store.nix_dir());
    // A new store has nothing to collect, but will have. The machine's own is never created.
    if !store.resolves() {
        if fs_err::create_dir_all(dir.state()).is_err() {
            return Ok(None);
        }
        // Two `nix` that make one store at the same moment may fail over its links; ours do not.
        if !dir.db().join("schema").exists() {
            crate::store::Store::open(dir.clone())
                .map_err(|source| Error::new(Kind::Store, source))?;
        }
    }
    let mut told = false;
    loop {
        let kept = GcLock::keep_out(&dir).map_err(|source| Error::new(Kind::Store, source))?;
        match kept {
            KeptOut::Yes(lock) => return Ok(Some(lock)),
            KeptOut::NotOurs => return Ok(None),
            KeptOut::NotYet => asked.check()?,
        }
        if !told {
            told = true;
            let text = "waits for the end of a garbage collection".to_owned();
            sink.event(&Event::Warning { text, hint: None });
        }
        std::thread::sleep(PAUSE);
    }
}

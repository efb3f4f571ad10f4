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
use crate::store::{GcLock, KeptOut, NixDir, Notice, Wait};

/// How often a collector at work is looked at again.
const PAUSE: Duration = Duration::from_millis(50);

/// What to do about a lock that somebody else holds.
pub const HINT: &str = "`--lock-timeout SECONDS` says how long it is waited for";

/// Waits for a collector that is at work, then keeps all others out. None where the store is not
/// ours to lock.
///
/// # Errors
///
/// A signal came while waiting, it was too long, or the store is damaged.
pub fn keep_out(
    store: &Store,
    limit: Option<Duration>,
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
    let mut wait = Wait::new(&dir.gc_lock(), limit);
    loop {
        let kept = GcLock::keep_out(&dir).map_err(|source| Error::new(Kind::Store, source))?;
        match kept {
            KeptOut::Yes(lock) => return Ok(Some(lock)),
            KeptOut::NotOurs => return Ok(None),
            KeptOut::NotYet => asked.check()?,
        }
        match wait.look() {
            Notice::Quiet => {}
            Notice::Tell(held) => sink.event(&Event::Warning {
                text: held.to_string(),
                hint: Some(HINT.to_owned()),
            }),
            Notice::GiveUp(held) => return Err(Error::new(Kind::Store, held).hint(HINT)),
        }
        std::thread::sleep(PAUSE);
    }
}

//! Locks that other programs hold on a whole store: they are waited for, and collectors are kept away
//! from what is being evaluated.
//!
//! What `nix` writes while it evaluates is held by that process alone, and it ends before the run
//! has roots. So the evaluation store's `gc.lock` is held shared, from before `nix` starts until
//! then: a collector started in between waits. Where the store is not ours to lock (a daemon's),
//! nothing can be done.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{Error, Kind};
use super::settings::Store;
use super::signals::Asked;
use crate::event::{Event, Sink};
use crate::store::{self, GcLock, KeptOut, NixDir, Notice, Wait};

/// How often a held lock is looked at again.
const PAUSE: Duration = Duration::from_millis(50);

/// What to do about a lock that somebody else holds.
pub const HINT: &str = "`--lock-timeout SECONDS` says how long it is waited for";

/// Waits until no other program holds a store, so that its name is told before something waits for
/// it in silence.
///
/// # Errors
///
/// A signal came while waiting, or it was too long.
pub fn wait_for(
    store: &Store,
    limit: Option<Duration>,
    asked: &Asked,
    sink: &mut dyn Sink,
) -> Result<(), Error> {
    let dir = NixDir::new(store.nix_dir());
    let look = || Ok(store::barred_by(&dir).map_or(Ok(()), Err));
    wait(look, limit, asked, sink)
}

/// Waits for a store, then keeps all collectors out of it. None where the store is not ours to lock.
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
    wait_for(store, limit, asked, sink)?;
    // A new store has nothing to collect, but will have. The machine's own is never created.
    if !store.resolves() {
        if fs_err::create_dir_all(dir.state()).is_err() {
            return Ok(None);
        }
        // Two `nix` that make one store at the same moment may fail over its links; ours do not.
        if !dir.db().join("schema").exists() {
            store::Store::open(dir.clone()).map_err(|source| Error::new(Kind::Store, source))?;
        }
    }
    let attempt = || {
        let kept = GcLock::keep_out(&dir).map_err(|source| Error::new(Kind::Store, source))?;
        Ok(match kept {
            KeptOut::Yes(lock) => Ok(Some(lock)),
            KeptOut::NotOurs => Ok(None),
            KeptOut::NotYet => Err(dir.gc_lock()),
        })
    };
    wait(attempt, limit, asked, sink)
}

/// Attempts something again and again, as long as it is barred by a lock.
fn wait<T>(
    attempt: impl Fn() -> Result<Result<T, PathBuf>, Error>,
    limit: Option<Duration>,
    asked: &Asked,
    sink: &mut dyn Sink,
) -> Result<T, Error> {
    let mut waiting = Wait::new(limit);
    loop {
        let lock = match attempt()? {
            Ok(done) => return Ok(done),
            Err(lock) => lock,
        };
        asked.check()?;
        match waiting.look(&lock) {
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

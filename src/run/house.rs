//! Work on an engine itself, while its store is held as a run holds it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::engine::lower::Lowering;
use crate::nix::StorePath;
use crate::run::session::Session;
use crate::run::{Error, Options};
use crate::tunnel::PathKind;

/// Does something while an op holds the engine's store, and nobody can get another one under its
/// name.
///
/// # Errors
///
/// The store, or the engine, cannot be used.
pub fn with_store<T>(options: &Options, work: impl FnOnce() -> T) -> Result<T, Error> {
    let session = Session::open(options, 0)?;
    let done = work();
    session.close();
    Ok(done)
}

/// Does something with the closure of a path, as much of it as a mount can bring, while an op holds
/// the engine's store and nobody collects it; none if the path is not valid there. It is also told
/// where it may make a socket.
///
/// # Errors
///
/// The store, or the engine, cannot be used.
pub fn with_closure<T>(
    options: &Options,
    path: &StorePath,
    work: impl FnOnce(&Lowering, &[StorePath], &Path) -> T,
) -> Result<Option<T>, Error> {
    let mut session = Session::open(options, 0)?;
    let wanted = BTreeSet::from([path.clone()]);
    let valid = session.root(&wanted, &BTreeSet::new())?;
    let mut done = None;
    if !valid.is_empty() {
        let facts = session.closure(vec![path.clone()])?.into_iter();
        let mountable = facts.filter(|fact| fact.kind == PathKind::Mountable);
        let closure: Vec<StorePath> = mountable.map(|fact| fact.path).collect();
        done = Some(work(
            &session.lowering,
            &closure,
            &session.directory.lifeline(),
        ));
    }
    session.close();
    Ok(done)
}

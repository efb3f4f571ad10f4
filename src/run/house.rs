//! Work on an engine itself, while its store is held as a run holds it.

use crate::run::session::Session;
use crate::run::{Error, Options};

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

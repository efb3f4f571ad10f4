//! The engine wakes beside evaluation.

use super::asking;
use super::error::Error;
use super::request::Request;
use super::session::Session;
pub use crate::run::{Beforehand, Waking};
use crate::{eval, run};

impl Beforehand {
    /// What to begin for a build: what `nix` evaluates has often changed, what was evaluated before
    /// may well be there.
    pub fn of(request: &Request) -> Self {
        let evaluates = |asked: eval::Request| asked.without_nix().is_none();
        if asking::evaluation(request).is_ok_and(evaluates) {
            Self::Build
        } else {
            Self::Store
        }
    }
}

impl Session<'_> {
    /// Wakes the engine of a run, and does something meanwhile, which may take it. An error of that
    /// is the command's, whatever is wrong with the engine.
    ///
    /// # Errors
    ///
    /// That of `work`.
    pub fn wake<T>(
        &self,
        run: String,
        beforehand: Beforehand,
        work: impl FnOnce(Waking<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let options = self.options(run)?;
        run::wake(&options, beforehand, work)
    }
}

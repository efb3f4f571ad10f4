//! All outputs of a flake as one value, for what is asked for at its top by many names.
//!
//! `nix eval FLAKE#PATH` gives a function what a path leads to, and none leads to the top. A flake
//! that is locked can be had by an expression as well, evaluated just as pure: `nix flake metadata`
//! tells its address, which names the same source and so the same inputs. One that is not locked,
//! such as a git repository with changes that are not committed, cannot be had like this.

use std::ffi::{OsStr, OsString};

use serde::Deserialize;

use super::targets::{Job, read};
use super::{Error, quote};

/// What is read of `nix flake metadata --json`.
#[derive(Deserialize)]
struct Metadata {
    /// The address with what locks it.
    url: String,
}

impl Job<'_> {
    /// The expression whose value is a flake's outputs; none where there is no such.
    pub(super) fn whole(&mut self, flake: &str) -> Result<Option<String>, Error> {
        match self.expression_of(flake) {
            Ok(text) => Ok(Some(text)),
            Err(Error::Failed { .. } | Error::Answer { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn expression_of(&mut self, flake: &str) -> Result<String, Error> {
        // Without a flake it is the one here.
        let reference = if flake.is_empty() { "." } else { flake };
        let more = ["flake", "metadata", "--json", reference].map(OsString::from);
        let stdout = self.ask(flake, &more)?;
        let Metadata { url } = read(flake, &stdout)?;
        let text = format!("(builtins.getFlake {}).outputs", quote::string(&url));
        let arguments = ["--expr", &text].map(OsStr::new);
        self.eval(flake, &arguments, "_: null")?;
        Ok(text)
    }
}

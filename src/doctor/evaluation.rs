//! Examines the installed `nix`.

use std::ffi::{OsStr, OsString};
use std::sync::atomic::AtomicBool;

use crate::doctor::Fact;
use crate::eval::Nix;

/// Finds the `nix` that would evaluate.
pub fn examine(
    search: Option<&OsStr>,
    environment: &[(OsString, OsString)],
    cancel: &AtomicBool,
) -> Vec<Fact> {
    match Nix::find(None, search, environment, cancel) {
        Ok(nix) => vec![
            Fact::fine("nix", format!("{} at {}", nix.version, nix.path.display())),
            Fact::fine(
                "flakes",
                "enabled for each evaluation, whatever nix.conf says",
            ),
        ],
        Err(error) => {
            let text = crate::tunnel::MachineError::of(&error).text;
            let text = format!("{text}; only `.drv` files can be built");
            vec![Fact::missing("nix", text)]
        }
    }
}

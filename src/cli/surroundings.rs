//! What the machine and the environment say, read once at the start and given to pure decisions.
//!
//! Left out on purpose: secrets. Their variables are read by name when a pipeline asks for them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::error::Error;
use crate::run::TunnelProxy;

/// The variables that change what a command means; `docs/environment.md` says how.
pub const VARIABLES: &[&str] = &[
    "BUILDKIT_HOST",
    "DOCKER_CONFIG",
    "DOCKER_HOST",
    "HOME",
    "NO_COLOR",
    "PATH",
    "PONTOON_ENGINE",
    "PONTOON_STORE",
    "PONTOON_TUNNEL_PROXY",
    "TERM",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// Whether there is a `/nix/store`, and whether it is ours to build in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineStore {
    /// There is none. It is never created.
    Absent,
    /// It belongs to somebody else, usually to a daemon.
    ReadOnly,
    /// This user may write to it.
    Writable,
}

/// Everything outside the command line that decides what it means.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Those of [`VARIABLES`] that are set and not empty.
    pub variables: BTreeMap<String, OsString>,
    /// `/nix/store`.
    pub machine_store: MachineStore,
    /// Relative paths are relative to this; none if it has been removed.
    pub working_directory: Option<PathBuf>,
    /// How many processors may be used.
    pub processors: usize,
}

impl Surroundings {
    /// Asks the machine.
    pub fn read() -> Self {
        let variables = VARIABLES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self {
            variables,
            machine_store: machine_store(Path::new("/nix/store")),
            // Without one, relative paths are refused where they are used.
            working_directory: std::env::current_dir().ok(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// A variable as text; one that is not UTF-8 counts as not set, for none of those may be.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(name).and_then(|value| value.to_str())
    }

    /// A variable as an absolute path; a relative one counts as not set, as XDG demands.
    pub fn directory(&self, name: &str) -> Option<PathBuf> {
        self.variables
            .get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    }

    /// The file in which docker keeps logins, whether it is there or not.
    pub fn docker_config(&self) -> Option<PathBuf> {
        let directory = self.directory("DOCKER_CONFIG");
        let directory = directory.or_else(|| Some(self.directory("HOME")?.join(".docker")));
        Some(directory?.join("config.json"))
    }

    /// `PONTOON_TUNNEL_PROXY`: `FRONT:BACK`, two absolute paths.
    pub fn tunnel_proxy(&self) -> Result<Option<TunnelProxy>, Error> {
        let Some(value) = self.variables.get("PONTOON_TUNNEL_PROXY") else {
            return Ok(None);
        };
        let paths = value.to_str().and_then(|text| text.split_once(':'));
        match paths.map(|(front, back)| (PathBuf::from(front), PathBuf::from(back))) {
            Some((front, back)) if front.is_absolute() && back.is_absolute() => {
                Ok(Some(TunnelProxy { front, back }))
            }
            _ => Err(
                Error::usage("`PONTOON_TUNNEL_PROXY` is not two absolute paths").hint(
                    "write it as FRONT:BACK: agents connect to FRONT, the conductor makes BACK",
                ),
            ),
        }
    }
}

fn machine_store(store: &Path) -> MachineStore {
    if !store.is_dir() {
        return MachineStore::Absent;
    }
    match access(store, Access::WRITE_OK) {
        Ok(()) => MachineStore::Writable,
        Err(_) => MachineStore::ReadOnly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_variables_has_these_and_no_others() {
        let page = include_str!("../../docs/environment.md");
        let rows = page
            .lines()
            .take_while(|line| !line.starts_with("## Files"));
        let named: Vec<&str> = rows
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(named, VARIABLES);
    }
}

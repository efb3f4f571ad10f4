//! What was typed, as it is meant on this machine: which store, which engine, how many at once.
//!
//! | store | chosen by |
//! |---|---|
//! | `--store DIR` | the flag |
//! | `PONTOON_STORE` | the variable |
//! | `/` | `/nix/store` exists and is writable; it is never created |
//! | `$XDG_STATE_HOME/pontoon/store` | what is left: one per user |
//!
//! Deciding is pure; [`prepare`] alone touches the disk.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::args::{Building, Jobs, NixOptions, Stores, pairs};
use super::error::{Error, Kind};
use super::surroundings::{MachineStore, Surroundings};

/// A store by its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The directory that holds `nix/store`, absolute.
    pub root: PathBuf,
}

impl Store {
    /// The machine's own.
    pub fn machine() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }

    /// The directory that is `/nix` to builders.
    pub fn nix_dir(&self) -> PathBuf {
        self.root.join("nix")
    }

    /// Whether a logical path, `/nix/store/…`, is also the file's own path.
    pub fn resolves(&self) -> bool {
        self.nix_dir() == Path::new("/nix")
    }

    /// For `--store`; none for the machine's own.
    pub fn flag(&self) -> Option<String> {
        (!self.resolves()).then(|| self.root.display().to_string())
    }
}

/// Which stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Where {
    /// The build store.
    pub store: Store,
    /// Where `.drv` files are looked for, in order: the build store, `--eval-store`, the machine's.
    pub evaluation_stores: Vec<Store>,
    /// Which store evaluation writes to.
    pub evaluate_into: Store,
}

/// How to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct How {
    /// At most this many nodes at once.
    pub jobs: usize,
    /// `NIX_BUILD_CORES`.
    pub cores: u32,
    /// What a failure stops.
    pub on_failure: OnFailure,
    /// The longest a node may run.
    pub timeout: Option<Duration>,
    /// The longest a node may be silent.
    pub silence: Option<Duration>,
    /// The longest another program's lock is waited for.
    pub lock_timeout: Option<Duration>,
    /// From the command line; none if nothing was typed.
    pub sandbox_paths: Option<Vec<SandboxPath>>,
    /// Settings for the installed nix, which is asked otherwise.
    pub nix_options: Vec<(String, String)>,
}

/// What a failure stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// What needs the failed node.
    KeepGoing,
    /// Everything.
    Stop,
}

/// A path of the machine that builders see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxPath {
    /// Where builders see it.
    pub target: PathBuf,
    /// Where it is.
    pub source: PathBuf,
    /// Whether it may be missing.
    pub optional: bool,
}

impl SandboxPath {
    /// Parses `target[=source][?]` as Nix does.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (paths, optional) = match text.strip_suffix('?') {
            Some(paths) => (paths, true),
            None => (text, false),
        };
        let (target, source) = paths.split_once('=').unwrap_or((paths, paths));
        for path in [target, source] {
            let path = Path::new(path);
            if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
                return Err(format!(
                    "`{text}` is not TARGET[=SOURCE][?] with absolute paths"
                ));
            }
        }
        Ok(Self {
            target: target.into(),
            source: source.into(),
            optional,
        })
    }

    /// Parses any number of them, separated by white space.
    pub fn parse_list(text: &str) -> Result<super::args::SandboxPaths, String> {
        text.split_whitespace().map(Self::parse).collect()
    }
}

/// Decides the stores.
///
/// # Errors
///
/// A store that is no directory's name is a wrong command line; no place for one is an unusable
/// store.
pub fn stores(typed: &Stores, around: &Surroundings) -> Result<Where, Error> {
    let store = store(typed, around)?;
    let mut evaluation_stores = vec![store.clone()];
    let mut evaluate_into = store.clone();
    if let Some(text) = &typed.eval_store {
        evaluate_into = named_store(text, "--eval-store", around)?;
        evaluation_stores.push(evaluate_into.clone());
    }
    if around.machine_store != MachineStore::Absent {
        evaluation_stores.push(Store::machine());
    }
    let mut unique: Vec<Store> = vec![];
    for store in evaluation_stores {
        if !unique.contains(&store) {
            unique.push(store);
        }
    }
    Ok(Where {
        store,
        evaluation_stores: unique,
        evaluate_into,
    })
}

/// Decides how to build.
pub fn how(building: &Building, nix: &NixOptions, around: &Surroundings) -> How {
    let jobs = match building.max_jobs {
        None | Some(Jobs::Auto) => around.processors,
        Some(Jobs::Number(number)) => number.get(),
    };
    // Nix 2.31 and newer give builders the number of processors for 0.
    let cores = match building.cores {
        0 => u32::try_from(around.processors).unwrap_or(u32::MAX),
        cores => cores,
    };
    let given = &building.sandbox_paths;
    let limit = |limit: Duration| (!limit.is_zero()).then_some(limit);
    How {
        jobs,
        cores,
        on_failure: if building.fail_fast {
            OnFailure::Stop
        } else {
            OnFailure::KeepGoing
        },
        nix_options: pairs(&nix.option),
        timeout: limit(building.timeout),
        lock_timeout: limit(building.lock_timeout),
        silence: limit(building.max_silent_time),
        sandbox_paths: (!given.is_empty()).then(|| {
            given
                .iter()
                .flat_map(|paths| paths.iter().cloned())
                .collect()
        }),
    }
}

/// Makes the directory of a store, except the machine's own.
pub fn prepare(store: &Store) -> Result<(), Error> {
    let nix_dir = store.nix_dir();
    if store.resolves() {
        if nix_dir.join("store").is_dir() {
            return Ok(());
        }
        return Err(Error::new(
            Kind::Store,
            "there is no `/nix/store`, and it is never created",
        )
        .hint("name another store: `--store DIR`"));
    }
    fs_err::create_dir_all(&nix_dir).map_err(|source| Error::new(Kind::Store, source))
}

fn store(typed: &Stores, around: &Surroundings) -> Result<Store, Error> {
    if let Some(text) = &typed.store {
        return named_store(text, "--store", around);
    }
    if let Some(value) = around.variables.get("PONTOON_STORE") {
        let text = value
            .to_str()
            .ok_or_else(|| Error::usage("`PONTOON_STORE` is not UTF-8"))?;
        return named_store(text, "PONTOON_STORE", around);
    }
    if around.machine_store == MachineStore::Writable {
        return Ok(Store::machine());
    }
    let state = around.directory("XDG_STATE_HOME").or_else(|| {
        around
            .directory("HOME")
            .map(|home| home.join(".local/state"))
    });
    match state {
        Some(state) => Ok(Store {
            root: state.join("pontoon/store"),
        }),
        None => Err(Error::new(
            Kind::Store,
            "there is no place for one: `/nix/store` is not writable here, and neither \
             `XDG_STATE_HOME` nor `HOME` is an absolute path",
        )
        .hint("name one: `--store DIR` or `PONTOON_STORE`")),
    }
}

/// A store by the directory that was named. Nix's other stores have addresses or names of their
/// own, which must not become directories by accident.
fn named_store(text: &str, said_by: &str, around: &Surroundings) -> Result<Store, Error> {
    if text.is_empty() || text.contains("://") || ["auto", "daemon", "local"].contains(&text) {
        let error = Error::usage(format!("`{said_by}` takes a directory, not `{text}`"));
        return Err(match text {
            "auto" | "daemon" | "local" => error.hint(format!("`./{text}` is the directory")),
            _ => error,
        });
    }
    let path = Path::new(text);
    if path.is_absolute() {
        return Ok(Store { root: tidy(path) });
    }
    let here = around.working_directory.as_deref().ok_or_else(|| {
        Error::usage(format!(
            "`{said_by}` is relative, and the working directory is gone"
        ))
    })?;
    Ok(Store {
        root: tidy(&here.join(path)),
    })
}

/// Drops `.` and doubled slashes, so that `/` and `/.` are the same store; `..` stays, for only
/// the file system knows what it means.
fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(variables: &[(&str, &str)], machine_store: MachineStore) -> Surroundings {
        Surroundings {
            variables: variables
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            machine_store,
            working_directory: Some("/here".into()),
            processors: 8,
        }
    }

    /// `flag variables machine-store → root`, or the first line of the error with its code.
    fn decided(flag: Option<&str>, variables: &[(&str, &str)], machine: MachineStore) -> String {
        let place = Stores {
            store: flag.map(Into::into),
            ..Stores::default()
        };
        match stores(&place, &around(variables, machine)) {
            Ok(place) => place.store.root.display().to_string(),
            Err(error) => format!("{} {}", error.kind.code(), error.lines().join("; ")),
        }
    }

    #[test]
    fn which_store() {
        use MachineStore::{Absent, ReadOnly, Writable};
        let home = ("HOME", "/home/u");
        let state = ("XDG_STATE_HOME", "/state");
        let relative = ("XDG_STATE_HOME", "state");
        let variable = ("PONTOON_STORE", "/var/p");
        let table = [
            decided(Some("/srv/s/./"), &[variable, home], Writable),
            decided(Some("s"), &[home], Writable),
            decided(Some("/"), &[home], Writable),
            decided(None, &[variable, home], Writable),
            decided(None, &[home], Writable),
            decided(None, &[home], ReadOnly),
            decided(None, &[home], Absent),
            decided(None, &[home, state], Absent),
            decided(None, &[home, relative], Absent),
            decided(None, &[], Absent),
            decided(None, &[("HOME", "u")], Absent),
            decided(Some("daemon"), &[home], Writable),
            decided(Some("ssh://host"), &[home], Writable),
            decided(Some(""), &[home], Writable),
        ];
        insta::assert_snapshot!(table.join("\n"), @"
        /srv/s
        /here/s
        /
        /var/p
        /
        /home/u/.local/state/pontoon/store
        /home/u/.local/state/pontoon/store
        /state/pontoon/store
        /home/u/.local/state/pontoon/store
        6 error: the store cannot be used;   there is no place for one: `/nix/store` is not writable here, and neither `XDG_STATE_HOME` nor `HOME` is an absolute path; hint: name one: `--store DIR` or `PONTOON_STORE`
        6 error: the store cannot be used;   there is no place for one: `/nix/store` is not writable here, and neither `XDG_STATE_HOME` nor `HOME` is an absolute path; hint: name one: `--store DIR` or `PONTOON_STORE`
        2 error: `--store` takes a directory, not `daemon`; hint: `./daemon` is the directory
        2 error: `--store` takes a directory, not `ssh://host`
        2 error: `--store` takes a directory, not ``
        ");
    }

    #[test]
    fn derivations_are_looked_for_in_every_store_once() {
        let looked = |eval: Option<&str>, machine| {
            let place = Stores {
                store: Some("/".into()),
                eval_store: eval.map(Into::into),
            };
            let place = stores(&place, &around(&[], machine)).unwrap();
            let roots = place
                .evaluation_stores
                .iter()
                .map(|store| store.root.display().to_string());
            (
                roots.collect::<Vec<_>>().join(" "),
                place.evaluate_into.root,
            )
        };
        assert_eq!(
            looked(None, MachineStore::Writable),
            ("/".into(), "/".into())
        );
        assert_eq!(
            looked(Some("/e"), MachineStore::ReadOnly),
            ("/ /e".into(), "/e".into())
        );
    }

    #[test]
    fn zero_means_all_processors_and_no_limit() {
        let how = how(
            &Building::default(),
            &NixOptions::default(),
            &around(&[], MachineStore::Absent),
        );
        assert_eq!(
            (how.jobs, how.cores, how.timeout, how.silence),
            (8, 8, None, None)
        );
        assert_eq!(
            (how.on_failure, how.sandbox_paths),
            (OnFailure::KeepGoing, None)
        );
    }

    #[test]
    fn sandbox_paths_as_nix_writes_them() {
        let parsed = SandboxPath::parse("/bin/sh=/usr/bin/dash?").unwrap();
        let (target, source) = ("/bin/sh".into(), "/usr/bin/dash".into());
        assert_eq!(
            parsed,
            SandboxPath {
                target,
                source,
                optional: true
            }
        );
        assert_eq!(SandboxPath::parse_list(" /a  /b=/c ").unwrap().len(), 2);
        assert!(SandboxPath::parse_list("").unwrap().is_empty());
        assert!(SandboxPath::parse("/a/../b").is_err());
    }

    #[test]
    fn the_machine_store_is_never_made() {
        let root = tempfile::tempdir().unwrap();
        let store = Store {
            root: root.path().join("a b"),
        };
        prepare(&store).unwrap();
        assert!(store.nix_dir().is_dir());
        assert!(store.flag().is_some() && Store::machine().flag().is_none());
    }
}

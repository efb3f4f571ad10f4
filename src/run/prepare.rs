//! What a run needs on the machine before its first op: a directory of its own, and the engine.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use rustix::fs::{FlockOperation, flock};

use crate::engine::embedded::machine::{Accounts, UserMapping};
use crate::engine::embedded::{Config, Embedded};
use crate::engine::lower::{SANDBOX_DEVICE, STORE_CACHE, STORE_DEVICE};
use crate::engine::{Device, DeviceAccess, DeviceMount, Shape};
use crate::run::connection::Happening;
use crate::run::{Error, Options};
use crate::sandbox::ids;
use crate::tunnel::{MachineError, SandboxPath};

/// What the directories of runs begin with.
const PREFIX: &str = "pontoon-";

/// A run's directory: the tunnel's socket, and the place where roots are mounted. It is removed
/// when dropped; that of a run which was killed goes when the next one begins.
pub(super) struct Directory {
    directory: tempfile::TempDir,
    /// Locked for as long as the run lives.
    _lock: fs_err::File,
}

impl Directory {
    /// Makes it, and removes those of dead runs.
    pub(super) fn make(parent: &Path) -> std::io::Result<Self> {
        sweep(parent);
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = fs_err::File::create(directory.path().join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let made = Self {
            directory,
            _lock: lock,
        };
        fs_err::create_dir(made.scratch())?;
        Ok(made)
    }

    /// Where the tunnel's socket is.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("tunnel")
    }

    /// The empty directory for the roots of ops.
    pub(super) fn scratch(&self) -> PathBuf {
        self.directory.path().join("root")
    }
}

/// Removes the directories of this user's dead runs. What cannot be removed does no harm but to
/// stay, so nothing here is an error.
fn sweep(parent: &Path) {
    let Ok(entries) = fs_err::read_dir(parent) else {
        return;
    };
    let own = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let is_ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
            && entry
                .metadata()
                .is_ok_and(|meta| meta.is_dir() && meta.uid() == own);
        if is_ours && is_dead(&entry.path()) {
            let _ = fs_err::remove_dir_all(entry.path());
        }
    }
}

/// Whether nobody holds the lock. A directory without one is somebody else's, or just being made.
fn is_dead(directory: &Path) -> bool {
    match fs_err::File::open(directory.join("lock")) {
        // Just made, it may not be locked yet; its socket comes after.
        Ok(lock) => {
            directory.join("tunnel").exists()
                && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        }
        Err(_) => false,
    }
}

/// The engine mounts the store's directory, so it has to be there; the rest is the agent's.
pub(super) fn prepare_store(options: &Options) -> Result<(), Error> {
    let unusable = |error: &dyn std::error::Error| Error::Store {
        store: options.store_name.clone(),
        source: MachineError::of(error),
    };
    // An agent would not see it: what is mounted in its op is the directory itself.
    crate::store::refuse_symlinks(&options.nix_dir).map_err(|error| unusable(&error))?;
    fs_err::create_dir_all(options.nix_dir.path()).map_err(|error| unusable(&error))
}

pub(super) fn start_engine(
    options: &Options,
    directory: &Directory,
    tunnel: &Path,
    tell: &Sender<Happening>,
) -> Result<Embedded, Error> {
    let accounts = Accounts::of_this_machine();
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let users = accounts.mapping(uid, gid);
    if options.shape == Shape::Plain && matches!(users, UserMapping::Single { .. }) {
        let reason = "a plain op needs a second user for its builder, and this user has no \
            subordinate range in /etc/subuid and /etc/subgid, or no `newuidmap`; the strong shape \
            needs neither";
        return Err(crate::engine::Error::Unable {
            reason: reason.to_owned(),
        }
        .into());
    }
    if options.shape == Shape::Strong
        && users == UserMapping::Root
        && let Some(reason) = ids::forbidden()
    {
        // Root needs one for each builder, whose ids are mapped.
        return Err(crate::engine::Error::Unable { reason }.into());
    }
    let nix_dir = options.nix_dir.path();
    let builders = accounts.builders(users, nix_dir);
    if let Some(locks) = &builders.locks {
        fs_err::create_dir_all(locks).map_err(Error::Prepare)?;
    }
    let config = Config {
        program: options.program.clone(),
        tunnel: tunnel.to_path_buf(),
        scratch: directory.scratch(),
        caches: BTreeMap::from([(STORE_CACHE.to_owned(), nix_dir.to_path_buf())]),
        devices: vec![builders.store_device(STORE_DEVICE, nix_dir)],
        users,
    };
    let tell = tell.clone();
    let events = move |event| {
        let _ = tell.send(Happening::Engine(event));
    };
    Ok(Embedded::start(config, events)?)
}

/// In plain the op is the room: the paths go where the builder sees them. In strong the agent
/// carries them into each room.
pub(super) fn sandbox_device(shape: Shape, paths: &[SandboxPath]) -> Device {
    let place = |target: &str| match shape {
        Shape::Plain => PathBuf::from(target),
        Shape::Strong => PathBuf::from(format!("{}{target}", crate::agent::SANDBOX_PATHS)),
    };
    let mounts = paths.iter().map(|path| DeviceMount {
        host: PathBuf::from(&path.source),
        container: place(&path.target),
        access: DeviceAccess::ReadWrite,
    });
    Device {
        name: SANDBOX_DEVICE.to_owned(),
        mounts: mounts.collect(),
        environment: Vec::new(),
    }
}

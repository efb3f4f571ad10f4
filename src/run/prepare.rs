//! What a run needs on the machine before its first op: a directory of its own, and the engine.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat, stat};
use rustix::io::Errno;

use crate::engine::embedded::machine::{Accounts, UserMapping};
use crate::engine::embedded::{Config, Embedded};
use crate::engine::lower::{SANDBOX_DEVICE, STORE_CACHE, STORE_DEVICE};
use crate::engine::{Device, DeviceAccess, DeviceMount, Shape};
use crate::run::connection::Happening;
use crate::run::{Error, Options};
use crate::sandbox::ids;
use crate::tunnel::{MachineError, SandboxPath};

/// What the directories of runs begin with.
const PREFIX: &str = "pontoon-run-";
/// The tunnel's socket.
const SOCKET: &str = "tunnel";
/// What a program in a container hangs on.
const LIFELINE: &str = "lifeline";
/// Where roots are mounted.
const SCRATCH: &str = "root";

/// A run's directory: the tunnel's socket, and the place where roots are mounted.
///
/// It is locked for as long as the run lives, and one that is not locked is dead, however little of
/// it was made: the next run removes it. So a directory may be taken away between its making and
/// its locking; then another one is made.
pub(super) struct Directory {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Directory {
    /// Makes it, and removes those of dead runs.
    pub(super) fn make(parent: &Path) -> std::io::Result<Self> {
        sweep(parent);
        loop {
            let path = tempfile::Builder::new()
                .prefix(PREFIX)
                .tempdir_in(parent)?
                .keep();
            if let Some(lock) = lock(&path)? {
                let made = Self { path, _lock: lock };
                fs_err::create_dir(made.scratch())?;
                return Ok(made);
            }
        }
    }

    /// Where the tunnel's socket is.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Where another socket may be.
    pub(super) fn lifeline(&self) -> PathBuf {
        self.path.join(LIFELINE)
    }

    /// The empty directory for the roots of ops.
    pub(super) fn scratch(&self) -> PathBuf {
        self.path.join(SCRATCH)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Locks a directory, unless somebody else has, or has removed it.
fn lock(directory: &Path) -> std::io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = match rustix::fs::openat(CWD, directory, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    match flock(&open, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        other => other?,
    }
    let locked = fstat(&open)?;
    let is_current = stat(directory)
        .is_ok_and(|there| (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino));
    Ok(is_current.then_some(open))
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
        if is_ours && let Ok(Some(_lock)) = lock(&entry.path()) {
            remove(&entry.path());
        }
    }
}

/// Removes a run's directory, and nothing that no run makes: with anything else in it, it stays.
fn remove(directory: &Path) {
    for socket in [SOCKET, LIFELINE] {
        let _ = fs_err::remove_file(directory.join(socket));
    }
    let _ = fs_err::remove_dir(directory.join(SCRATCH));
    let _ = fs_err::remove_dir(directory);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parent: &Path) -> usize {
        fs_err::read_dir(parent).unwrap().count()
    }

    #[test]
    fn a_dead_runs_directory_goes_however_little_of_it_was_made() {
        let place = tempfile::tempdir().unwrap();
        let parent = place.path();
        fs_err::create_dir(parent.join("pontoon-run-made")).unwrap();
        fs_err::create_dir_all(parent.join("pontoon-run-whole").join(SCRATCH)).unwrap();
        let socket = parent.join("pontoon-run-whole").join(SOCKET);
        std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let run = Directory::make(parent).unwrap();
        assert_eq!(names(parent), 1);
        drop(run);
        assert_eq!(names(parent), 0);
    }

    #[test]
    fn a_live_runs_directory_stays_and_so_does_what_no_run_made() {
        let place = tempfile::tempdir().unwrap();
        let parent = place.path();
        let first = Directory::make(parent).unwrap();
        let own = parent.join("pontoon-run-notes/today");
        fs_err::create_dir_all(own.parent().unwrap()).unwrap();
        fs_err::write(&own, "").unwrap();
        let _second = Directory::make(parent).unwrap();
        assert!(first.scratch().exists() && own.exists());
    }

    #[test]
    fn runs_that_begin_and_end_at_once_leave_each_other_alone_and_nothing_behind() {
        let place = tempfile::tempdir().unwrap();
        let parent = place.path();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let run = Directory::make(parent).unwrap();
                        fs_err::write(run.socket(), "").unwrap();
                        assert!(run.scratch().exists());
                    }
                });
            }
        });
        assert_eq!(names(parent), 0);
    }
}

//! Locks: between builders of one output (Nix spec §5.11), and against the collector (§10).

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::{AtFlags, CWD, FlockOperation};
use rustix::io::Errno;

use super::{Error, NixDir, Store};
use crate::nix::StorePath;

/// How often a held lock is tried again. Nix takes five seconds; a local build is often shorter.
const POLL: Duration = Duration::from_millis(50);
/// How often the one who waits is told.
const TELL: Duration = Duration::from_secs(1);

/// Takes a lock, waiting as the operation says.
pub(super) fn flock(file: &fs_err::File, operation: FlockOperation) -> Result<(), Error> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other.map_err(Error::system("lock", file.path())),
        }
    }
}

/// Takes a lock if it is free now.
pub(super) fn try_flock(file: &fs_err::File, operation: FlockOperation) -> Result<bool, Error> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(source) => Err(Error::System {
            what: "lock",
            path: file.path().to_owned(),
            source,
        }),
    }
}

/// Opens a file to lock, and creates it if need be.
pub(super) fn open_lock(path: &Path) -> Result<fs_err::File, Error> {
    let file = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    Ok(file)
}

/// Whether the locked file is still the one at its path; else its last holder has removed it.
pub(super) fn is_current(file: &fs_err::File) -> Result<bool, Error> {
    let ours = rustix::fs::fstat(file).map_err(Error::system("look at", file.path()))?;
    match rustix::fs::statat(CWD, file.path(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(source) => Err(Error::System {
            what: "look at",
            path: file.path().to_owned(),
            source,
        }),
    }
}

/// Keeps collectors out while it lives.
#[derive(Debug)]
pub struct GcLock {
    _file: fs_err::File,
}

/// What came of trying to keep collectors out of a store that need not be open.
#[derive(Debug)]
pub enum KeptOut {
    /// They are out.
    Yes(GcLock),
    /// One is at work.
    NotYet,
    /// The store is not ours to lock.
    NotOurs,
}

impl GcLock {
    /// Tries to keep collectors out of the store below a directory, before anything is in it.
    pub fn keep_out(dir: &NixDir) -> Result<KeptOut, Error> {
        match Self::try_shared(dir) {
            Ok(Some(lock)) => Ok(KeptOut::Yes(lock)),
            Ok(None) => Ok(KeptOut::NotYet),
            Err(Error::Io(error)) if is_foreign(error.kind()) => Ok(KeptOut::NotOurs),
            Err(error) => Err(error),
        }
    }
}

fn is_foreign(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

impl GcLock {
    pub(super) fn shared(dir: &NixDir) -> Result<Self, Error> {
        let file = open_lock(&dir.gc_lock())?;
        flock(&file, FlockOperation::LockShared)?;
        Ok(Self { _file: file })
    }

    /// Nothing if a collector is at work.
    pub(super) fn try_shared(dir: &NixDir) -> Result<Option<Self>, Error> {
        let file = open_lock(&dir.gc_lock())?;
        let locked = try_flock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(locked.then_some(Self { _file: file }))
    }
}

/// The right to make certain paths valid.
///
/// Dropped, the locks are free again but their files stay, as after a failed build of Nix's;
/// [`release`](Self::release) also removes the files.
#[derive(Debug)]
#[must_use = "dropped, the outputs are not locked any more"]
pub struct OutputLocks {
    files: Vec<fs_err::File>,
}

impl OutputLocks {
    /// Removes the lock files, and marks them as stale for those who have them open.
    ///
    /// Removed first: killed in between, a marked file that still has its name would be stale for
    /// ever, and whoever wants the lock would open it again and again.
    pub fn release(self) -> Result<(), Error> {
        for mut file in self.files {
            match fs_err::remove_file(file.path()) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other?,
            }
            file.write_all(b"d")?;
        }
        Ok(())
    }
}

impl Store {
    /// Locks the outputs, all or none, and waits for them.
    ///
    /// `on_wait` learns about once a second which lock another process holds, and may end the wait.
    /// Who has waited must ask again what is valid.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `on_wait` said so.
    pub fn lock<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
        on_wait: &mut dyn FnMut(&Path) -> ControlFlow<()>,
    ) -> Result<OutputLocks, Error> {
        self.must_write()?;
        let places = lock_places(&self.dir, paths);
        let mut told: Option<Instant> = None;
        loop {
            let held = match attempt(&places)? {
                Ok(locks) => return Ok(locks),
                Err(held) => held,
            };
            if told.is_none_or(|told| told.elapsed() >= TELL) {
                told = Some(Instant::now());
                if on_wait(&held).is_break() {
                    return Err(Error::Cancelled { path: held });
                }
            }
            std::thread::sleep(POLL);
        }
    }

    /// Locks the outputs if all are free now; else returns the lock that another process holds.
    pub fn try_lock<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<Result<OutputLocks, PathBuf>, Error> {
        self.must_write()?;
        attempt(&lock_places(&self.dir, paths))
    }
}

fn lock_places<'a>(
    dir: &NixDir,
    paths: impl IntoIterator<Item = &'a StorePath>,
) -> BTreeSet<PathBuf> {
    let store = dir.store();
    paths
        .into_iter()
        .map(|path| store.join(format!("{}.lock", path.to_basename())))
        .collect()
}

fn attempt(places: &BTreeSet<PathBuf>) -> Result<Result<OutputLocks, PathBuf>, Error> {
    let mut files = Vec::with_capacity(places.len());
    for place in places {
        loop {
            let file = open_lock(place)?;
            if !try_flock(&file, FlockOperation::NonBlockingLockExclusive)? {
                return Ok(Err(place.clone()));
            }
            // Not empty: its last holder removed this file between our opening and locking it.
            if file.metadata()?.len() == 0 {
                files.push(file);
                break;
            }
        }
    }
    Ok(Ok(OutputLocks { files }))
}

//! A Nix store on disk that real Nix opens too (Nix spec §5.3, §5.11, §6, §10).
//!
//! The *Nix directory* is the physical directory whose logical place is `/nix`; [`NixDir`] knows
//! what lies where in it. Everything in the database, in hashes and on the screen is the logical
//! `/nix/store/…`.
//!
//! Two promises hold at every moment, also when a process is killed: what is *registered* (has a row
//! in the database) is complete, canonical and on the disk; and what is not registered is worth
//! nothing, so whoever needs its place may remove it. Hence the order everywhere: write elsewhere,
//! make canonical, lock, rename into place, sync it and the store directory, register, unlock.
//!
//! Many processes work on one store. They keep apart by Nix's own means: output locks beside the
//! paths, temp roots and `gc.lock` against the collector, and the database's transactions. Our own
//! files lie in `pontoon/`, which Nix does not know: the store's [`Identity`], [`attempts`],
//! [`Slot`]s for builds, [`agents`], and the locks of runs whose [`Roots`] Nix respects.
//!
//! Left out: content-addressed realisations, optimisation by hard links, and collecting garbage;
//! Nix does these on the same store.

pub mod agents;
pub mod attempts;
mod barred;
mod database;
mod error;
mod holders;
mod identity;
mod import;
mod indirect;
mod layout;
mod locks;
pub mod logs;
mod place;
mod roots;
mod slots;
mod temp_roots;
#[cfg(test)]
mod tests;
pub mod tree;
mod wait;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use barred::barred_by;
use database::Database;
pub use database::{PathInfo, Registration};
pub use error::Error;
pub use holders::Holder;
pub use identity::Identity;
pub use import::{ImportHeader, Importer};
pub use indirect::add_indirect_root;
use layout::Layout;
pub use layout::refuse_symlinks;
pub use locks::{GcLock, KeptOut, OutputLocks};
pub use roots::Roots;
pub use slots::{Occupied, Slot};
pub use temp_roots::TempRoots;
pub use wait::{Held, Notice, Wait};

use crate::nix::StorePath;

/// The physical directory whose logical place is `/nix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NixDir(PathBuf);

impl NixDir {
    /// Names a Nix directory; nothing is looked at.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The store directory.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Where a file is that an agent, to which this directory is `/nix`, calls so.
    pub fn path_here(&self, path: &str) -> PathBuf {
        match path.strip_prefix("/nix/") {
            Some(below) => self.0.join(below),
            None => PathBuf::from(path),
        }
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.0.join("var/nix")
    }

    /// What a collector locks while it works.
    pub fn gc_lock(&self) -> PathBuf {
        self.0.join("var/nix/gc.lock")
    }

    /// The database's directory.
    pub fn db(&self) -> PathBuf {
        self.0.join("var/nix/db")
    }

    /// Where processes list the paths they use.
    pub fn temproots(&self) -> PathBuf {
        self.0.join("var/nix/temproots")
    }

    /// Where links protect paths from the collector.
    pub fn gcroots(&self) -> PathBuf {
        self.0.join("var/nix/gcroots")
    }

    /// The build logs.
    pub fn logs(&self) -> PathBuf {
        self.0.join("var/log/nix")
    }

    /// Our own files.
    pub fn pontoon(&self) -> PathBuf {
        self.0.join("pontoon")
    }

    /// Records of attempts.
    pub fn attempts(&self) -> PathBuf {
        self.0.join("pontoon/attempts")
    }

    /// Agents that were delivered.
    pub fn agents(&self) -> PathBuf {
        self.0.join("pontoon/agent")
    }

    /// Places for builds.
    pub fn slots(&self) -> PathBuf {
        self.0.join("pontoon/slots")
    }

    /// Locks of runs.
    pub fn runs(&self) -> PathBuf {
        self.0.join("pontoon/runs")
    }

    /// Where a store path lies.
    pub fn real(&self, path: &StorePath) -> PathBuf {
        let mut real = self.store();
        real.push(path.to_basename());
        real
    }
}

/// An open store.
pub struct Store {
    dir: NixDir,
    database: Database,
    identity: Identity,
    temp_roots: RefCell<Option<TempRoots>>,
    /// Held shared for as long as the store is open: nobody changes the schema meanwhile.
    _big_lock: Option<fs_err::File>,
    access: Access,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadWrite,
    ReadOnly,
}

/// How long another process may hold the database before that is an error: Nix's own hour.
pub const PATIENCE: Duration = Duration::from_hours(1);

impl Store {
    /// Opens a store for reading and writing, and creates it on first use as Nix does.
    ///
    /// # Errors
    /// Another schema, a damaged database, a store that cannot be written, or one that lies behind
    /// a symbolic link, each by name.
    pub fn open(dir: NixDir) -> Result<Self, Error> {
        let layout = Layout::prepare(&dir)?;
        let database = Database::open(&dir, layout.schema)?;
        if layout.schema == layout::Schema::Missing {
            layout::write_schema(&dir)?;
        }
        let identity = Identity::obtain(&dir)?;
        Ok(Self {
            dir,
            database,
            identity,
            temp_roots: RefCell::new(None),
            _big_lock: Some(layout.big_lock),
            access: Access::ReadWrite,
        })
    }

    /// Opens an existing store for reading, without need for the right to write.
    ///
    /// It changes nothing, except that `SQLite` may create the files through which readers and
    /// writers of one database see each other, where the directory can be written.
    pub fn open_read_only(dir: NixDir) -> Result<Self, Error> {
        let big_lock = layout::check_existing(&dir)?;
        let database = Database::open_read_only(&dir)?;
        let identity = Identity::of_reader(&dir)?;
        Ok(Self {
            dir,
            database,
            identity,
            temp_roots: RefCell::new(None),
            _big_lock: big_lock,
            access: Access::ReadOnly,
        })
    }

    /// Changes how long this store waits for the database, at first [`PATIENCE`].
    pub fn set_patience(&self, patience: Duration) -> Result<(), Error> {
        self.database.set_patience(patience)
    }

    /// The directories.
    pub fn dir(&self) -> &NixDir {
        &self.dir
    }

    /// Which store this is, and which copy of it.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Which of these paths are valid.
    pub fn valid<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<BTreeSet<StorePath>, Error> {
        self.database.valid(paths)
    }

    /// The positions of those of these paths that are valid, ascending.
    ///
    /// Quickest for paths that are sorted.
    pub fn which_valid(&self, paths: &[StorePath]) -> Result<Vec<usize>, Error> {
        self.database.which_valid(paths)
    }

    /// All paths that are valid, in the order of their texts; none if there are more than that.
    pub fn all_valid(&self, at_most: usize) -> Result<Option<Vec<StorePath>>, Error> {
        self.database.all_valid(at_most)
    }

    /// What is registered about a path.
    pub fn info(&self, path: &StorePath) -> Result<Option<PathInfo>, Error> {
        self.database.info(path)
    }

    /// What is registered about those of these paths that are valid, as of one moment.
    pub fn infos<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<BTreeMap<StorePath, PathInfo>, Error> {
        self.database.infos(paths)
    }

    /// Everything these paths refer to, with themselves, as of one moment.
    ///
    /// # Errors
    /// A path that is not valid, by name.
    pub fn closure<'a>(
        &self,
        roots: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<BTreeMap<StorePath, PathInfo>, Error> {
        self.database.closure(roots)
    }

    /// The valid path with this hash part.
    pub fn hash_part(&self, hash_part: &str) -> Result<Option<StorePath>, Error> {
        self.database.hash_part(hash_part)
    }

    /// Makes paths valid, all or none, in one transaction.
    ///
    /// What lies at their places must be complete, canonical and durable, and their locks held.
    /// References may be to each other, to themselves, or to valid paths; the caller has ruled out
    /// cycles.
    ///
    /// # Errors
    /// A reference to a path that is not valid; or the database, locked for longer than this
    /// store's patience.
    pub fn register<'a>(
        &self,
        registrations: impl IntoIterator<Item = &'a Registration>,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        self.register_after(registrations, &mut |_| {
            if begun.elapsed() < self.database.patience() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
    }

    /// [`register`](Self::register), for as long as one is willing to wait for other writers.
    ///
    /// `on_wait` learns several times a second which lock another program holds, and may end the
    /// wait.
    ///
    /// # Errors
    /// As there; [`Error::Busy`] if `on_wait` said so.
    pub fn register_after<'a>(
        &self,
        registrations: impl IntoIterator<Item = &'a Registration>,
        on_wait: &mut dyn FnMut(&Path) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.must_write()?;
        self.database.register(registrations, on_wait)
    }

    /// Protects paths, valid or not, from the collector for as long as this store is open.
    ///
    /// Done before their validity is asked, else they may go between the question and this
    /// (Nix spec §10.2).
    pub fn add_temp_roots<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<(), Error> {
        self.must_write()?;
        let mut temp_roots = self.temp_roots.borrow_mut();
        if temp_roots.is_none() {
            *temp_roots = Some(TempRoots::create(&self.dir)?);
        }
        temp_roots
            .as_mut()
            .expect("made just now")
            .add(&self.dir, paths)
    }

    /// Keeps every collector out until the guard is dropped; waits for one that is at work.
    pub fn gc_lock_shared(&self) -> Result<GcLock, Error> {
        GcLock::shared(&self.dir)
    }

    fn must_write(&self) -> Result<(), Error> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Error::OpenedReadOnly {
                dir: self.dir.0.clone(),
            }),
        }
    }
}

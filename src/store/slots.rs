//! Slots: places where builds happen, on the store's own file system.
//!
//! `pontoon/slots/N/` holds `store` (where outputs are made before they are renamed into the store),
//! `build`, `tmp`, `root`, `shelf`, where an agent has the inputs on top of that `store`, and `points`
//! for these. A slot is leased by a lock on `N/lock`; who leases it sweeps first what a dead build
//! left.
//!
//! Who leases a slot need not be who builds in it: the agent of a plain op only has it mounted, and
//! may outlive the lease by what it takes to finish. So it locks `N/busy` for itself ([`Occupied`]),
//! and a slot with a builder in it is not leased, nor swept.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::locks::{open_lock, try_flock};
use super::{Error, NixDir, tree};

/// A leased slot; dropped, it is free for others.
#[derive(Debug)]
pub struct Slot {
    number: u32,
    dir: PathBuf,
    _lock: fs_err::File,
}

/// A slot that somebody builds in, as long as this lives.
#[derive(Debug)]
pub struct Occupied {
    _lock: fs_err::File,
}

impl Occupied {
    /// Begins to build in a slot that another process has leased for this; nothing if somebody else
    /// still does.
    pub fn begin(dir: &NixDir, number: u32) -> Result<Option<Self>, Error> {
        let lock = open_lock(&busy(&dir.slots().join(number.to_string())))?;
        let locked = try_flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(locked.then_some(Self { _lock: lock }))
    }
}

/// What is locked while somebody builds in a slot.
fn busy(slot: &Path) -> PathBuf {
    slot.join("busy")
}

impl Slot {
    /// Leases the free slot with the lowest number, and makes its directories empty.
    pub fn lease(dir: &NixDir) -> Result<Self, Error> {
        let mut number = 0;
        loop {
            if let Some(slot) = Self::try_lease(dir, number)? {
                return Ok(slot);
            }
            number += 1;
        }
    }

    /// Leases this slot, if it is free.
    pub fn try_lease(dir: &NixDir, number: u32) -> Result<Option<Self>, Error> {
        let dir = dir.slots().join(number.to_string());
        fs_err::create_dir_all(&dir)?;
        let lock = open_lock(&dir.join("lock"))?;
        if !try_flock(&lock, FlockOperation::NonBlockingLockExclusive)? {
            return Ok(None);
        }
        let busy = open_lock(&busy(&dir))?;
        if !try_flock(&busy, FlockOperation::NonBlockingLockExclusive)? {
            return Ok(None);
        }
        let slot = Self {
            number,
            dir,
            _lock: lock,
        };
        slot.sweep(&BTreeSet::new())?;
        make_empty(&slot.shelf_dir(), 0o755, &BTreeSet::new())?;
        Ok(Some(slot))
    }

    /// Makes the slot's directories empty, again, but for these mount points in its store.
    pub fn sweep(&self, points: &BTreeSet<String>) -> Result<(), Error> {
        // A store directory belongs to its builders while they build: writable, but sticky.
        make_empty(&self.store_dir(), 0o1775, points)?;
        for folder in [self.build_dir(), self.temporary_dir(), self.root_dir()] {
            make_empty(&folder, 0o755, &BTreeSet::new())?;
        }
        Ok(())
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where outputs are made: mounted at `/nix/store`.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Where build directories are made.
    pub fn build_dir(&self) -> PathBuf {
        self.dir.join("build")
    }

    /// What a build sees as `/tmp`.
    pub fn temporary_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// A stock of mount points, which outlasts builds and leases.
    pub fn points_dir(&self) -> PathBuf {
        self.dir.join("points")
    }

    /// Where an agent has the inputs of its builds, on top of the slot's store.
    pub fn shelf_dir(&self) -> PathBuf {
        self.dir.join("shelf")
    }

    /// Where a build's root is put together.
    pub fn root_dir(&self) -> PathBuf {
        self.dir.join("root")
    }
}

/// A directory that is there keeps its identity: another process may have it mounted.
fn make_empty(folder: &Path, mode: u32, kept: &BTreeSet<String>) -> Result<(), Error> {
    if folder
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.is_dir())
    {
        tree::remove_contents(folder, kept)?;
    } else {
        tree::remove(folder)?;
        fs_err::create_dir(folder)?;
    }
    rustix::fs::chown(
        folder,
        Some(rustix::process::geteuid()),
        Some(rustix::process::getegid()),
    )
    .map_err(Error::system("change the owner of", folder))?;
    Ok(fs_err::set_permissions(
        folder,
        std::fs::Permissions::from_mode(mode),
    )?)
}

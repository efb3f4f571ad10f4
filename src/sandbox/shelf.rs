//! A shelf: a directory with other things bound on it, of which cages get copies.
//!
//! To bind a hundred things takes a thousand calls, and the next cage often needs the same ones and
//! one more. On a shelf they stay: it is mounted in the caller's own mount namespace, and a copy of
//! it with all that is on it is one call.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::error::{Error, Step};
use super::{Access, cage};

/// A shelf; dropped, it is taken down, and the copies stay.
#[derive(Debug)]
pub struct Shelf {
    place: PathBuf,
}

impl Shelf {
    /// Puts up a shelf at a directory that exists. It shows another directory, which can be written
    /// in the copies. The caller's mounts are private from then on.
    ///
    /// # Errors
    ///
    /// [`Error::Step`].
    pub fn put_up(shown: &Path, place: &Path) -> Result<Self, Error> {
        cage::be_private()?;
        cage::bind_over(&find(shown)?, shown, place, Access::ReadWrite)?;
        let place = place.to_owned();
        Ok(Self { place })
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Binds something on it, to be read only. Its place is made if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Step`].
    pub fn add(&self, source: &Path, name: &str) -> Result<(), Error> {
        let target = self.place.join(name);
        cage::bind_over(&find(source)?, source, &target, Access::ReadOnly)
    }

    /// Copies it as it is now.
    ///
    /// # Errors
    ///
    /// [`Error::Step`].
    pub fn copy(&self) -> Result<OwnedFd, Error> {
        cage::copy(&find(&self.place)?).map_err(Error::at(Step::CloneTree, &self.place))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        // It fails only where nothing is mounted any more.
        let _ = rustix::mount::unmount(&self.place, UnmountFlags::DETACH);
    }
}

fn find(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::at(Step::Source, path))
}

//! Putting things at their store paths, and taking away what is not valid there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::{Error, Store, tree};
use crate::nix::StorePath;

impl Store {
    /// Removes whatever lies at the place of a path that is not valid: a dead build's, or a rejected
    /// output. The caller holds the path's lock.
    ///
    /// # Errors
    /// A path that is valid stays.
    pub fn delete_invalid(&self, path: &StorePath) -> Result<(), Error> {
        self.must_write()?;
        let place = self.dir.real(path);
        if matches!(
            rustix::fs::statat(CWD, &place, AtFlags::SYMLINK_NOFOLLOW),
            Err(Errno::NOENT)
        ) {
            return Ok(());
        }
        if self.info(path)?.is_some() {
            return Err(Error::Valid { path: path.clone() });
        }
        Ok(tree::remove(&place)?)
    }

    /// Moves a finished, canonical tree to the place of a path that is not valid yet, after removing
    /// what lies there. The caller holds the path's lock; before it registers the path it syncs the
    /// tree and calls [`sync_directory`](Self::sync_directory). Synced after the move, the tree and
    /// its entry are mostly one commit of the file system's journal.
    pub fn place(&self, from: &Path, path: &StorePath) -> Result<(), Error> {
        self.delete_invalid(path)?;
        let place = self.dir.real(path);
        match rustix::fs::rename(from, &place) {
            // Only the superuser may move a directory that it cannot write.
            Err(Errno::ACCESS) => {
                let set = |path: &Path, mode| {
                    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))
                };
                set(from, 0o755)?;
                rustix::fs::rename(from, &place).map_err(Error::system("move", from))?;
                set(&place, 0o555)?;
                let times = Timestamps {
                    last_access: Timespec {
                        tv_sec: 0,
                        tv_nsec: UTIME_OMIT,
                    },
                    last_modification: Timespec {
                        tv_sec: tree::MTIME,
                        tv_nsec: 0,
                    },
                };
                rustix::fs::utimensat(CWD, &place, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(Error::system("set the time of", &place))
            }
            other => other.map_err(Error::system("move", from)),
        }
    }

    /// Makes the entries of the store directory durable.
    pub fn sync_directory(&self) -> Result<(), Error> {
        Ok(tree::sync_directory(&self.dir.store())?)
    }
}

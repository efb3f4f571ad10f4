//! File trees as store objects: archived, restored, made canonical, removed, made durable.
//!
//! A tree may come from a hostile builder. Everything here walks with `*at` calls from an open
//! directory and never follows a link, so that what is read or changed lies inside the tree; and
//! nothing recurses deeper than the tree formats allow, or in [`remove()`] without a bound.

mod canonicalise;
mod dump;
mod remove;
mod restore;
mod sync;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

pub use canonicalise::{InodesSeen, canonicalise};
pub use dump::{dump, examine, hash};
pub use remove::{remove, remove_contents};
pub use restore::{Restored, restore};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
pub use sync::{sync, sync_directory, sync_file_system};

use crate::nix::nar;

/// The modification time of everything in a store: one second after the epoch.
pub const MTIME: i64 = 1;

/// Why a tree could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {what} `{path}`")]
    System {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// A device, socket, or pipe.
    #[error("file `{path}` has an unsupported type")]
    Type {
        /// The file.
        path: PathBuf,
    },
    /// A file that the builder did not make.
    #[error("invalid ownership on file `{path}`: uid {found}, not {expected}")]
    Ownership {
        /// The file.
        path: PathBuf,
        /// Its owner.
        found: u32,
        /// Who should own it.
        expected: u32,
    },
    /// Directories nested deeper than an archive may hold.
    #[error("directory `{path}` is nested deeper than {limit}")]
    Depth {
        /// The directory.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// The archive of the tree could not be made or read.
    #[error("archive of `{path}` failed")]
    Archive {
        /// The tree.
        path: PathBuf,
        /// Why.
        #[source]
        source: nar::Error,
    },
}

impl Error {
    fn system(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> Self {
        move |source| Self::System {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// One file in an open directory, with its whole path for messages only.
struct Place<'a> {
    parent: &'a OwnedFd,
    name: CString,
    path: PathBuf,
}

impl<'a> Place<'a> {
    fn new(parent: &'a OwnedFd, name: impl Into<Vec<u8>>, folder: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let name = CString::new(name).expect("a file name holds no NUL");
        let path = folder.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        Self { parent, name, path }
    }

    fn stat(&self) -> Result<Stat, Error> {
        rustix::fs::statat(self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::system("look at", &self.path))
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(self.parent, &self.name, flags, Mode::empty())
    }

    /// Opens a file or directory, after giving its owner access if that is what is missing.
    fn open_forced(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.open(flags) {
            Err(Errno::ACCESS) => {
                self.set_mode(0o700)?;
                self.open(flags)
            }
            other => other,
        }
    }

    /// Changes the mode of what is known to be no link, through a descriptor that needs no access.
    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let handle = self.open(OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        rustix::fs::chmod(path, Mode::from_raw_mode(mode))
    }

    /// Names a path for calls that know neither descriptors nor `NOFOLLOW` for links.
    fn through_proc(&self) -> Result<CString, Errno> {
        let mut path = format!("/proc/self/fd/{}/", self.parent.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.name.as_bytes());
        CString::new(path).map_err(|_| Errno::INVAL)
    }
}

/// Opens the directory that holds `path`, and names `path` in it.
fn open_parent(path: &Path) -> Result<(OwnedFd, Vec<u8>), Error> {
    use std::os::unix::ffi::OsStrExt;
    let fail = Error::system("open", path);
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Err(fail(Errno::INVAL));
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    // The way to a tree is the caller's, not the tree's: links in it are followed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(CWD, parent, flags, Mode::empty())
        .map_err(Error::system("open", parent))?;
    Ok((handle, name.as_bytes().to_vec()))
}

/// Lists a directory's names in byte order.
fn names(directory: &OwnedFd, path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(Error::system("list", path))? {
        let entry = entry.map_err(Error::system("list", path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

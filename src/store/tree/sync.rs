//! Registered implies durable: a tree reaches the disk before its registration does.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use super::{DIRECTORY, Error, Place, file_type, names, open_parent};

/// Beyond so many files one call for the whole file system is cheaper.
const FEW: usize = 64;

/// Makes the files and directories of the tree at `path` durable; its entry in its parent is made
/// so by [`sync_directory`].
pub fn sync(path: &Path) -> Result<(), Error> {
    let (parent, name) = open_parent(path)?;
    let mut handles = Vec::new();
    let place = Place::new(&parent, name, path.parent().unwrap_or(path));
    if !collect(&place, &mut handles)? {
        return sync_file_system(path.parent().unwrap_or(path));
    }
    for handle in handles {
        rustix::fs::fsync(handle).map_err(Error::system("sync", path))?;
    }
    Ok(())
}

/// Makes the entries of a directory durable.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    let handle =
        rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(Error::system("open", path))?;
    rustix::fs::fsync(handle).map_err(Error::system("sync", path))
}

/// Makes everything on the file system of `path` durable.
pub fn sync_file_system(path: &Path) -> Result<(), Error> {
    let handle =
        rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(Error::system("open", path))?;
    rustix::fs::syncfs(handle).map_err(Error::system("sync", path))
}

/// Opens every file and directory, as long as they are few; says whether they are.
fn collect(place: &Place<'_>, handles: &mut Vec<OwnedFd>) -> Result<bool, Error> {
    let flags = match file_type(&place.stat()?) {
        FileType::Directory => DIRECTORY,
        FileType::RegularFile => {
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK
        }
        _ => return Ok(true),
    };
    if handles.len() >= FEW {
        return Ok(false);
    }
    let handle = place
        .open(flags)
        .map_err(Error::system("open", &place.path))?;
    let children = if flags == DIRECTORY {
        names(&handle, &place.path)?
    } else {
        Vec::new()
    };
    for name in children {
        if !collect(&Place::new(&handle, name, &place.path), handles)? {
            return Ok(false);
        }
    }
    handles.push(handle);
    Ok(true)
}

//! Removing what a dead or failed build left, however it made it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::{DIRECTORY, Error, Place, file_type, names, open_parent};

/// Deeper directories are first moved up: open descriptors are few, a hostile tree is deep.
const DEPTH: usize = 200;

/// Removes the tree at `path`, if there is one. Links are removed, not followed; directories whose
/// owner may not enter them are made accessible first.
pub fn remove(path: &Path) -> Result<(), Error> {
    let (parent, name) = match open_parent(path) {
        Err(Error::System {
            source: Errno::NOENT,
            ..
        }) => return Ok(()),
        other => other?,
    };
    let place = Place::new(&parent, name, path.parent().unwrap_or(path));
    let stat = match rustix::fs::statat(&parent, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(Error::system("look at", path))?,
    };
    if file_type(&stat) != FileType::Directory {
        return unlink(&place, AtFlags::empty());
    }
    empty(&place, &BTreeSet::new())?;
    unlink(&place, AtFlags::REMOVEDIR)
}

/// Removes everything in the directory `path` but what has one of these names. The directory itself
/// stays.
pub fn remove_contents(path: &Path, kept: &BTreeSet<String>) -> Result<(), Error> {
    let (parent, name) = open_parent(path)?;
    let place = Place::new(&parent, name, path.parent().unwrap_or(path));
    empty(&place, kept)
}

fn unlink(place: &Place<'_>, flags: AtFlags) -> Result<(), Error> {
    match rustix::fs::unlinkat(place.parent, &place.name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(source) => Err(Error::System {
            what: "remove",
            path: place.path.clone(),
            source,
        }),
    }
}

/// Opens a directory so that its entries can be removed.
fn open(place: &Place<'_>) -> Result<OwnedFd, Error> {
    let handle = place
        .open_forced(DIRECTORY)
        .map_err(Error::system("open", &place.path))?;
    let stat = rustix::fs::fstat(&handle).map_err(Error::system("look at", &place.path))?;
    if stat.st_mode & 0o700 != 0o700 {
        rustix::fs::fchmod(&handle, Mode::from_raw_mode(0o700))
            .map_err(Error::system("change the mode of", &place.path))?;
    }
    Ok(handle)
}

fn empty(place: &Place<'_>, kept: &BTreeSet<String>) -> Result<(), Error> {
    let mut sweep = Sweep {
        top: open(place)?,
        moved: 0,
    };
    // What was moved up in one round is removed in the next.
    loop {
        let mut names = names(&sweep.top, &place.path)?;
        names.retain(|name| !str::from_utf8(name).is_ok_and(|name| kept.contains(name)));
        if names.is_empty() {
            return Ok(());
        }
        let top = sweep.top.try_clone().map_err(|_| Error::System {
            what: "open",
            path: place.path.clone(),
            source: Errno::MFILE,
        })?;
        for name in names {
            sweep.node(&Place::new(&top, name, &place.path), 0)?;
        }
    }
}

struct Sweep {
    top: OwnedFd,
    moved: u64,
}

impl Sweep {
    fn node(&mut self, place: &Place<'_>, depth: usize) -> Result<(), Error> {
        match rustix::fs::unlinkat(place.parent, &place.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(source) => {
                return Err(Error::System {
                    what: "remove",
                    path: place.path.clone(),
                    source,
                });
            }
        }
        if depth >= DEPTH {
            return self.move_up(place);
        }
        let handle = open(place)?;
        for name in names(&handle, &place.path)? {
            self.node(&Place::new(&handle, name, &place.path), depth + 1)?;
        }
        unlink(place, AtFlags::REMOVEDIR)
    }

    fn move_up(&mut self, place: &Place<'_>) -> Result<(), Error> {
        // A directory's own parent entry changes when it moves: it must be writable.
        drop(open(place)?);
        loop {
            let name = format!(".deep-{}", self.moved);
            self.moved += 1;
            match rustix::fs::renameat_with(
                place.parent,
                &place.name,
                &self.top,
                &name,
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                Err(Errno::EXIST) => {}
                other => return other.map_err(Error::system("move", &place.path)),
            }
        }
    }
}

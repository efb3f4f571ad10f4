//! What a builder made becomes what a store holds (Nix spec §5.3).

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::restore::timestamps;
use super::{DIRECTORY, Error, MTIME, Place, file_type, names, open_parent};
use crate::nix::nar::MAX_DEPTH_WRITE;

/// Extended attributes that stay: the system's own, as in Nix's setting `ignored-acls`.
const KEPT: [&[u8]; 3] = [b"security.selinux", b"system.nfs4_acl", b"security.csm"];

/// The files made canonical so far in one build, by device and inode: hard links between them,
/// also across outputs, are fine.
#[derive(Debug, Default)]
pub struct InodesSeen(HashSet<(u64, u64)>);

/// Makes the tree at `path` canonical: mode 0444 or 0555, modification time 1, this process's owner
/// and group, no extended attributes.
///
/// With `builder`, everything must belong to that uid; a file that does not was linked into the
/// tree from elsewhere, and changing it would change somebody else's file.
///
/// A directory always becomes 0555, as newer Nix has it: 2.8 makes one without the owner's
/// execute bit 0444, which nobody can use.
pub fn canonicalise(path: &Path, builder: Option<u32>, seen: &mut InodesSeen) -> Result<(), Error> {
    let (parent, name) = open_parent(path)?;
    let place = Place::new(&parent, name, path.parent().unwrap_or(path));
    Walk {
        builder,
        seen,
        uid: rustix::process::geteuid(),
        gid: rustix::process::getegid(),
    }
    .node(&place, 0)
}

struct Walk<'a> {
    builder: Option<u32>,
    seen: &'a mut InodesSeen,
    uid: Uid,
    gid: Gid,
}

impl Walk<'_> {
    fn node(&mut self, place: &Place<'_>, depth: usize) -> Result<(), Error> {
        let stat = place.stat()?;
        let kind = file_type(&stat);
        if !matches!(
            kind,
            FileType::RegularFile | FileType::Directory | FileType::Symlink
        ) {
            return Err(Error::Type {
                path: place.path.clone(),
            });
        }
        if !self.is_ours(&stat, place)? {
            return Ok(());
        }
        self.seen.0.insert((stat.st_dev, stat.st_ino));
        match kind {
            FileType::Symlink => self.link(&stat, place),
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let handle = place
                    .open_forced(flags)
                    .map_err(Error::system("open", &place.path))?;
                let mode = if stat.st_mode & 0o100 != 0 {
                    0o555
                } else {
                    0o444
                };
                self.settle(&handle, &stat, mode, place)
            }
            _ => self.directory(&stat, place, depth),
        }
    }

    /// Whether the file must be made canonical: not if it is a link to one that already is.
    fn is_ours(&self, stat: &Stat, place: &Place<'_>) -> Result<bool, Error> {
        let Some(builder) = self.builder.filter(|builder| *builder != stat.st_uid) else {
            return Ok(true);
        };
        let known = self.seen.0.contains(&(stat.st_dev, stat.st_ino));
        if file_type(stat) != FileType::Directory && known && stat.st_uid == self.uid.as_raw() {
            return Ok(false);
        }
        Err(Error::Ownership {
            path: place.path.clone(),
            found: stat.st_uid,
            expected: builder,
        })
    }

    fn directory(&mut self, stat: &Stat, place: &Place<'_>, depth: usize) -> Result<(), Error> {
        if depth >= MAX_DEPTH_WRITE {
            return Err(Error::Depth {
                path: place.path.clone(),
                limit: MAX_DEPTH_WRITE,
            });
        }
        let handle = place
            .open_forced(DIRECTORY)
            .map_err(Error::system("open", &place.path))?;
        self.settle(&handle, stat, 0o555, place)?;
        for name in names(&handle, &place.path)? {
            self.node(&Place::new(&handle, name, &place.path), depth + 1)?;
        }
        Ok(())
    }

    fn settle(
        &self,
        handle: &OwnedFd,
        stat: &Stat,
        mode: u32,
        place: &Place<'_>,
    ) -> Result<(), Error> {
        remove_attributes(
            |list| rustix::fs::flistxattr(handle, list),
            |name| rustix::fs::fremovexattr(handle, name),
        )
        .map_err(Error::system("remove attributes of", &place.path))?;
        if self.must_change_owner(stat) {
            rustix::fs::fchown(handle, Some(self.uid), Some(self.gid))
                .map_err(Error::system("change the owner of", &place.path))?;
        }
        if stat.st_mode & 0o7777 != mode || self.must_change_owner(stat) {
            rustix::fs::fchmod(handle, Mode::from_raw_mode(mode))
                .map_err(Error::system("change the mode of", &place.path))?;
        }
        if must_change_time(stat) {
            rustix::fs::futimens(handle, &timestamps())
                .map_err(Error::system("set the time of", &place.path))?;
        }
        Ok(())
    }

    fn link(&self, stat: &Stat, place: &Place<'_>) -> Result<(), Error> {
        if let Ok(path) = place.through_proc() {
            remove_attributes(
                |list| rustix::fs::llistxattr(&path, list),
                |name| rustix::fs::lremovexattr(&path, name),
            )
            .map_err(Error::system("remove attributes of", &place.path))?;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.must_change_owner(stat) {
            rustix::fs::chownat(
                place.parent,
                &place.name,
                Some(self.uid),
                Some(self.gid),
                flags,
            )
            .map_err(Error::system("change the owner of", &place.path))?;
        }
        if must_change_time(stat) {
            rustix::fs::utimensat(place.parent, &place.name, &timestamps(), flags)
                .map_err(Error::system("set the time of", &place.path))?;
        }
        Ok(())
    }

    fn must_change_owner(&self, stat: &Stat) -> bool {
        stat.st_uid != self.uid.as_raw() || stat.st_gid != self.gid.as_raw()
    }
}

fn must_change_time(stat: &Stat) -> bool {
    stat.st_mtime != MTIME || stat.st_mtime_nsec != 0
}

/// Removes every attribute not kept. A file system or object that has none is fine.
fn remove_attributes(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    remove: impl Fn(&str) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut names = Vec::new();
    loop {
        let size = match list(&mut []) {
            Ok(0) | Err(Errno::NOTSUP | Errno::NODATA | Errno::NOENT | Errno::ACCESS) => {
                return Ok(());
            }
            other => other?,
        };
        names.resize(size, 0);
        match list(&mut names) {
            Ok(size) => break names.truncate(size),
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if KEPT.contains(&name) {
            continue;
        }
        match remove(std::str::from_utf8(name).map_err(|_| Errno::ILSEQ)?) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

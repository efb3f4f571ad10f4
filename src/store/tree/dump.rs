//! A tree becomes an archive.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use super::{DIRECTORY, Error, Place, file_type, names, open_parent};
use crate::nix::StorePath;
use crate::nix::nar::{self, Writer};
use crate::nix::refscan::{Examined, Examiner};

/// Writes the archive of the tree at `path`.
pub fn dump(path: &Path, out: impl Write) -> Result<(), Error> {
    let (parent, name) = open_parent(path)?;
    let place = Place::new(&parent, name, path.parent().unwrap_or(path));
    let archive = |source| Error::Archive {
        path: path.to_owned(),
        source,
    };
    let mut writer = Writer::new(BufWriter::with_capacity(64 * 1024, out)).map_err(archive)?;
    node(&mut writer, &place)?;
    writer
        .finish()
        .flush()
        .map_err(|source| archive(nar::Error::Write { offset: 0, source }))
}

/// Hashes, measures and scans the archive of the tree at `path` in one pass (Nix spec §5.4).
pub fn examine<'a>(
    path: &Path,
    candidates: impl IntoIterator<Item = &'a StorePath>,
) -> Result<Examined, Error> {
    let mut examiner = Examiner::new(candidates);
    dump(path, &mut examiner)?;
    Ok(examiner.finish())
}

/// Returns SHA-256 and length of the archive of the tree at `path`.
pub fn hash(path: &Path) -> Result<([u8; 32], u64), Error> {
    examine(path, []).map(|examined| (examined.nar_hash, examined.nar_size))
}

fn node(writer: &mut Writer<impl Write>, place: &Place<'_>) -> Result<(), Error> {
    let archive = |source| Error::Archive {
        path: place.path.clone(),
        source,
    };
    match file_type(&place.stat()?) {
        FileType::RegularFile => regular(writer, place),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(place.parent, &place.name, Vec::new())
                .map_err(Error::system("read the link", &place.path))?;
            writer.symlink(target.as_bytes()).map_err(archive)
        }
        FileType::Directory => {
            let handle = place
                .open(DIRECTORY)
                .map_err(Error::system("open", &place.path))?;
            writer.directory().map_err(archive)?;
            children(writer, &handle, &place.path)?;
            writer.end_directory().map_err(archive)
        }
        _ => Err(Error::Type {
            path: place.path.clone(),
        }),
    }
}

fn children(writer: &mut Writer<impl Write>, handle: &OwnedFd, path: &Path) -> Result<(), Error> {
    for name in names(handle, path)? {
        writer.entry(&name).map_err(|source| Error::Archive {
            path: path.to_owned(),
            source,
        })?;
        node(writer, &Place::new(handle, name, path))?;
    }
    Ok(())
}

fn regular(writer: &mut Writer<impl Write>, place: &Place<'_>) -> Result<(), Error> {
    // Nonblocking: should a pipe have taken the file's place, opening it must not wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let handle = place
        .open(flags)
        .map_err(Error::system("open", &place.path))?;
    let stat = rustix::fs::fstat(&handle).map_err(Error::system("look at", &place.path))?;
    if file_type(&stat) != FileType::RegularFile {
        return Err(Error::Type {
            path: place.path.clone(),
        });
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    writer
        .regular(stat.st_mode & 0o100 != 0, size, &mut File::from(handle))
        .map_err(|source| Error::Archive {
            path: place.path.clone(),
            source,
        })
}

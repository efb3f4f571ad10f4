//! An archive becomes a tree, canonical from the start (Nix spec §5.3).

use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{DIRECTORY, Error, MTIME, Place, open_parent};
use crate::nix::nar::{self, Event, Reader};

/// How much is read at a time. What a file takes is read past the reader's buffer.
const CHUNK: usize = 64 * 1024;

/// What a restored archive was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// SHA-256 of the archive.
    pub nar_hash: [u8; 32],
    /// Its length.
    pub nar_size: u64,
}

/// Restores an archive to `destination`, which must not exist.
///
/// Reads exactly the archive's bytes only if `source` is read to its end: it is buffered. On an
/// error, what was made so far is left for the caller to remove.
pub fn restore(source: impl Read, destination: &Path) -> Result<Restored, Error> {
    let (parent, name) = open_parent(destination)?;
    let place = Place::new(&parent, name, destination.parent().unwrap_or(destination));
    let hashing = Hashing {
        input: source,
        hash: Sha256::new(),
        size: 0,
    };
    let archive = |source| Error::Archive {
        path: destination.to_owned(),
        source,
    };
    let mut reader = Reader::new(BufReader::with_capacity(CHUNK, hashing));
    let event = next(&mut reader, destination)?;
    node(&mut reader, event, &place)?;
    reader.expect_end().map_err(archive)?;
    let hashing = reader.into_inner().into_inner();
    Ok(Restored {
        nar_hash: hashing.hash.finalize().into(),
        nar_size: hashing.size,
    })
}

struct Hashing<R> {
    input: R,
    hash: Sha256,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.hash.update(&buffer[..got]);
        self.size += got as u64;
        Ok(got)
    }
}

fn next(reader: &mut Reader<impl Read>, path: &Path) -> Result<Event, Error> {
    let event = reader.next_event().map_err(|source| Error::Archive {
        path: path.to_owned(),
        source,
    })?;
    Ok(event.expect("an archive's nodes come before its end"))
}

fn node(reader: &mut Reader<impl Read>, event: Event, place: &Place<'_>) -> Result<(), Error> {
    match event {
        Event::Regular { executable, .. } => regular(reader, executable, place),
        Event::Symlink { target } => {
            rustix::fs::symlinkat(target.as_slice(), place.parent, &place.name)
                .map_err(Error::system("create the link", &place.path))?;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(place.parent, &place.name, &timestamps(), flags)
                .map_err(Error::system("set the time of", &place.path))
        }
        Event::Directory => directory(reader, place),
        Event::Entry { .. } | Event::EndDirectory => {
            unreachable!("the reader gives a node after each name")
        }
    }
}

fn directory(reader: &mut Reader<impl Read>, place: &Place<'_>) -> Result<(), Error> {
    let mode = Mode::from_raw_mode(0o700);
    rustix::fs::mkdirat(place.parent, &place.name, mode)
        .map_err(Error::system("create", &place.path))?;
    let handle = place
        .open(DIRECTORY)
        .map_err(Error::system("open", &place.path))?;
    while let Event::Entry { name } = next(reader, &place.path)? {
        let child = Place::new(&handle, name, &place.path);
        let event = next(reader, &child.path)?;
        node(reader, event, &child)?;
    }
    seal(&handle, 0o555).map_err(Error::system("set the metadata of", &place.path))
}

fn regular(
    reader: &mut Reader<impl Read>,
    executable: bool,
    place: &Place<'_>,
) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let handle = rustix::fs::openat(place.parent, &place.name, flags, mode)
        .map_err(Error::system("create", &place.path))?;
    let mut buffer = [0; CHUNK];
    loop {
        let got = reader
            .read_contents(&mut buffer)
            .map_err(|source| Error::Archive {
                path: place.path.clone(),
                source,
            })?;
        if got == 0 {
            break;
        }
        write_all(&handle, &buffer[..got]).map_err(|source| Error::Archive {
            path: place.path.clone(),
            source: nar::Error::Write {
                offset: reader.offset(),
                source: source.into(),
            },
        })?;
    }
    let mode = if executable { 0o555 } else { 0o444 };
    seal(&handle, mode).map_err(Error::system("set the metadata of", &place.path))
}

fn write_all(handle: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(handle, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(done) => bytes = &bytes[done..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives what was just made its final mode and time. Its owner is this process already.
fn seal(handle: &OwnedFd, mode: u32) -> Result<(), Errno> {
    rustix::fs::fchmod(handle, Mode::from_raw_mode(mode))?;
    rustix::fs::futimens(handle, &timestamps())
}

/// The times of everything in a store: the access time stays.
pub(super) fn timestamps() -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: MTIME,
            tv_nsec: 0,
        },
    }
}

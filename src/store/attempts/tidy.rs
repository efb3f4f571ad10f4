//! Old records go, and what was left of writing them.

use std::cmp::Reverse;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::builds::BUILDS;
use super::{EFFECT, Kind, NEW, Record, Standing, ends_with, paths, place, singles};
use crate::store::locks::try_flock;
use crate::store::{Error, NixDir};

/// How many finished records are kept of those that have a file of their own: effects, and the builds of
/// older versions.
pub const KEPT: usize = 1000;
/// How many bytes on the disk are kept of builds' records, and what is in the file that goes beyond: the
/// newest ten thousand builds of agents that make many, or a thousand of agents that make one each.
pub const KEPT_BUILDS: u64 = 4 << 20;
/// What a file takes on the disk is a multiple of this.
const BLOCK: u64 = 4096;
/// Longer than any of them is written.
const UNFINISHED: Duration = Duration::from_hours(1);

/// Prunes when there is much to prune: reading every record takes time, which no run should take.
pub fn tidy(dir: &NixDir) -> Result<(), Error> {
    let paths = paths(&dir.attempts())?;
    let singles = paths.iter().filter(|path| ends_with(path, EFFECT));
    if singles.count() > KEPT + KEPT / 4 {
        prune(dir)?;
    }
    prune_builds(&paths)?;
    sweep(&paths)
}

/// Removes old records, all but the newest [`KEPT`] of those that have a file of their own and that
/// nobody needs any more: of attempts that ended, and of builds that died. What is running stays, and
/// every effect of which nobody knows how far it came, until somebody was told.
pub fn prune(dir: &NixDir) -> Result<(), Error> {
    let done = |record: &Record| match record.attempt.kind {
        _ if record.standing == Standing::Running => false,
        Kind::Build => true,
        Kind::Effect => !record.is_unsettled(),
    };
    let folder = dir.attempts();
    for old in singles(dir)?.iter().filter(|one| done(one)).skip(KEPT) {
        remove(&place(&folder, &old.attempt.id)?)?;
    }
    Ok(())
}

/// Removes old records of builds, whole files, all but the newest [`KEPT_BUILDS`], and those of agents
/// that live.
fn prune_builds(paths: &[PathBuf]) -> Result<(), Error> {
    let mut kept = 0;
    for sheet in sheets(paths)? {
        if kept < KEPT_BUILDS {
            kept += sheet.bytes;
        } else if is_over(&sheet.path)? {
            remove(&sheet.path)?;
        }
    }
    Ok(())
}

/// A file of builds.
struct Sheet {
    path: PathBuf,
    /// How many it takes on the disk.
    bytes: u64,
    /// When something was written last.
    written: SystemTime,
}

/// The files of builds, the newest first.
fn sheets(paths: &[PathBuf]) -> Result<Vec<Sheet>, Error> {
    let mut sheets = Vec::new();
    for path in paths.iter().filter(|path| ends_with(path, BUILDS)) {
        // Another process may remove it now. What is no file is not ours.
        if let Ok(metadata) = fs_err::symlink_metadata(path)
            && metadata.is_file()
        {
            sheets.push(Sheet {
                path: path.clone(),
                bytes: metadata.len().next_multiple_of(BLOCK),
                written: metadata.modified()?,
            });
        }
    }
    sheets.sort_by_key(|sheet| Reverse(sheet.written));
    Ok(sheets)
}

/// Whether the agent of a file is gone.
fn is_over(path: &Path) -> Result<bool, Error> {
    match fs_err::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        file => try_flock(&file?, FlockOperation::NonBlockingLockShared),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Removes what processes left that were killed while they wrote.
fn sweep(paths: &[PathBuf]) -> Result<(), Error> {
    let is_old = |meta: &Metadata| {
        let age = meta.modified().ok().and_then(|then| then.elapsed().ok());
        age.is_some_and(|age| age > UNFINISHED)
    };
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(NEW.as_bytes())
            && fs_err::symlink_metadata(path).is_ok_and(|meta| is_old(&meta))
        {
            remove(path)?;
        }
    }
    Ok(())
}

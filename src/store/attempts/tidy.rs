//! Old records go, and what was left of writing them.

use std::cmp::Reverse;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::builds::BUILDS;
use super::{EFFECT, Kind, NEW, Record, Standing, files, place, singles};
use crate::store::locks::try_flock;
use crate::store::{Error, NixDir};

/// How many finished records of effects are kept.
pub const KEPT: usize = 1000;
/// How many bytes on the disk are kept of builds' records: the newest ten thousand builds of agents
/// that make many, or a thousand of agents that make one each.
pub const KEPT_BUILDS: u64 = 4 << 20;
/// What a file takes on the disk is a multiple of this.
const BLOCK: u64 = 4096;
/// Longer than any of them is written.
const UNFINISHED: Duration = Duration::from_hours(1);

/// Prunes when there is much to prune: reading every record takes time, which no run should take.
pub fn tidy(dir: &NixDir) -> Result<(), Error> {
    let folder = dir.attempts();
    if files(&folder, EFFECT)?.len() > KEPT + KEPT / 4
        || sheets(&folder)?
            .iter()
            .map(|sheet| sheet.bytes)
            .sum::<u64>()
            > KEPT_BUILDS / 4 * 5
    {
        prune(dir)?;
        sweep(&folder)?;
    }
    Ok(())
}

/// Removes old records, all but the newest [`KEPT`] and [`KEPT_BUILDS`] of those that nobody needs
/// any more: of attempts that ended, and of builds that died. What is running stays, and every
/// effect of which nobody knows how far it came, until somebody was told.
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
    let mut kept = 0;
    for sheet in sheets(&folder)? {
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
fn sheets(folder: &Path) -> Result<Vec<Sheet>, Error> {
    let mut sheets = Vec::new();
    for path in files(folder, BUILDS)? {
        // Another process may remove it now.
        if let Ok(metadata) = fs_err::symlink_metadata(&path) {
            sheets.push(Sheet {
                path,
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
fn sweep(folder: &Path) -> Result<(), Error> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let is_old = |meta: &Metadata| {
            let age = meta.modified().ok().and_then(|then| then.elapsed().ok());
            age.is_some_and(|age| age > UNFINISHED)
        };
        let is_unfinished = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(NEW.as_bytes());
        if is_unfinished && entry.metadata().is_ok_and(|meta| is_old(&meta)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

//! Whether another program holds the whole store: then everybody who opens it waits, in silence.
//!
//! | lock | is held by |
//! |---|---|
//! | `gc.lock` | a collector at work |
//! | `db/big-lock` | a Nix that brings the store to another schema |
//! | `db/db.sqlite` | whoever writes to the database |
//!
//! The answer is as old as the question: a lock may be taken right after it. What cannot be looked
//! at is left to those who open the store, and say what is the matter.

use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::locks::try_flock;
use super::{NixDir, database};

/// Finds a lock that bars the way into the store below a directory.
pub fn barred_by(dir: &NixDir) -> Option<PathBuf> {
    let mut files = [dir.gc_lock(), dir.db().join("big-lock")].into_iter();
    files
        .find(|file| is_locked(file))
        .or_else(|| database::being_written(dir))
}

fn is_locked(file: &Path) -> bool {
    fs_err::File::open(file).is_ok_and(|file| {
        let free = try_flock(&file, FlockOperation::NonBlockingLockShared);
        free.is_ok_and(|free| !free)
    })
}

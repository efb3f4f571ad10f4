//! What a run needs, held by links that Nix's collector respects too (Nix spec §10.1).
//!
//! Links lie in `gcroots/pontoon/<run>/`. A run holds a lock on `pontoon/runs/<run>.lock`: links of
//! a run whose lock is free are a dead one's, and go when the next run begins.
//!
//! A link is a name, which says it all: that of the path. All are names of one empty file, for a new
//! file takes much longer than another name, and there may be ten thousand.
//!
//! While the run's agent lives its temp roots hold the same paths and more. Links hold what was asked
//! for between an agent that was killed and the next one of the run.

use std::io::ErrorKind;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::locks::{is_current, open_lock, try_flock};
use super::{Error, NixDir, tree};
use crate::nix::StorePath;

/// The links of one run; dropped, they are removed.
#[derive(Debug)]
pub struct Roots {
    folder: PathBuf,
    /// The newest file that has names.
    file: Option<PathBuf>,
    lock: fs_err::File,
}

impl Roots {
    /// Makes the place for a run's links, and removes those of dead runs.
    ///
    /// # Errors
    /// A run of this name that lives, as [`Error::Cancelled`]: names are for one run each.
    pub fn open(dir: &NixDir, run: &str) -> Result<Self, Error> {
        check_name("run", run)?;
        sweep(dir, run)?;
        let place = dir.runs().join(format!("{run}.lock"));
        let lock = loop {
            let lock = open_lock(&place)?;
            if !try_flock(&lock, FlockOperation::NonBlockingLockExclusive)? {
                return Err(Error::Cancelled { path: place });
            }
            if is_current(&lock)? {
                break lock;
            }
        };
        let folder = dir.gcroots().join("pontoon").join(run);
        fs_err::create_dir_all(&folder)?;
        let file = None;
        Ok(Self { folder, file, lock })
    }

    /// Links these paths. A link to a path that is not valid yet protects it from then on.
    pub fn link<'a>(
        &mut self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<(), Error> {
        for path in paths {
            self.name(self.folder.join(path.to_basename()))?;
        }
        Ok(())
    }

    fn name(&mut self, place: PathBuf) -> Result<(), Error> {
        // A file may have all the names it can have, and some file systems give it no second one.
        if let Some(file) = &self.file
            && matches!(rustix::fs::link(file, &place), Ok(()) | Err(Errno::EXIST))
        {
            return Ok(());
        }
        match fs_err::File::create_new(&place) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => drop(other?),
        }
        self.file = Some(place);
        Ok(())
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        // What stays is swept when the next run begins.
        let _ = tree::remove(&self.folder);
        let _ = fs_err::remove_file(self.lock.path());
    }
}

/// Refuses a name that is no plain file name.
pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    let plain = !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
    if plain {
        Ok(())
    } else {
        Err(Error::Name {
            what,
            name: name.to_owned(),
        })
    }
}

fn sweep(dir: &NixDir, own: &str) -> Result<(), Error> {
    let folder = dir.gcroots().join("pontoon");
    let entries = match fs_err::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(fs_err::create_dir_all(&folder)?);
        }
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(run) = name
            .to_str()
            .filter(|run| check_name("run", run).is_ok() && *run != own)
        else {
            continue;
        };
        let lock = open_lock(&dir.runs().join(format!("{run}.lock")))?;
        if try_flock(&lock, FlockOperation::NonBlockingLockExclusive)? && is_current(&lock)? {
            tree::remove(&entry.path())?;
            fs_err::remove_file(lock.path())?;
        }
    }
    Ok(())
}

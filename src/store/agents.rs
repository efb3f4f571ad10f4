//! Agents that were delivered into the store: `pontoon/agent/ID`, one for each version of pontoon.
//!
//! A run holds the agent that its ops start from by a shared lock, and dates it anew. One that nobody
//! holds and nobody has used for a week is removed. A run that begins in just that moment finds that
//! the file it runs from has no name any more ([`Held::Gone`]); it is delivered again then.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::locks::{flock, is_current, try_flock};
use super::{Error, NixDir};

/// How long nobody has used an agent that is removed.
const UNUSED: Duration = Duration::from_hours(7 * 24);
/// Longer than any delivery takes.
const UNFINISHED: Duration = Duration::from_hours(1);

/// An agent that is not removed, as long as this lives.
#[derive(Debug)]
pub struct AgentLease {
    _file: fs_err::File,
}

/// What came of holding an agent.
#[derive(Debug)]
pub enum Held {
    /// It stays.
    Yes(AgentLease),
    /// It has been removed.
    Gone,
}

/// Holds the agent that a process runs from, by any path of that file.
pub fn hold(dir: &NixDir, program: &Path) -> Result<Held, Error> {
    let file = fs_err::File::open(program)?;
    flock(&file, FlockOperation::LockShared)?;
    let metadata = file.metadata()?;
    if metadata.nlink() == 0 {
        return Ok(Held::Gone);
    }
    for place in all(dir)? {
        let is_it = |there: std::fs::Metadata| there.ino() == metadata.ino();
        if place.symlink_metadata().is_ok_and(is_it) {
            // Only here may it be written to.
            let named = fs_err::File::open(&place)?;
            named.set_modified(SystemTime::now())?;
        }
    }
    Ok(Held::Yes(AgentLease { _file: file }))
}

/// Removes agents that nobody uses any more, and what deliveries left that were killed; returns how
/// many.
pub fn tidy(dir: &NixDir) -> Result<usize, Error> {
    let mut removed = 0;
    for place in all(dir)? {
        if is_old(&place) && remove(&place)? {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes one, unless somebody holds it, or has just used it.
fn remove(place: &Path) -> Result<bool, Error> {
    let file = match fs_err::File::open(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let is_free = try_flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    if !is_free || !is_current(&file)? || !is_old(place) {
        return Ok(false);
    }
    fs_err::remove_file(place)?;
    Ok(true)
}

fn is_old(place: &Path) -> bool {
    let is_unfinished = place
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let limit = if is_unfinished { UNFINISHED } else { UNUSED };
    let used = place.symlink_metadata().and_then(|meta| meta.modified());
    let age = used.ok().and_then(|used| used.elapsed().ok());
    age.is_some_and(|age| age > limit)
}

fn all(dir: &NixDir) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs_err::read_dir(dir.agents()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut places = Vec::new();
    for entry in entries {
        places.push(entry?.path());
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    struct Scene {
        _place: tempfile::TempDir,
        dir: NixDir,
    }

    impl Scene {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let dir = NixDir::new(place.path());
            fs_err::create_dir_all(dir.agents()).unwrap();
            Self { _place: place, dir }
        }

        fn agent(&self, name: &str, age: Duration) -> PathBuf {
            let place = self.dir.agents().join(name);
            let file = fs_err::File::create(&place).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            place
        }
    }

    #[test]
    fn an_agent_goes_that_nobody_has_used_for_a_week() {
        let scene = Scene::new();
        let hour = Duration::from_hours(1);
        let (old, lately) = (UNUSED + hour, UNUSED / 2);
        let gone = [
            scene.agent("old", old),
            scene.agent(".half", 2 * UNFINISHED),
        ];
        let kept = [scene.agent("lately", lately), scene.agent(".new", hour / 2)];
        assert_eq!(tidy(&scene.dir).unwrap(), 2);
        assert!(gone.iter().all(|place| !place.exists()));
        assert!(kept.iter().all(|place| place.exists()));
    }

    #[test]
    fn an_agent_that_is_held_stays_and_is_used_from_then_on() {
        let scene = Scene::new();
        let place = scene.agent("held", 2 * UNUSED);
        let Held::Yes(lease) = hold(&scene.dir, &place).unwrap() else {
            panic!("it is there");
        };
        assert!(!is_old(&place));
        let file = fs_err::File::open(&place).unwrap();
        file.set_modified(SystemTime::now() - 2 * UNUSED).unwrap();
        assert_eq!(tidy(&scene.dir).unwrap(), 0);
        drop(lease);
        assert_eq!(tidy(&scene.dir).unwrap(), 1);
    }

    #[test]
    fn whoever_comes_too_late_is_told_that_it_is_gone() {
        let scene = Scene::new();
        let place = scene.agent("late", 2 * UNUSED);
        let open = fs_err::File::open(&place).unwrap();
        let by_descriptor = format!("/proc/self/fd/{}", open.as_raw_fd());
        assert_eq!(tidy(&scene.dir).unwrap(), 1);
        let held = hold(&scene.dir, Path::new(&by_descriptor)).unwrap();
        assert!(matches!(held, Held::Gone), "{held:?}");
    }
}

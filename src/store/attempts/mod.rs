//! Records of attempts, builds and effects, that outlive the process that made them.
//!
//! A record's first line is written before its attempt starts, its second, the [`End`], is appended
//! when it ends. In between, or longer, the file is locked: a record without an end whose lock is free
//! tells of an attempt that died unseen, and nobody knows how far it came. For an effect that is the
//! one thing that must never be lost. A second line that was cut off by a crash is no end.
//!
//! | line | written by | when |
//! |---|---|---|
//! | [`Attempt`] | the agent that attempts | before anything happens |
//! | [`End`] | the same | when it is over |
//! | [`Seen`] | whoever told a person that nobody knows the outcome | once |
//!
//! Each effect has a file, `ID.json`; the builds of an agent have one together ([`builds`]).

pub mod builds;
mod tidy;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use builds::Builds;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
pub use tidy::{KEPT, KEPT_BUILDS, prune, tidy};

use super::locks::try_flock;
use super::roots::check_name;
use super::{Error, NixDir};

/// The version of the records' form. In the first no effect says whose it is.
pub const VERSION: u32 = 2;
/// What the names of files begin with that are being written.
const NEW: &str = ".new-";
/// What the names of effects' files end with, and of what older versions have of builds.
const EFFECT: &str = "json";

/// What was attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The build of a derivation: can be repeated.
    Build,
    /// An effect: perhaps not.
    Effect,
}

/// Whether a record's beginning must survive a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk before the attempt starts: for effects.
    Synced,
    /// It survives the process only: for builds, which may be repeated.
    Lazy,
}

/// The beginning of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id, a plain file name.
    pub id: String,
    /// The plan's node: a derivation's path or an effect's name.
    pub node: String,
    /// Build or effect.
    pub kind: Kind,
    /// Which pipeline an effect is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The run's id.
    pub run: String,
    /// The process that attempts, in its own namespace.
    pub pid: u32,
    /// When it began, in milliseconds since the epoch.
    pub started: u64,
}

/// What an end means to whoever reads it later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It ended by itself, and well.
    Good,
    /// It ended by itself, or could not begin, and not well. Older records do not tell it apart.
    #[default]
    Bad,
    /// It was told to end.
    Cancelled,
    /// Nothing of it was ever started.
    NotStarted,
    /// It was ended by force together with whoever wanted it: how far it came is not known.
    Killed,
}

/// Who told a person that the outcome of an attempt is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The run that told.
    pub seen_by: String,
    /// When, in milliseconds since the epoch.
    pub seen: u64,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// What it means.
    #[serde(default)]
    pub verdict: Verdict,
    /// What came of it.
    pub outcome: String,
    /// The exit code, where a process ended with one.
    pub exit: Option<i32>,
    /// When it ended, in milliseconds since the epoch.
    pub ended: u64,
}

/// How an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It goes on: its process holds the lock.
    Running,
    /// It ended, and said how.
    Ended(End),
    /// Its process died without a word: what it did is not known.
    Unknown,
}

/// What is known of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its beginning.
    pub attempt: Attempt,
    /// How it stands now.
    pub standing: Standing,
    /// Who told of it, if its outcome is not known.
    pub seen: Option<Seen>,
}

impl Record {
    /// Whether nobody knows how far it came, and nobody was told so.
    pub fn is_unsettled(&self) -> bool {
        let unknown = match &self.standing {
            Standing::Unknown => true,
            Standing::Ended(end) => end.verdict == Verdict::Killed,
            Standing::Running => false,
        };
        unknown && self.seen.is_none()
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    #[serde(flatten)]
    attempt: Attempt,
}

/// An attempt that goes on; an effect's as long as this lives, a build's as long as its agent does.
#[derive(Debug)]
#[must_use = "dropped, the attempt counts as dead, or as running for as long as its agent lives"]
pub struct Running {
    attempt: Attempt,
    /// Locked.
    file: Arc<std::fs::File>,
    place: PathBuf,
}

/// Writes the beginning of an effect's attempt. An old record with this id is replaced.
pub fn begin(dir: &NixDir, attempt: Attempt, durability: Durability) -> Result<Running, Error> {
    let place = place(&dir.attempts(), &attempt.id)?;
    let record = File {
        version: VERSION,
        attempt,
    };
    let file = create(&place, &line(&record, &place)?, durability)?;
    Ok(Running {
        attempt: record.attempt,
        file: Arc::new(file),
        place,
    })
}

/// Makes a file with its first line in it, locked.
fn create(place: &Path, text: &[u8], durability: Durability) -> Result<std::fs::File, Error> {
    let folder = place.parent().expect("it is in the folder of attempts");
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o644))
        .prefix(NEW)
        .append(true)
        .tempfile_in(folder)?;
    rustix::fs::flock(file.as_file(), FlockOperation::LockExclusive)
        .map_err(Error::system("lock", file.path()))?;
    file.write_all(text)?;
    if durability == Durability::Synced {
        file.as_file().sync_all()?;
    }
    let file = file.persist(place).map_err(|error| error.error)?;
    if durability == Durability::Synced {
        fs_err::File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

impl Running {
    /// The beginning.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// Writes the end, durably for an effect.
    pub fn end(self, end: &End) -> Result<(), Error> {
        let text = match self.attempt.kind {
            Kind::Build => builds::end(&self.attempt.id, end, &self.place)?,
            Kind::Effect => line(end, &self.place)?,
        };
        // At once, so that a reader hardly sees a part.
        (&*self.file).write_all(&text)?;
        if self.attempt.kind == Kind::Effect {
            self.file.sync_all()?;
        }
        Ok(())
    }
}

fn line(value: &impl Serialize, place: &Path) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec(value).map_err(|source| Error::Record {
        path: place.to_owned(),
        source,
    })?;
    text.push(b'\n');
    Ok(text)
}

fn place(folder: &Path, id: &str) -> Result<PathBuf, Error> {
    check_name("attempt", id)?;
    Ok(folder.join(format!("{id}.{EFFECT}")))
}

/// Reads the record of an attempt; nothing if there is none.
pub fn read(dir: &NixDir, id: &str) -> Result<Option<Record>, Error> {
    let folder = dir.attempts();
    match read_file(&place(&folder, id)?, first)? {
        None => builds::read(&folder, id),
        record => Ok(record),
    }
}

/// What the lines of a file say of an attempt.
struct Lines {
    attempt: Attempt,
    end: Option<End>,
    seen: Option<Seen>,
}

/// What the lines say of the one attempt they are of.
fn first(text: &str) -> Result<Option<Lines>, serde_json::Error> {
    let mut lines = text.lines();
    let record: File = serde_json::from_str(lines.next().unwrap_or_default())?;
    let (mut end, mut seen) = (None, None);
    for line in lines {
        end = end.or_else(|| serde_json::from_str::<End>(line).ok());
        seen = seen.or_else(|| serde_json::from_str::<Seen>(line).ok());
    }
    Ok(Some(Lines {
        attempt: record.attempt,
        end,
        seen,
    }))
}

/// Reads what a file says of an attempt, and whether that goes on.
fn read_file(
    path: &Path,
    parse: impl Fn(&str) -> Result<Option<Lines>, serde_json::Error>,
) -> Result<Option<Record>, Error> {
    loop {
        let mut file = match fs_err::File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // What was cut off may end within a character.
        let lines = parse(&String::from_utf8_lossy(&bytes)).map_err(|source| Error::Record {
            path: path.to_owned(),
            source,
        })?;
        let Some(lines) = lines else {
            return Ok(None);
        };
        let standing = match lines.end {
            Some(end) => Standing::Ended(end),
            None if !try_flock(&file, FlockOperation::NonBlockingLockShared)? => Standing::Running,
            // It may have ended, or been replaced, between our reading and locking the file.
            None if !super::locks::is_current(&file)?
                || file.metadata()?.len() != bytes.len() as u64 =>
            {
                continue;
            }
            None => Standing::Unknown,
        };
        return Ok(Some(Record {
            attempt: lines.attempt,
            standing,
            seen: lines.seen,
        }));
    }
}

/// Notes that a person was told of an attempt whose outcome is not known.
pub fn mark_seen(dir: &NixDir, id: &str, seen: &Seen) -> Result<(), Error> {
    let place = place(&dir.attempts(), id)?;
    // An end that a crash cut off has no newline.
    let mut text = b"\n".to_vec();
    text.extend(line(seen, &place)?);
    let mut file = fs_err::OpenOptions::new().append(true).open(&place)?;
    file.write_all(&text)?;
    Ok(())
}

/// Reads all records of effects, the newest first. One that cannot be read is passed over: it is no
/// reason not to see the others.
pub fn effects(dir: &NixDir) -> Result<Vec<Record>, Error> {
    let mut records = singles(dir)?;
    records.retain(|record| record.attempt.kind == Kind::Effect);
    Ok(records)
}

/// All that have a file of their own.
fn singles(dir: &NixDir) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    let mut paths = paths(&dir.attempts())?;
    paths.retain(|path| ends_with(path, EFFECT));
    for path in paths {
        records.extend(read_file(&path, first).unwrap_or_default());
    }
    records.sort_by(|a, b| {
        b.attempt
            .started
            .cmp(&a.attempt.started)
            .then_with(|| a.attempt.id.cmp(&b.attempt.id))
    });
    Ok(records)
}

/// What lies in a folder that may be missing.
fn paths(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs_err::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        other => other?,
    };
    let paths: Result<_, std::io::Error> = entries.map(|entry| Ok(entry?.path())).collect();
    Ok(paths?)
}

/// Whether a file's name ends so.
fn ends_with(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|one| one == extension)
}

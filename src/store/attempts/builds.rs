//! The builds of one agent, in one file: `AGENT.jsonl`.
//!
//! A new file may take longer than a small build. So an agent appends to one, which it holds locked
//! for as long as it lives: a build without an end goes on as long as its agent may be at it. An end
//! says whose it is, because the next build may have begun by then. Each line but the first begins with
//! its newline: one that a full disk has cut off spoils no other.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Attempt, Durability, End, File, Lines, Record, Running, VERSION, create, line, read_file,
};
use crate::store::roots::check_name;
use crate::store::{Error, NixDir};

/// What the names of these files end with.
pub(super) const BUILDS: &str = "jsonl";

/// The records of an agent's builds.
#[derive(Debug, Default)]
pub struct Builds {
    /// Locked, once there is something in it.
    file: Option<(Arc<std::fs::File>, PathBuf)>,
}

/// An [`End`], and whose.
#[derive(Serialize, Deserialize)]
struct Ended {
    id: String,
    #[serde(flatten)]
    end: End,
}

impl Builds {
    /// Writes the beginning of a build. Its id is the agent's name, and a number after a dash.
    pub fn begin(&mut self, dir: &NixDir, attempt: Attempt) -> Result<Running, Error> {
        let record = File {
            version: VERSION,
            attempt,
        };
        let (file, place) = if let Some((file, place)) = &self.file {
            (&**file).write_all(&another(&record, place)?)?;
            (Arc::clone(file), place.clone())
        } else {
            let place = place(&dir.attempts(), &record.attempt.id)?;
            let text = line(&record, &place)?;
            let file = create(&place, text.trim_ascii_end(), Durability::Lazy)?;
            let file = Arc::new(file);
            self.file = Some((Arc::clone(&file), place.clone()));
            (file, place)
        };
        Ok(Running {
            attempt: record.attempt,
            file,
            place,
        })
    }
}

/// The file of the agent whose attempt has this id.
fn place(folder: &Path, id: &str) -> Result<PathBuf, Error> {
    check_name("attempt", id)?;
    let agent = id.rsplit_once('-').map_or(id, |(agent, _)| agent);
    Ok(folder.join(format!("{agent}.{BUILDS}")))
}

/// The line of an end, to be appended.
pub(super) fn end(id: &str, end: &End, place: &Path) -> Result<Vec<u8>, Error> {
    let ended = Ended {
        id: id.to_owned(),
        end: end.clone(),
    };
    another(&ended, place)
}

fn another(value: &impl Serialize, place: &Path) -> Result<Vec<u8>, Error> {
    let mut text = line(value, place)?;
    text.rotate_right(1);
    Ok(text)
}

/// Reads the record of a build; nothing if there is none.
pub(super) fn read(folder: &Path, id: &str) -> Result<Option<Record>, Error> {
    read_file(&place(folder, id)?, |text| Ok(find(text, id)))
}

/// What the lines say of the last attempt that has this id: one that nobody heard of may have had it
/// before. A line that a crash has cut off says nothing.
fn find(text: &str, id: &str) -> Option<Lines> {
    let mut found: Option<Lines> = None;
    for line in text.lines().filter(|line| line.contains(id)) {
        if let Ok(begun) = serde_json::from_str::<File>(line) {
            if begun.attempt.id == id {
                found = Some(Lines {
                    attempt: begun.attempt,
                    end: None,
                    seen: None,
                });
            }
        } else if let Some(found) = &mut found
            && let Ok(ended) = serde_json::from_str::<Ended>(line)
            && ended.id == id
        {
            found.end = Some(ended.end);
        }
    }
    found
}

//! Asking: what is valid, and what it refers to.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::OptionalExtension;

use super::Database;
use crate::nix::{STORE_DIR, StorePath, full_text};
use crate::store::Error;

const SELECT_PATH: &str = "select id, path, hash, registrationTime, deriver, narSize, ultimate, \
                           sigs, ca from ValidPaths where path = ?";
const SELECT_ID: &str = "select id from ValidPaths where path = ?";
const SELECT_REFERENCES: &str =
    "select v.path from Refs r join ValidPaths v on r.reference = v.id where r.referrer = ?";
const SELECT_LARGEST_ID: &str = "select coalesce(max(id), 0) from ValidPaths";
const SELECT_ALL: &str = "select path from ValidPaths order by path";
const COUNT_ALL: &str = "select count(*) from ValidPaths";
const SELECT_HASH_PART: &str = "select path from ValidPaths where path >= ? order by path limit 1";
/// How many rows are read in the time that one is looked for.
const ROWS_FOR_ONE: usize = 8;

/// What is registered about a valid path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// SHA-256 of its NAR.
    pub nar_hash: [u8; 32],
    /// Length of its NAR; old registrations may lack it.
    pub nar_size: Option<u64>,
    /// What it refers to, perhaps with itself.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it, if known.
    pub deriver: Option<StorePath>,
    /// Its content address, if it has one.
    pub ca: Option<String>,
    /// Whether it was built here.
    pub ultimate: bool,
    /// Signatures, `name:base64`.
    pub signatures: Vec<String>,
    /// Seconds since the epoch.
    pub registered: u64,
}

impl Database {
    pub fn valid<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<BTreeSet<StorePath>, Error> {
        let _snapshot = self.snapshot()?;
        let mut valid = BTreeSet::new();
        for path in paths {
            if self.id(path)?.is_some() {
                valid.insert(path.clone());
            }
        }
        Ok(valid)
    }

    pub fn which_valid(&self, paths: &[StorePath]) -> Result<Vec<usize>, Error> {
        let _snapshot = self.snapshot()?;
        // Ids are not used again, so there are at most so many rows.
        let rows = self.number(SELECT_LARGEST_ID)?;
        if paths.is_sorted() && rows / ROWS_FOR_ONE < paths.len() {
            return self.merge(paths);
        }
        let mut which = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            if self.id(path)?.is_some() {
                which.push(at);
            }
        }
        Ok(which)
    }

    /// The one number that a query answers.
    fn number(&self, query: &'static str) -> Result<usize, Error> {
        let number: i64 = self
            .prepare(query)?
            .query_row([], |row| row.get(0))
            .map_err(|error| self.error(error))?;
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    /// Goes once through all rows and all paths. Store paths are in the order of their texts.
    fn merge(&self, paths: &[StorePath]) -> Result<Vec<usize>, Error> {
        let mut statement = self.prepare(SELECT_ALL)?;
        let mut rows = statement.query([]).map_err(|error| self.error(error))?;
        let paths = paths.iter().map(full_text);
        let mut paths = paths.enumerate().peekable();
        let mut which = Vec::new();
        while paths.peek().is_some()
            && let Some(row) = rows.next().map_err(|error| self.error(error))?
        {
            let row = row.get_ref(0).and_then(|row| Ok(row.as_str()?));
            let row = row.map_err(|error| self.error(error))?;
            while paths.next_if(|(_, path)| path.as_str() < row).is_some() {}
            while let Some((at, _)) = paths.next_if(|(_, path)| path == row) {
                which.push(at);
            }
        }
        Ok(which)
    }

    pub fn all_valid(&self, at_most: usize) -> Result<Option<Vec<StorePath>>, Error> {
        let _snapshot = self.snapshot()?;
        let count = self.number(COUNT_ALL)?;
        if count > at_most {
            return Ok(None);
        }
        let mut paths = Vec::with_capacity(count);
        let mut statement = self.prepare(SELECT_ALL)?;
        let mut rows = statement.query([]).map_err(|error| self.error(error))?;
        while let Some(row) = rows.next().map_err(|error| self.error(error))? {
            let text = row.get_ref(0).and_then(|text| Ok(text.as_str()?));
            let text = text.map_err(|error| self.error(error))?;
            // What is no store path of ours nobody asks for.
            paths.extend(text.parse::<StorePath>().ok());
        }
        Ok(Some(paths))
    }

    pub(super) fn id(&self, path: &StorePath) -> Result<Option<i64>, Error> {
        self.prepare(SELECT_ID)?
            .query_row([path.to_absolute_path()], |row| row.get(0))
            .optional()
            .map_err(|error| self.error(error))
    }

    pub fn infos<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<BTreeMap<StorePath, PathInfo>, Error> {
        let _snapshot = self.snapshot()?;
        let mut infos = BTreeMap::new();
        for path in paths {
            if let Some(info) = self.info(path)? {
                infos.insert(path.clone(), info);
            }
        }
        Ok(infos)
    }

    pub fn closure<'a>(
        &self,
        roots: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<BTreeMap<StorePath, PathInfo>, Error> {
        let _snapshot = self.snapshot()?;
        self.check_memory()?;
        let mut closure = BTreeMap::new();
        let mut queue: Vec<StorePath> = roots.into_iter().cloned().collect();
        while let Some(path) = queue.pop() {
            if closure.contains_key(&path) {
                continue;
            }
            let info = self
                .recall(&path)?
                .ok_or_else(|| Error::Invalid { path: path.clone() })?;
            queue.extend(info.references.iter().cloned());
            closure.insert(path, info);
        }
        Ok(closure)
    }

    pub fn info(&self, path: &StorePath) -> Result<Option<PathInfo>, Error> {
        let text = path.to_absolute_path();
        let row = self
            .prepare(SELECT_PATH)?
            .query_row([&text], Row::read)
            .optional()
            .map_err(|error| self.error(error))?;
        let Some(row) = row else { return Ok(None) };
        let references = self.references(row.id)?;
        let bad = |what, text: &str| self.bad(what, text);
        let nar_hash = parse_hash(&row.hash).ok_or_else(|| bad("hash", &row.hash))?;
        let deriver = match &row.deriver {
            Some(text) if !text.is_empty() => Some(text.parse().map_err(|_| bad("deriver", text))?),
            _ => None,
        };
        Ok(Some(PathInfo {
            path: path.clone(),
            nar_hash,
            nar_size: row.nar_size.and_then(|size| u64::try_from(size).ok()),
            references,
            deriver,
            ca: row.ca.filter(|ca| !ca.is_empty()),
            ultimate: row.ultimate == Some(1),
            signatures: split_words(row.sigs.as_deref()),
            registered: u64::try_from(row.registered).unwrap_or(0),
        }))
    }

    fn references(&self, id: i64) -> Result<BTreeSet<StorePath>, Error> {
        let mut statement = self.prepare(SELECT_REFERENCES)?;
        let rows = statement
            .query_map([id], |row| row.get::<_, String>(0))
            .map_err(|error| self.error(error))?;
        rows.map(|row| {
            let text = row.map_err(|error| self.error(error))?;
            text.parse().map_err(|_| self.bad("path", &text))
        })
        .collect()
    }

    pub fn hash_part(&self, hash_part: &str) -> Result<Option<StorePath>, Error> {
        let prefix = format!("{STORE_DIR}/{hash_part}");
        let text: Option<String> = self
            .prepare(SELECT_HASH_PART)?
            .query_row([&prefix], |row| row.get(0))
            .optional()
            .map_err(|error| self.error(error))?;
        match text {
            Some(text)
                if text.as_bytes().get(prefix.len()) == Some(&b'-')
                    && text.starts_with(&prefix) =>
            {
                text.parse().map(Some).map_err(|_| self.bad("path", &text))
            }
            _ => Ok(None),
        }
    }

    fn bad(&self, what: &'static str, text: &str) -> Error {
        Error::Row {
            path: self.path.clone(),
            what,
            text: text.to_owned(),
        }
    }
}

/// A row of `ValidPaths`, not yet believed.
struct Row {
    id: i64,
    hash: String,
    registered: i64,
    deriver: Option<String>,
    nar_size: Option<i64>,
    ultimate: Option<i64>,
    sigs: Option<String>,
    ca: Option<String>,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            hash: row.get("hash")?,
            registered: row.get("registrationTime")?,
            deriver: row.get("deriver")?,
            nar_size: row.get("narSize")?,
            ultimate: row.get("ultimate")?,
            sigs: row.get("sigs")?,
            ca: row.get("ca")?,
        })
    }
}

/// Reads `sha256:` and 64 hexadecimal digits.
fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("sha256:")?.as_bytes();
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        })
        .collect();
    bytes?.try_into().ok()
}

fn split_words(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default()
        .split_ascii_whitespace()
        .map(ToOwned::to_owned)
        .collect()
}

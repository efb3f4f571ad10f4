//! Nix's database: which paths are valid and what they refer to (Nix spec §6.2, §6.3).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction,
    TransactionBehavior, params,
};

use super::identity::hex;
use super::layout::Schema;
use super::{Error, NixDir, PATIENCE};
use crate::nix::{STORE_DIR, StorePath};

/// The tables, indices and trigger of schema 10.
const TABLES: &str = "
create table if not exists ValidPaths (
    id integer primary key autoincrement not null,
    path text unique not null,
    hash text not null,
    registrationTime integer not null,
    deriver text,
    narSize integer,
    ultimate integer,
    sigs text,
    ca text
);
create table if not exists Refs (
    referrer integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index if not exists IndexReferrer on Refs(referrer);
create index if not exists IndexReference on Refs(reference);
create trigger if not exists DeleteSelfRefs before delete on ValidPaths
begin
    delete from Refs where referrer = old.id and reference = old.id;
end;
create table if not exists DerivationOutputs (
    drv integer not null,
    id text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index if not exists IndexDerivationOutputs on DerivationOutputs(path);
";

const SELECT_PATH: &str = "select id, path, hash, registrationTime, deriver, narSize, ultimate, \
                           sigs, ca from ValidPaths where path = ?";
const SELECT_ID: &str = "select id from ValidPaths where path = ?";
const SELECT_REFERENCES: &str =
    "select v.path from Refs r join ValidPaths v on r.reference = v.id where r.referrer = ?";
const SELECT_HASH_PART: &str = "select path from ValidPaths where path >= ? order by path limit 1";
const INSERT_PATH: &str = "insert into ValidPaths (path, hash, registrationTime, deriver, narSize, \
                           ultimate, sigs, ca) values (?, ?, ?, ?, ?, ?, ?, ?)";
const UPDATE_PATH: &str = "update ValidPaths set hash = ?2, narSize = ?3, \
                           ultimate = coalesce(?4, ultimate), sigs = coalesce(?5, sigs), \
                           ca = coalesce(?6, ca) where id = ?1";
const INSERT_REFERENCE: &str = "insert or replace into Refs (referrer, reference) values (?, ?)";
const INSERT_OUTPUT: &str =
    "insert or replace into DerivationOutputs (drv, id, path) values (?, ?, ?)";

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

/// What makes a path valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The path.
    pub path: StorePath,
    /// SHA-256 of its NAR.
    pub nar_hash: [u8; 32],
    /// Length of its NAR.
    pub nar_size: u64,
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
    /// Of a derivation: names and paths of the outputs whose paths are known.
    pub derivation_outputs: Vec<(String, StorePath)>,
}

/// An open database.
pub struct Database {
    path: PathBuf,
    connection: Connection,
    patience: std::cell::Cell<Duration>,
}

impl Database {
    /// Opens the database for writing; makes the tables if the schema is missing.
    pub fn open(dir: &NixDir, schema: Schema) -> Result<Self, Error> {
        let path = dir.db().join("db.sqlite");
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if schema == Schema::Missing {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let database = Self::connect(
            path,
            Connection::open_with_flags(dir.db().join("db.sqlite"), flags),
        )?;
        database
            .configure(schema)
            .map_err(|error| database.error(error))?;
        database.check_tables()?;
        Ok(database)
    }

    /// Opens the database for reading.
    ///
    /// Where a reader can neither find nor make the files that WAL needs, and no WAL is left,
    /// nobody writes: then the file is read as immutable.
    pub fn open_read_only(dir: &NixDir) -> Result<Self, Error> {
        let path = dir.db().join("db.sqlite");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Self::connect(path.clone(), Connection::open_with_flags(&path, flags))?;
        let failure = match database.check_tables() {
            Err(error) if is_unwritable(&error) => error,
            Err(error) => return Err(error),
            Ok(()) => return Ok(database),
        };
        let wal = dir.db().join("db.sqlite-wal");
        if std::fs::metadata(wal).is_ok_and(|metadata| metadata.len() > 0) {
            return Err(failure);
        }
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        let database = Self::connect(
            path.clone(),
            Connection::open_with_flags(immutable_uri(&path), flags),
        )?;
        database.check_tables()?;
        Ok(database)
    }

    fn connect(path: PathBuf, connection: rusqlite::Result<Connection>) -> Result<Self, Error> {
        let connection = connection.map_err(|source| Error::Database {
            path: path.clone(),
            source,
        })?;
        connection.set_prepared_statement_cache_capacity(32);
        let database = Self {
            path,
            connection,
            patience: std::cell::Cell::new(PATIENCE),
        };
        database.set_patience(PATIENCE)?;
        Ok(database)
    }

    pub fn set_patience(&self, patience: Duration) -> Result<(), Error> {
        self.patience.set(patience);
        self.connection
            .busy_timeout(patience)
            .map_err(|error| self.error(error))
    }

    fn configure(&self, schema: Schema) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection.execute_batch("pragma foreign_keys = 1; pragma synchronous = normal;")?;
        let mode: String =
            connection.query_row("pragma main.journal_mode", [], |row| row.get(0))?;
        if mode != "wal" {
            self.retry_busy(|| {
                connection.query_row("pragma main.journal_mode = wal", [], |_| Ok(()))
            })?;
        }
        connection.query_row("pragma wal_autocheckpoint = 40000", [], |_| Ok(()))?;
        if schema == Schema::Missing {
            let transaction =
                Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            transaction.execute_batch(TABLES)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// Changing the journal mode is not covered by `SQLite`'s own waiting.
    fn retry_busy(&self, change: impl Fn() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        let start = Instant::now();
        loop {
            match change() {
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && start.elapsed() < self.patience.get() =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => return other,
            }
        }
    }

    fn check_tables(&self) -> Result<(), Error> {
        let sql = "select count(*) from sqlite_master where type = 'table' \
                   and name in ('ValidPaths', 'Refs', 'DerivationOutputs')";
        let count: u32 = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| self.error(error))?;
        if count == 3 {
            Ok(())
        } else {
            Err(Error::Corrupt {
                path: self.path.clone(),
                source: None,
            })
        }
    }

    fn error(&self, source: rusqlite::Error) -> Error {
        let path = self.path.clone();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy {
                path,
                waited: self.patience.get(),
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Corrupt {
                path,
                source: Some(source),
            },
            _ => Error::Database { path, source },
        }
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, Error> {
        self.connection
            .prepare_cached(sql)
            .map_err(|error| self.error(error))
    }

    /// Begins to read as of one moment.
    fn snapshot(&self) -> Result<Transaction<'_>, Error> {
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Deferred)
            .map_err(|error| self.error(error))
    }

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

    fn id(&self, path: &StorePath) -> Result<Option<i64>, Error> {
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
        let mut closure = BTreeMap::new();
        let mut queue: Vec<StorePath> = roots.into_iter().cloned().collect();
        while let Some(path) = queue.pop() {
            if closure.contains_key(&path) {
                continue;
            }
            let info = self
                .info(&path)?
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
            .query_row([&text], |row| Row::read(row))
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

    /// One transaction, begun as a writer: two that began as readers could not both go on.
    pub fn register<'a>(
        &self,
        registrations: impl IntoIterator<Item = &'a Registration>,
    ) -> Result<(), Error> {
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
                .map_err(|error| self.error(error))?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mut ids = BTreeMap::new();
        let mut rows = Vec::new();
        for registration in registrations {
            let id = self.put(registration, now)?;
            ids.insert(&registration.path, id);
            rows.push((id, registration));
        }
        for (id, registration) in rows {
            self.put_references(id, registration, &ids)?;
            self.put_outputs(id, registration)?;
        }
        transaction.commit().map_err(|error| self.error(error))
    }

    /// Inserts a row, or updates what a valid path's row may gain.
    fn put(&self, registration: &Registration, now: u64) -> Result<i64, Error> {
        let hash = format!("sha256:{}", hex(&registration.nar_hash));
        let size = i64::try_from(registration.nar_size).ok();
        let ultimate = registration.ultimate.then_some(1_i64);
        let sigs = Some(registration.signatures.join(" ")).filter(|text| !text.is_empty());
        let ca = &registration.ca;
        if let Some(id) = self.id(&registration.path)? {
            self.prepare(UPDATE_PATH)?
                .execute(params![id, hash, size, ultimate, sigs, ca])
                .map_err(|error| self.error(error))?;
            return Ok(id);
        }
        let path = registration.path.to_absolute_path();
        let deriver = registration
            .deriver
            .as_ref()
            .map(StorePath::to_absolute_path);
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.prepare(INSERT_PATH)?
            .insert(params![path, hash, now, deriver, size, ultimate, sigs, ca])
            .map_err(|error| self.error(error))
    }

    fn put_references(
        &self,
        id: i64,
        registration: &Registration,
        ids: &BTreeMap<&StorePath, i64>,
    ) -> Result<(), Error> {
        for reference in &registration.references {
            let known = match ids.get(reference) {
                Some(known) => Some(*known),
                None => self.id(reference)?,
            };
            let known = known.ok_or_else(|| Error::Reference {
                path: registration.path.clone(),
                reference: reference.clone(),
            })?;
            self.prepare(INSERT_REFERENCE)?
                .execute([id, known])
                .map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    fn put_outputs(&self, id: i64, registration: &Registration) -> Result<(), Error> {
        for (name, path) in &registration.derivation_outputs {
            self.prepare(INSERT_OUTPUT)?
                .execute(params![id, name, path.to_absolute_path()])
                .map_err(|error| self.error(error))?;
        }
        Ok(())
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

/// Whether a database could not be read for want of a place to write.
fn is_unwritable(error: &Error) -> bool {
    let Error::Database { source, .. } = error else {
        return false;
    };
    matches!(
        source.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
    )
}

/// Names a database for `SQLite` as one that nobody changes.
fn immutable_uri(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            write!(uri, "%{byte:02X}").expect("a string takes everything");
        }
    }
    uri.push_str("?immutable=1");
    uri
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

//! Nix's database: which paths are valid and what they refer to (Nix spec §6.2, §6.3).

mod memory;
mod query;
mod register;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memory::Memory;
pub use query::PathInfo;
pub use register::Registration;
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior,
};

use super::layout::Schema;
use super::{Error, NixDir, PATIENCE};

/// How often it is told that another program writes.
const ROUND: Duration = Duration::from_millis(200);

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

/// An open database.
pub struct Database {
    path: PathBuf,
    connection: Connection,
    patience: std::cell::Cell<Duration>,
    memory: Memory,
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
        if fs_err::metadata(wal).is_ok_and(|metadata| metadata.len() > 0) {
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
            memory: Memory::default(),
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
            _ if is_busy(&source) => Error::Busy {
                path,
                waited: self.patience.get(),
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Corrupt {
                path,
                source: Some(source),
            },
            _ if is_full(&source) => Error::Full { path, source },
            _ => Error::Database { path, source },
        }
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, Error> {
        self.connection
            .prepare_cached(sql)
            .map_err(|error| self.error(error))
    }

    /// Begins to write as soon as nobody else does.
    fn begin_writing(
        &self,
        on_wait: &mut dyn FnMut(&Path) -> ControlFlow<()>,
    ) -> Result<Transaction<'_>, Error> {
        let wait = |time| self.connection.busy_timeout(time);
        let attempt = || {
            wait(ROUND.min(self.patience.get()))?;
            let begun =
                Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate);
            wait(self.patience.get())?;
            begun
        };
        loop {
            match attempt() {
                Err(error) if is_busy(&error) => {
                    if on_wait(&lock_place(&self.path)).is_break() {
                        return Err(self.error(error));
                    }
                }
                other => return other.map_err(|error| self.error(error)),
            }
        }
    }

    /// How long it is waited for others.
    pub fn patience(&self) -> Duration {
        self.patience.get()
    }

    /// Begins to read as of one moment.
    fn snapshot(&self) -> Result<Transaction<'_>, Error> {
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Deferred)
            .map_err(|error| self.error(error))
    }
}

/// The file whose lock somebody writing to the database holds just now.
pub fn being_written(dir: &NixDir) -> Option<PathBuf> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(dir.db().join("db.sqlite"), flags).ok()?;
    connection.busy_timeout(Duration::ZERO).ok()?;
    let error = connection
        .execute_batch("begin immediate; rollback;")
        .err()?;
    is_busy(&error).then(|| lock_place(&dir.db().join("db.sqlite")))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Where the locks of a database are: those of WAL are in the file of its index.
fn lock_place(database: &Path) -> PathBuf {
    database.with_extension("sqlite-shm")
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

/// Whether there was no room: for rows, or for the index of the log of changes.
fn is_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_SHMSIZE};
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(SQLITE_FULL | SQLITE_IOERR_SHMSIZE))
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

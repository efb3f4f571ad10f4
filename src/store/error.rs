//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tree;
use crate::nix::StorePath;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no store.
    #[error("no Nix store at `{dir}`")]
    Missing {
        /// The Nix directory.
        dir: PathBuf,
    },
    /// Made by another generation of Nix.
    #[error("store `{dir}` has database schema `{found}`, only `10` is known")]
    Schema {
        /// The Nix directory.
        dir: PathBuf,
        /// The schema file's text.
        found: String,
    },
    /// It cannot be written.
    #[error("store `{dir}` cannot be written")]
    NotWritable {
        /// The Nix directory.
        dir: PathBuf,
        /// The first failure.
        #[source]
        source: io::Error,
    },
    /// It was opened for reading only.
    #[error("store `{dir}` is open for reading only")]
    OpenedReadOnly {
        /// The Nix directory.
        dir: PathBuf,
    },
    /// Nix refuses such a store.
    #[error("`{path}` is a symbolic link; a store and the directories above it may not be")]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The database cannot be trusted.
    #[error("store database `{path}` is damaged")]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// How that was seen.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// A row that Nix does not write.
    #[error("store database `{path}` holds the bad {what} `{text}`")]
    Row {
        /// The database.
        path: PathBuf,
        /// Which column.
        what: &'static str,
        /// Its value.
        text: String,
    },
    /// Another process held the database too long.
    #[error("store database `{path}` stayed locked by another process for {waited:?}")]
    Busy {
        /// The database.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// There is no room for the database.
    #[error("the disk of store database `{path}` is full")]
    Full {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// Any other failure of the database.
    #[error("store database `{path}` failed")]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A file operation failed; the source names the file.
    #[error("store file cannot be used")]
    Io(
        /// Why.
        #[from]
        io::Error,
    ),
    /// A system call that `std` does not have failed.
    #[error("cannot {what} `{path}`")]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustix::io::Errno,
    },
    /// A tree failed.
    #[error("store object cannot be handled")]
    Tree(
        /// Why.
        #[from]
        tree::Error,
    ),
    /// A path is not registered.
    #[error("path `{path}` is not valid")]
    Invalid {
        /// The path.
        path: StorePath,
    },
    /// A registered path was to be removed.
    #[error("path `{path}` is valid and stays")]
    Valid {
        /// The path.
        path: StorePath,
    },
    /// A path was to be registered before what it refers to.
    #[error("path `{path}` refers to `{reference}`, which is not valid")]
    Reference {
        /// The path.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// Paths of one import refer to each other in a circle.
    #[error("path `{path}` refers to itself through others")]
    Cycle {
        /// One of them.
        path: StorePath,
    },
    /// An imported path is not what it was said to be.
    #[error("path `{path}` was imported with hash `{found}` instead of `{expected}`")]
    Hash {
        /// The path.
        path: StorePath,
        /// The hash that was announced.
        expected: String,
        /// The hash of what came.
        found: String,
    },
    /// A content address and a path that do not belong together.
    #[error("path `{path}` does not have the content address `{ca}`")]
    ContentAddress {
        /// The path.
        path: StorePath,
        /// The content address.
        ca: String,
    },
    /// A `.drv` file that is none.
    #[error("derivation `{path}` cannot be read")]
    Derivation {
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A wait was ended by whoever waited.
    #[error("wait for the lock `{path}` was cancelled")]
    Cancelled {
        /// The lock.
        path: PathBuf,
    },
    /// A name that cannot be a file's.
    #[error("`{name}` cannot name a {what}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A record of an attempt that cannot be understood.
    #[error("record `{path}` cannot be understood")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    pub(super) fn system(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |source| Self::System {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

//! What a store's database says of its paths, read without Nix and without our own store code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// A row of `ValidPaths` with its references. The time of registration is left out: it is the one
/// thing in which two stores may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// NAR hash, `sha256:` and hexadecimal digits.
    pub(crate) hash: String,
    /// Size of the NAR.
    pub(crate) nar_size: Option<i64>,
    /// The `.drv` it was built from.
    pub(crate) deriver: Option<String>,
    /// 1 if it was built here, else null.
    pub(crate) ultimate: Option<i64>,
    /// Its content address.
    pub(crate) ca: Option<String>,
    /// Signatures.
    pub(crate) sigs: Option<String>,
    /// The paths it refers to, itself included.
    pub(crate) references: BTreeSet<String>,
}

/// Every valid path of the store whose root (as `--store` has it) is `root`.
///
/// # Panics
///
/// If the database cannot be read.
pub(crate) fn rows(root: &Path) -> BTreeMap<String, Row> {
    let database = root.join("nix/var/nix/db/db.sqlite");
    let database = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .unwrap_or_else(|error| panic!("{}: {error}", database.display()));
    database
        .busy_timeout(std::time::Duration::from_mins(1))
        .unwrap();
    let mut found = BTreeMap::new();
    let mut select = database
        .prepare("select path, hash, narSize, deriver, ultimate, ca, sigs from ValidPaths")
        .unwrap();
    let mut paths = select.query([]).unwrap();
    while let Some(row) = paths.next().unwrap() {
        let row_of = Row {
            hash: row.get(1).unwrap(),
            nar_size: row.get(2).unwrap(),
            deriver: row.get(3).unwrap(),
            ultimate: row.get(4).unwrap(),
            ca: row.get(5).unwrap(),
            sigs: row.get(6).unwrap(),
            references: BTreeSet::new(),
        };
        found.insert(row.get(0).unwrap(), row_of);
    }
    add_references(&database, &mut found);
    found
}

fn add_references(database: &Connection, found: &mut BTreeMap<String, Row>) {
    let mut select = database
        .prepare(
            "select a.path, b.path from Refs \
             join ValidPaths a on a.id = referrer join ValidPaths b on b.id = reference",
        )
        .unwrap();
    let mut pairs = select.query([]).unwrap();
    while let Some(pair) = pairs.next().unwrap() {
        let referrer: String = pair.get(0).unwrap();
        if let Some(row) = found.get_mut(&referrer) {
            row.references.insert(pair.get(1).unwrap());
        }
    }
}

/// Checks that two stores say the same of some paths: `ours` and `theirs` are roots.
///
/// # Panics
///
/// If a path is missing in either, or a row differs; every difference is named.
pub(crate) fn assert_same<'a>(
    ours: &Path,
    theirs: &Path,
    paths: impl IntoIterator<Item = &'a str>,
) {
    let (our_rows, their_rows) = (rows(ours), rows(theirs));
    let mut differences = Vec::new();
    for path in paths {
        let (our, their) = (our_rows.get(path), their_rows.get(path));
        if our.is_none() || our != their {
            differences.push(format!("{path}\n  ours:   {our:?}\n  theirs: {their:?}"));
        }
    }
    assert!(
        differences.is_empty(),
        "the stores differ:\n{}",
        differences.join("\n")
    );
}

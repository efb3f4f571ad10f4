//! A store of our own, looked at by ourselves and, where it is installed, by real Nix.

mod agreement;
mod files;
mod import;
mod records;
mod sharing;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use rusqlite::Connection;

use super::*;

struct Scene {
    _folder: tempfile::TempDir,
    dir: NixDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = NixDir::new(folder.path().canonicalize().unwrap().join("nix"));
        Self {
            _folder: folder,
            dir,
        }
    }

    fn open(&self) -> Store {
        Store::open(self.dir.clone()).unwrap()
    }

    fn sql(&self) -> Connection {
        Connection::open(self.dir.db().join("db.sqlite")).unwrap()
    }
}

fn path(digit: char, name: &str) -> StorePath {
    let hash: String = std::iter::repeat_n(digit, 32).collect();
    StorePath::from_basename(format!("{hash}-{name}").as_bytes()).unwrap()
}

fn registration(path: &StorePath, references: &[&StorePath]) -> Registration {
    Registration {
        path: path.clone(),
        nar_hash: [7; 32],
        nar_size: 120,
        references: references.iter().map(|path| (*path).clone()).collect(),
        deriver: None,
        ca: None,
        ultimate: false,
        signatures: Vec::new(),
        derivation_outputs: Vec::new(),
    }
}

/// What the pragmas say of a table, in the form of the vectors.
fn layout_of(connection: &Connection, table: &str) -> serde_json::Value {
    let query = |sql: &str| -> Vec<Vec<rusqlite::types::Value>> {
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        statement
            .query_map([], |row| {
                (0..columns).map(|column| row.get(column)).collect()
            })
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    };
    let text = |value: &rusqlite::types::Value| match value {
        rusqlite::types::Value::Text(text) => text.clone(),
        other => panic!("{other:?} is no text"),
    };
    let number = |value: &rusqlite::types::Value| match value {
        rusqlite::types::Value::Integer(number) => *number,
        other => panic!("{other:?} is no number"),
    };
    let columns: Vec<_> = query(&format!("pragma table_info({table})"))
        .iter()
        .map(|row| {
            serde_json::json!({
                "name": text(&row[1]), "type": text(&row[2]).to_uppercase(),
                "notNull": number(&row[3]) == 1, "default": null, "pk": number(&row[5]),
            })
        })
        .collect();
    let mut keys: Vec<_> = query(&format!("pragma foreign_key_list({table})"))
        .iter()
        .map(|row| {
            serde_json::json!({
                "from": text(&row[3]), "table": text(&row[2]), "to": text(&row[4]),
                "onDelete": text(&row[6]),
            })
        })
        .collect();
    keys.sort_by_key(ToString::to_string);
    let mut indices: Vec<_> = query(&format!("pragma index_list({table})"))
        .iter()
        .map(|row| {
            let name = text(&row[1]);
            let columns: Vec<_> = query(&format!("pragma index_info({name})"))
                .iter()
                .map(|row| text(&row[2]))
                .collect();
            serde_json::json!({
                "name": name, "unique": number(&row[2]) == 1, "origin": text(&row[3]),
                "columns": columns,
            })
        })
        .collect();
    indices.sort_by_key(|index| index["name"].to_string());
    serde_json::json!({ "columns": columns, "foreignKeys": keys, "indices": indices })
}

#[test]
fn the_tables_are_nix_s() {
    let scene = Scene::new();
    drop(scene.open());
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/vectors/misc/db-layout.json")).unwrap();
    let connection = scene.sql();
    for table in ["ValidPaths", "Refs", "DerivationOutputs"] {
        let mut expected = expected["schema10"][table].clone();
        for list in ["foreignKeys", "indices"] {
            let list = expected[list].as_array_mut().unwrap();
            list.sort_by_key(|item| format!("{}{}", item["name"], item["from"]));
        }
        assert_eq!(layout_of(&connection, table), expected, "{table}");
    }
    let pragma = |name: &str| -> String {
        let sql = format!("select cast({name} as text) from pragma_{name}");
        connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("user_version"), "0");
    assert_eq!(pragma("page_size"), "4096");
    let trigger: String = connection
        .query_row(
            "select name from sqlite_master where type = 'trigger'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(trigger, "DeleteSelfRefs");
}

#[test]
fn what_is_registered_is_read_again() {
    let scene = Scene::new();
    let store = scene.open();
    let (a, b, drv) = (path('a', "a"), path('b', "b"), path('c', "a.drv"));
    let full = Registration {
        deriver: Some(drv.clone()),
        ca: Some("fixed:sha1:x".to_owned()),
        ultimate: true,
        signatures: vec!["k:1".to_owned(), "k:2".to_owned()],
        ..registration(&a, &[&a, &b])
    };
    let with_outputs = Registration {
        derivation_outputs: vec![("out".to_owned(), a.clone())],
        ..registration(&drv, &[])
    };
    store
        .register([&full, &registration(&b, &[]), &with_outputs])
        .unwrap();

    let info = store.info(&a).unwrap().unwrap();
    assert_eq!(info.references, BTreeSet::from([a.clone(), b.clone()]));
    assert_eq!((info.nar_hash, info.nar_size), ([7; 32], Some(120)));
    assert_eq!(
        (info.deriver, info.ca),
        (full.deriver.clone(), full.ca.clone())
    );
    assert_eq!(
        (info.ultimate, info.signatures),
        (true, full.signatures.clone())
    );
    assert_eq!(
        store.valid([&a, &path('d', "d")]).unwrap(),
        BTreeSet::from([a.clone()])
    );
    assert_eq!(store.closure([&a]).unwrap().len(), 2);
    assert_eq!(store.infos([&a, &path('d', "d")]).unwrap().len(), 1);
    assert_eq!(store.hash_part(&"a".repeat(32)).unwrap(), Some(a.clone()));
    assert_eq!(store.hash_part(&"9".repeat(32)).unwrap(), None);
    let error = store.closure([&path('d', "d")]).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");

    let nulls = "select count(*) from ValidPaths where ultimate is null and sigs is null \
                 and ca is null and deriver is null";
    let count: u32 = scene.sql().query_row(nulls, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2);
    let outputs = "select id || path from DerivationOutputs";
    let row: String = scene
        .sql()
        .query_row(outputs, [], |row| row.get(0))
        .unwrap();
    assert_eq!(row, format!("out{a}"));
}

#[test]
fn registering_is_all_or_nothing() {
    let scene = Scene::new();
    let store = scene.open();
    let (a, b) = (path('a', "a"), path('b', "b"));
    let error = store
        .register([
            &registration(&a, &[]),
            &registration(&b, &[&path('c', "c")]),
        ])
        .unwrap_err();
    assert!(matches!(error, Error::Reference { .. }), "{error}");
    assert!(store.valid([&a, &b]).unwrap().is_empty());
}

#[test]
fn registering_again_loses_nothing() {
    let scene = Scene::new();
    let store = scene.open();
    let a = path('a', "a");
    let first = Registration {
        ultimate: true,
        signatures: vec!["k:1".to_owned()],
        ..registration(&a, &[])
    };
    store.register([&first]).unwrap();
    store.register([&registration(&a, &[])]).unwrap();
    let info = store.info(&a).unwrap().unwrap();
    assert!(info.ultimate);
    assert_eq!(info.signatures, ["k:1"]);
}

#[test]
fn an_unusable_store_is_refused_by_name() {
    let scene = Scene::new();
    let refused = |dir: &NixDir| Store::open(dir.clone()).err().unwrap();
    assert!(matches!(
        Store::open_read_only(scene.dir.clone()).err().unwrap(),
        Error::Missing { .. }
    ));
    drop(scene.open());
    fs_err::write(scene.dir.db().join("schema"), "9").unwrap();
    assert!(matches!(refused(&scene.dir), Error::Schema { found, .. } if found == "9"));
    fs_err::write(scene.dir.db().join("schema"), "10\n").unwrap();
    fs_err::write(scene.dir.db().join("db.sqlite"), vec![b'x'; 8192]).unwrap();
    assert!(matches!(refused(&scene.dir), Error::Corrupt { .. }));
    assert!(matches!(
        Store::open_read_only(scene.dir.clone()).err().unwrap(),
        Error::Corrupt { .. }
    ));
    fs_err::remove_file(scene.dir.db().join("db.sqlite")).unwrap();
    assert!(matches!(refused(&scene.dir), Error::Database { .. }));

    let other = Scene::new();
    fs_err::create_dir_all(other.dir.path()).unwrap();
    fs_err::os::unix::fs::symlink(scene.dir.store(), other.dir.store()).unwrap();
    assert!(matches!(refused(&other.dir), Error::Symlink { .. }));
}

#[test]
fn a_reader_sees_what_a_writer_commits_and_cannot_write() {
    let scene = Scene::new();
    let writer = scene.open();
    let reader = Store::open_read_only(scene.dir.clone()).unwrap();
    let a = path('a', "a");
    writer.register([&registration(&a, &[])]).unwrap();
    assert_eq!(reader.valid([&a]).unwrap().len(), 1);
    let error = reader
        .register([&registration(&path('b', "b"), &[])])
        .unwrap_err();
    assert!(matches!(error, Error::OpenedReadOnly { .. }));
    assert_eq!(reader.identity(), writer.identity());
}

#[test]
fn a_locked_database_is_named() {
    let scene = Scene::new();
    let store = scene.open();
    store.set_patience(Duration::from_millis(30)).unwrap();
    let other = scene.sql();
    other.execute_batch("begin immediate").unwrap();
    let error = store
        .register([&registration(&path('a', "a"), &[])])
        .unwrap_err();
    assert!(
        matches!(&error, Error::Busy { path, .. } if path.ends_with("db.sqlite")),
        "{error}"
    );
}

#[test]
fn who_waits_for_the_database_is_told_and_may_give_up_or_go_on() {
    let scene = Scene::new();
    let store = scene.open();
    let other = scene.sql();
    let a = registration(&path('a', "a"), &[]);
    other.execute_batch("begin immediate").unwrap();
    let mut told = Vec::new();
    let error = store
        .register_after([&a], &mut |lock| {
            told.push(lock.to_owned());
            ControlFlow::Break(())
        })
        .unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    assert_eq!(told, [scene.dir.db().join("db.sqlite-shm")]);
    store
        .register_after([&a], &mut |_| {
            other.execute_batch("rollback").unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(store.valid([&a.path]).unwrap().len(), 1);
}

#[test]
fn many_open_a_new_store_at_once() {
    let scene = Scene::new();
    let identities: Vec<Identity> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| scene.open().identity().clone()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(identities.iter().all(|identity| *identity == identities[0]));
}

#[test]
fn a_copy_is_another_instance_of_the_same_store() {
    let scene = Scene::new();
    let identity = scene.open().identity().clone();
    assert_eq!(*scene.open().identity(), identity);
    let copy = Scene::new();
    drop(copy.open());
    let file = "pontoon/identity";
    fs_err::copy(scene.dir.path().join(file), copy.dir.path().join(file)).unwrap();
    let copied = copy.open().identity().clone();
    assert_eq!(copied.store, identity.store);
    assert_ne!(copied.instance, identity.instance);
}

//! Importing derivations, their outputs, and what is not what it says.

use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::*;
use crate::nix::nar::Writer;
use crate::store::identity::hex;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

pub(super) fn archive(bytes: &[u8]) -> Vec<u8> {
    let mut nar = Vec::new();
    let mut writer = Writer::new(&mut nar).unwrap();
    writer
        .regular(false, bytes.len() as u64, &mut &*bytes)
        .unwrap();
    writer.finish();
    nar
}

fn header(path: StorePath, references: &[StorePath], nar: &[u8]) -> ImportHeader {
    ImportHeader {
        path,
        references: references.iter().cloned().collect(),
        deriver: None,
        ca: None,
        nar_hash: hex(&Sha256::digest(nar)),
    }
}

fn text_paths(value: &serde_json::Value) -> Vec<StorePath> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap().parse().unwrap())
        .collect()
}

/// The objects, derivations and outputs of Nix's own builds.
pub(super) fn everything() -> Vec<(ImportHeader, Vec<u8>)> {
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs_err::read(vectors().join("manifest.json")).unwrap()).unwrap();
    let mut all = Vec::new();
    let optional = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
    let outputs = manifest["derivations"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|derivation| derivation["outputs"].as_object())
        .flat_map(serde_json::Map::values);
    let others = manifest["derivationsOtherObjects"]
        .as_array()
        .unwrap()
        .iter();
    for object in outputs.chain(others) {
        let Some(file) = object["nar"].as_str() else {
            continue;
        };
        let nar = fs_err::read(vectors().join("nar").join(file)).unwrap();
        let path: StorePath = object["path"].as_str().unwrap().parse().unwrap();
        let mut header = header(path, &text_paths(&object["references"]), &nar);
        header.ca = optional(&object["ca"]);
        header.deriver = optional(&object["deriver"]).map(|path| path.parse().unwrap());
        assert_eq!(header.nar_hash, object["narHash"]["hex"].as_str().unwrap());
        all.push((header, nar));
    }
    for (path, facts) in manifest["derivationsDrvPaths"].as_object().unwrap() {
        let path: StorePath = path.parse().unwrap();
        let bytes = fs_err::read(vectors().join("drv").join(path.to_basename())).unwrap();
        let nar = archive(&bytes);
        all.push((header(path, &text_paths(&facts["references"]), &nar), nar));
    }
    all
}

/// Imports what is there with everything it refers to; returns the paths.
pub(super) fn import_everything(store: &Store) -> Vec<StorePath> {
    let mut all = everything();
    loop {
        let known: BTreeSet<_> = all.iter().map(|(header, _)| header.path.clone()).collect();
        let before = all.len();
        all.retain(|(header, _)| header.references.is_subset(&known));
        if all.len() == before {
            break;
        }
    }
    let mut importer = Importer::default();
    for (header, nar) in all.iter().rev() {
        importer.add(store, header.clone(), nar.as_slice()).unwrap();
    }
    let mut paths: Vec<_> = all.into_iter().map(|(header, _)| header.path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(
        importer
            .finish(store, &mut |_| ControlFlow::Continue(()))
            .unwrap(),
        paths.len()
    );
    paths
}

#[test]
fn nix_s_own_rows_come_of_an_import_in_any_order() {
    let scene = Scene::new();
    let store = scene.open();
    let paths = import_everything(&store);
    assert!(paths.len() > 60, "{}", paths.len());
    let rows: serde_json::Value =
        serde_json::from_slice(&fs_err::read(vectors().join("misc/db-rows-main.json")).unwrap())
            .unwrap();
    let mut compared = 0;
    for row in rows["ValidPaths"].as_array().unwrap() {
        let path: StorePath = row["path"].as_str().unwrap().parse().unwrap();
        let Some(info) = store.info(&path).unwrap() else {
            continue;
        };
        compared += 1;
        assert_eq!(format!("sha256:{}", hex(&info.nar_hash)), row["hash"]);
        assert_eq!(info.nar_size, row["narSize"].as_u64());
        assert_eq!(info.ca.as_deref(), row["ca"].as_str(), "{path}");
    }
    assert!(compared > 60, "{compared}");
    let connection = scene.sql();
    for row in rows["DerivationOutputs"].as_array().unwrap() {
        let drv = row[0].as_str().unwrap();
        if store.info(&drv.parse().unwrap()).unwrap().is_none() {
            continue;
        }
        let sql = "select d.path from DerivationOutputs d join ValidPaths v on d.drv = v.id \
                   where v.path = ? and d.id = ?";
        let found: String = connection
            .query_row(sql, [drv, row[1].as_str().unwrap()], |row| row.get(0))
            .unwrap();
        assert_eq!(found, row[2]);
    }
    let left: Vec<_> = fs_err::read_dir(scene.dir.store())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("import") || name.contains(".lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // Again: nothing is new.
    let mut importer = Importer::default();
    let (header, nar) = everything().swap_remove(0);
    importer.add(&store, header, nar.as_slice()).unwrap();
    assert_eq!(
        importer
            .finish(&store, &mut |_| ControlFlow::Continue(()))
            .unwrap(),
        0
    );
}

#[test]
fn what_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let scene = Scene::new();
    let store = scene.open();
    let mut importer = Importer::default();
    let nar = archive(b"Hello, store!\n");
    let hello: StorePath = "/nix/store/qi9pij7xmihmcvr7kx65iynlvx2w8l1c-hello.txt"
        .parse()
        .unwrap();
    let honest = header(hello, &[], &nar);

    let mut wrong = honest.clone();
    wrong.nar_hash = "0".repeat(64);
    let error = importer.add(&store, wrong, nar.as_slice()).unwrap_err();
    assert!(matches!(error, Error::Hash { .. }), "{error}");

    let other = "text:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
    for ca in [other, "text:sha256:x", "rubbish"] {
        let mut wrong = honest.clone();
        wrong.ca = Some(ca.to_owned());
        let error = importer.add(&store, wrong, nar.as_slice()).unwrap_err();
        assert!(matches!(error, Error::ContentAddress { .. }), "{error}");
    }
    let bytes =
        fs_err::read(vectors().join("drv/hky11qbaa01znhh8iki3gbh5ki39lvvb-simple.drv")).unwrap();
    let nar = archive(&bytes);
    let forged = header(path('a', "simple.drv"), &[], &nar);
    let error = importer.add(&store, forged, nar.as_slice()).unwrap_err();
    assert!(matches!(error, Error::ContentAddress { .. }), "{error}");

    let error = importer.add(&store, honest, &b"rubbish"[..]).unwrap_err();
    assert!(matches!(error, Error::Tree(_)), "{error}");
    assert_eq!(fs_err::read_dir(scene.dir.store()).unwrap().count(), 1);
}

#[test]
fn a_missing_reference_and_a_circle_make_nothing_valid() {
    let scene = Scene::new();
    let store = scene.open();
    let (a, b) = (path('a', "a"), path('b', "b"));
    let nar = archive(b"x");
    let mut importer = Importer::default();
    importer
        .add(
            &store,
            header(a.clone(), std::slice::from_ref(&b), &nar),
            nar.as_slice(),
        )
        .unwrap();
    assert!(matches!(
        importer.finish(&store, &mut |_| ControlFlow::Continue(())),
        Err(Error::Reference { .. })
    ));
    let mut importer = Importer::default();
    for (path, other) in [(&a, &b), (&b, &a)] {
        let header = header(path.clone(), std::slice::from_ref(other), &nar);
        importer.add(&store, header, nar.as_slice()).unwrap();
    }
    assert!(matches!(
        importer.finish(&store, &mut |_| ControlFlow::Continue(())),
        Err(Error::Cycle { .. })
    ));
    assert!(store.valid([&a, &b]).unwrap().is_empty());
}

#[test]
fn an_importer_that_is_dropped_leaves_nothing() {
    let scene = Scene::new();
    let store = scene.open();
    let nar = archive(b"x");
    let mut importer = Importer::default();
    importer
        .add(&store, header(path('a', "a"), &[], &nar), nar.as_slice())
        .unwrap();
    drop(importer);
    assert_eq!(fs_err::read_dir(scene.dir.store()).unwrap().count(), 1);
}

#[test]
fn all_that_is_valid_is_named_unless_it_is_too_much() {
    let scene = Scene::new();
    let store = scene.open();
    let paths = import_everything(&store);
    let all = store.all_valid(paths.len()).unwrap();
    assert_eq!(all.as_ref(), Some(&paths));
    assert_eq!(store.all_valid(paths.len() - 1).unwrap(), None);
    let odd = "insert into ValidPaths (path, hash, registrationTime) values ('/odd', '', 0)";
    scene.sql().execute_batch(odd).unwrap();
    assert_eq!(store.all_valid(paths.len() + 1).unwrap(), all);
}

//! Builds beside those of real Nix: the same derivations, the same rows, hashes, logs and ends.
//!
//! Every subject is built in every [`Setting`] (both shapes, as root and as ordinary users) and in
//! every [`Way`] (one store, another evaluation store, another and a proxy in the tunnel). What
//! differs on purpose is in `docs/differences-from-nix.md`, and asserted here.

mod builders;
pub(crate) mod proxy;
mod refusals;
mod setting;
mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use setting::{SETTINGS, Setting, Ways};

use super::support::{Nix, Place, assert_same, rows, run};

/// A derivation's name: what follows the hash, without `.drv`.
fn name_of(path: &str) -> &str {
    let base = path.rsplit('/').next().expect("it has a last part");
    base.get(33..)
        .and_then(|name| name.strip_suffix(".drv"))
        .unwrap_or_else(|| panic!("`{path}` is no derivation"))
}

/// Instantiates an attribute of an expression into a store: `.drv` paths by name.
fn instantiate(nix: &Nix, file: &Path, attribute: &str) -> BTreeMap<String, String> {
    nix.instantiate(file, Some(attribute))
        .iter()
        // Nix shows a first output of another name than `out` behind the path.
        .map(|path| path.split('!').next().expect("a split has one").to_owned())
        .map(|path| (name_of(&path).to_owned(), path))
        .collect()
}

/// Checks that both stores hold the same paths with equal rows, but for the outputs of the
/// derivations named in `except`; and that nothing else lies in ours.
fn assert_equal_stores(ours: &Path, theirs: &Path, except: &[&str]) {
    assert_equal_but_for(ours, theirs, except, &BTreeSet::new());
}

/// Likewise, and paths in `absent` need not be in ours.
fn assert_equal_but_for(ours: &Path, theirs: &Path, except: &[&str], absent: &BTreeSet<&str>) {
    let (our_rows, their_rows) = (rows(ours), rows(theirs));
    let is_excepted = |path: &str| {
        let deriver = their_rows.get(path).or_else(|| our_rows.get(path));
        deriver
            .and_then(|row| row.deriver.as_deref())
            .is_some_and(|deriver| except.contains(&name_of(deriver)))
    };
    let keys = |rows: &BTreeMap<String, _>| -> BTreeSet<String> {
        rows.keys()
            .filter(|path| !is_excepted(path))
            .cloned()
            .collect()
    };
    let (our_keys, their_keys) = (keys(&our_rows), keys(&their_rows));
    let different: Vec<&String> = our_keys
        .symmetric_difference(&their_keys)
        .filter(|path| our_keys.contains(*path) || !absent.contains(path.as_str()))
        .collect();
    assert!(different.is_empty(), "in one store alone: {different:?}");
    let both = our_keys.intersection(&their_keys);
    assert_same(ours, theirs, both.map(String::as_str));
    for entry in fs_err::read_dir(ours.join("nix/store")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("/nix/store/{name}");
        let is_lock = name.strip_suffix(".lock").is_some();
        let is_known = our_rows.contains_key(&path) || name == ".links" || is_lock;
        assert!(is_known, "`{name}` lies in the store, and is not valid");
    }
}

/// Checks what real Nix says of our store: nothing wrong, and of every path but some the same.
fn assert_nix_agrees(nix: &Nix, ours: &Path, except: &[&str]) {
    let on_ours = nix.on(ours);
    on_ours.verify();
    let infos = |nix: &Nix| {
        let mut infos = nix.path_info(&["--all"]);
        infos.retain(|info| {
            let deriver = info["deriver"].as_str();
            !deriver.is_some_and(|deriver| except.contains(&name_of(deriver)))
        });
        infos
    };
    let (ours, theirs) = (infos(&on_ours), infos(nix));
    for (our, their) in ours.iter().zip(&theirs) {
        assert_eq!(our, their);
    }
    assert_eq!(ours.len(), theirs.len());
}

/// The logs of derivations one after the other, as Nix prints them.
fn logs(nix: &Nix, drvs: &[&str]) -> String {
    let ran = run(&mut nix.command("nix-store", &[&["--read-log"], drvs].concat()));
    ran.ok().stdout
}

/// The files of an output by relative path, as text; an unreadable directory has none.
fn files(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs_err::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs_err::read(entry.path()).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        found.insert(PathBuf::from(entry.file_name()), text);
    }
    found
}

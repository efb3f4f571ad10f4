//! Real Nix on our store, and we on its; silent where Nix is not installed.

use std::process::{Command, Output};

use super::import::import_everything;
use super::*;

fn nix_store(scene: &Scene, arguments: &[&str]) -> Option<Output> {
    let root = scene.dir.path().parent().unwrap();
    let output = Command::new("nix-store")
        .arg("--store")
        .arg(root)
        .args(arguments)
        .env("NIX_REMOTE", "")
        .output()
        .ok()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(output)
}

#[test]
fn nix_agrees_with_everything_in_our_store() {
    let scene = Scene::new();
    let store = scene.open();
    let paths = import_everything(&store);
    let Some(output) = nix_store(&scene, &["--verify", "--check-contents"]) else {
        return;
    };
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !said.contains("error") && !said.contains("warning"),
        "{said}"
    );
    for path in &paths {
        let info = store.info(path).unwrap().unwrap();
        let text = path.to_absolute_path();
        let output = nix_store(&scene, &["--query", "--references", &text]).unwrap();
        let mut references: Vec<String> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(ToOwned::to_owned)
            .collect();
        references.sort();
        let mut ours: Vec<String> = info.references.iter().map(ToString::to_string).collect();
        ours.sort();
        assert_eq!(references, ours);
    }
}

#[test]
fn we_read_a_store_that_nix_made_and_add_to_it() {
    let scene = Scene::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), "some text").unwrap();
    let file = file.path().to_str().unwrap();
    let Some(output) = nix_store(&scene, &["--add", file]) else {
        return;
    };
    let path: StorePath = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let info = Store::open_read_only(scene.dir.clone())
        .unwrap()
        .info(&path)
        .unwrap()
        .unwrap();
    assert!(info.ca.is_some());
    let (hash, size) = tree::hash(&scene.dir.real(&path)).unwrap();
    assert_eq!((info.nar_hash, info.nar_size), (hash, Some(size)));
    let store = scene.open();
    assert_eq!(store.info(&path).unwrap().unwrap(), info);
    import_everything(&store);
    nix_store(&scene, &["--verify", "--check-contents"]).unwrap();
}

#[test]
fn the_collector_of_nix_respects_our_roots_and_temp_roots() {
    let scene = Scene::new();
    let store = scene.open();
    let paths = import_everything(&store);
    drop(store);
    let store = scene.open();
    let leaves: Vec<&StorePath> = paths
        .iter()
        .filter(|path| store.info(path).unwrap().unwrap().references.is_empty())
        .collect();
    let (linked, also, held) = (leaves[0], leaves[1], leaves[2]);
    let mut roots = Roots::open(&scene.dir, "run").unwrap();
    roots.link([linked, also]).unwrap();
    store.add_temp_roots([held]).unwrap();
    if nix_store(&scene, &["--gc"]).is_none() {
        return;
    }
    let valid = store.valid(&paths).unwrap();
    assert!([linked, also, held].iter().all(|path| valid.contains(path)));
    assert!(
        valid.len() < paths.len() / 2,
        "{} of {}",
        valid.len(),
        paths.len()
    );
    drop((roots, store));
    nix_store(&scene, &["--gc"]).unwrap();
    assert!(scene.open().valid(&paths).unwrap().is_empty());
}

//! Roots, slots, logs: our own files.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

#[test]
fn links_of_a_dead_run_go_when_the_next_begins() {
    let scene = Scene::new();
    drop(scene.open());
    let a = path('a', "a");
    let link = |run: &str| {
        scene
            .dir
            .gcroots()
            .join("pontoon")
            .join(run)
            .join(a.to_basename())
    };
    let mut first = Roots::open(&scene.dir, "first").unwrap();
    first.link([&a, &a]).unwrap();
    assert_eq!(link("first").metadata().unwrap().nlink(), 1);
    assert!(Roots::open(&scene.dir, "first").is_err());
    fs_err::create_dir_all(scene.dir.gcroots().join("pontoon/dead/x")).unwrap();
    let mut second = Roots::open(&scene.dir, "second").unwrap();
    second.link([&a]).unwrap();
    assert!(!scene.dir.gcroots().join("pontoon/dead").exists());
    assert!(link("first").symlink_metadata().is_ok());
    drop(first);
    assert!(link("first").symlink_metadata().is_err());
    assert!(link("second").symlink_metadata().is_ok());
    drop(second);
    assert_eq!(fs_err::read_dir(scene.dir.runs()).unwrap().count(), 0);
    assert!(matches!(
        Roots::open(&scene.dir, "../x"),
        Err(Error::Name { .. })
    ));
}

#[test]
fn a_slot_with_a_builder_in_it_is_neither_leased_nor_swept() {
    let scene = Scene::new();
    drop(scene.open());
    let lease = Slot::lease(&scene.dir).unwrap();
    let (number, made) = (lease.number(), lease.store_dir().join("made"));
    let occupied = Occupied::begin(&scene.dir, number).unwrap().unwrap();
    assert!(Occupied::begin(&scene.dir, number).unwrap().is_none());
    fs_err::write(&made, "").unwrap();
    // Whoever leased it dies, and the builder is still at it.
    drop(lease);
    assert!(Slot::try_lease(&scene.dir, number).unwrap().is_none());
    assert_ne!(Slot::lease(&scene.dir).unwrap().number(), number);
    assert!(made.exists());
    drop(occupied);
    assert_eq!(Slot::lease(&scene.dir).unwrap().number(), number);
    assert!(!made.exists());
}

#[test]
fn a_slot_is_leased_once_and_swept() {
    let scene = Scene::new();
    drop(scene.open());
    let (first, second) = (
        Slot::lease(&scene.dir).unwrap(),
        Slot::lease(&scene.dir).unwrap(),
    );
    assert_eq!((first.number(), second.number()), (0, 1));
    assert!(Slot::try_lease(&scene.dir, 0).unwrap().is_none());
    let left = first.store_dir().join("left");
    fs_err::create_dir_all(left.join("inner")).unwrap();
    fs_err::set_permissions(&left, std::fs::Permissions::from_mode(0o0)).unwrap();
    let inode = first.store_dir().metadata().unwrap().ino();
    drop(first);
    let again = Slot::lease(&scene.dir).unwrap();
    assert_eq!(again.number(), 0);
    assert!(!left.exists());
    let metadata = again.store_dir().metadata().unwrap();
    assert_eq!((metadata.ino(), metadata.mode() & 0o7777), (inode, 0o1775));
}

#[test]
fn logs_are_nix_s_also_of_a_silent_build() {
    let scene = Scene::new();
    drop(scene.open());
    let drv = path('a', "a.drv");
    let read = || {
        let mut text = Vec::new();
        logs::open(&scene.dir, &drv)
            .unwrap()
            .unwrap()
            .read_to_end(&mut text)
            .unwrap();
        text
    };
    assert!(logs::open(&scene.dir, &drv).unwrap().is_none());
    let log = logs::LogWriter::create(&scene.dir, &drv).unwrap();
    assert!(
        log.place()
            .ends_with(format!("drvs/aa/{}-a.drv.bz2", "a".repeat(30)))
    );
    log.finish().unwrap();
    assert_eq!(
        fs_err::metadata(logs::place(&scene.dir, &drv))
            .unwrap()
            .len(),
        14
    );
    assert_eq!(read(), b"");
    let mut log = logs::LogWriter::create(&scene.dir, &drv).unwrap();
    log.write_all(b"a\rb\xff\n").unwrap();
    log.finish().unwrap();
    assert_eq!(read(), b"a\rb\xff\n");
    fs_err::remove_file(logs::place(&scene.dir, &drv)).unwrap();
    fs_err::write(logs::place(&scene.dir, &drv).with_extension(""), "plain").unwrap();
    assert_eq!(read(), b"plain");
}
